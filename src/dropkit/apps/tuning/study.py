"""A study: opened, found to be of the same search, and its trials taken, ended and buried.

Any number of processes do this at the same time, and any of them may be killed between two lines.
What makes that safe are two steps that every storage takes atomically: a waiting trial is taken
by one process, and a trial ends once. All else follows from what the trials then say.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropkit.apps.clock import words
from dropkit.apps.tuning.ledger import (
    BEAT,
    ENDED,
    FROM,
    KILLED,
    OWNER,
    RETRY,
    Ledger,
    tried,
)
from dropkit.apps.tuning.liveness import Watch, life, signature
from dropkit.apps.tuning.results import Direction, Tried
from dropkit.apps.tuning.spaces import asked, defaults, fixed
from dropkit.apps.tuning.storage import calm, close, hidden, open_storage
from dropkit.errors import SettingError, StudyError
from dropkit.records import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_MARK = "dropkit"
_UNSIGNED = 10.0
"""Seconds after which a trial that was taken, and never signed, is taken to be left: its worker
died between two writes, before it began."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What makes a study this one and no other, and what its processes agree on."""

    storage: str
    name: str
    space: Space
    direction: Direction
    key: int = 0
    silence: float = 60.0
    """Seconds without a sign of life until a worker on another machine counts as dead."""
    patience: float = 60.0
    """Seconds for which a storage that does not answer is asked again."""

    queue: tuple[dict[str, Any], ...] = ()
    """Settings that the first numbers have; the search asks for those after them."""
    repeats: int = 0
    """If above 0, numbers that differ by as many share a seed, so that pairs can be compared."""

    def seed(self, number: int) -> int:
        """32 bits that belong to a number of the search: in a second attempt they are the same."""
        place = number % self.repeats if self.repeats else number
        digest = hashlib.blake2b(f"{self.key}:{place}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this process has taken."""

    attempt: int
    """Names the attempt in the storage."""
    number: int
    params: dict[str, Any]
    seed: int
    again: bool
    """Whether the worker of the first attempt died."""


class Register:
    """The trials of a study, as one process reads and writes them."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._watch = Watch()
        self._storage: BaseStorage = open_storage(terms.storage, terms.patience)
        try:
            with calm():
                self._study: Study = _opened(self._storage, terms)
            self._id = self._storage.get_study_id_from_name(terms.name)
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the storage."""
        close(self._storage)

    def _check(self) -> None:
        """Raise unless the study is of this space; what begins one at the same time is heard."""
        mark = self._storage.get_study_user_attrs(self._id).get(_MARK)
        attempts = self._attempts()
        if mark is None:
            if any(FROM not in attempt.user_attrs for attempt in attempts):
                raise StudyError(
                    f"{self._where} has trials that are not of dropkit's making; name another study"
                )
            self._storage.set_study_user_attr(self._id, _MARK, _mark(self.terms))
            mark = self._storage.get_study_user_attrs(self._id)[_MARK]
        _compare(mark, self.terms, self._study.direction.name.lower(), self._where)
        self._check_first(attempts)

    def _check_first(self, attempts: Sequence[FrozenTrial]) -> None:
        """The first trial decides whose study it is, if two began one that was not yet marked."""
        if attempts and attempts[0].user_attrs.get(FROM) != self.terms.space.fingerprint:
            raise StudyError(
                f"{self._where} is a study of another model or space, begun at this moment; name "
                "another study"
            )

    @property
    def _where(self) -> str:
        return f"the study {self.terms.name!r} in {hidden(self.terms.storage)}"

    def refuse_if_begun(self) -> None:
        """Raise `StudyError` if it has trials: nothing is continued that was not asked for."""
        count = len(self._attempts())
        if count:
            raise StudyError(
                f"expected an empty study; {self._where} has {count} trials. Resume it, or name "
                "another place"
            )

    def ledger(self, wanted: float) -> Ledger:
        """What the trials amount to now."""
        return Ledger(self._attempts(), wanted)

    def tried(self, ledger: Ledger) -> tuple[Tried, ...]:
        """What became of each number."""
        terms = self.terms
        return tuple(
            tried(number, attempts, terms.space, terms.seed(number))
            for number, attempts in enumerate(ledger.numbers)
        )

    # ---- taking

    def claim(self, wanted: float) -> Claim | None:
        """Take the next trial, if there is one to be taken now."""
        ledger = self.ledger(wanted)
        if self._put_up(ledger):
            ledger = self.ledger(wanted)
        self._check_first(ledger.attempts)
        return next(filter(None, (self._take(ledger, waiting) for waiting in ledger.waiting)), None)

    def _put_up(self, ledger: Ledger) -> bool:
        """See that there is something to take; whether anything was added."""
        orphans = [*self._bury(ledger), *ledger.orphans]
        for orphan in orphans:
            self._study.enqueue_trial(orphan.params, user_attrs={RETRY: orphan.number})
        lacking = not orphans and not ledger.waiting and ledger.missing
        if lacking:
            self._study.enqueue_trial({}, user_attrs={FROM: self.terms.space.fingerprint})
        return bool(orphans) or lacking

    def _take(self, ledger: Ledger, waiting: FrozenTrial) -> Claim | None:
        """Take an attempt and sign it; None if another process was quicker."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        attempt = waiting._trial_id
        try:
            if not self._storage.set_trial_state_values(attempt, TrialState.RUNNING):
                return None
            self._storage.set_trial_user_attr(attempt, OWNER, signature())
        except UpdateFinishedTrialError:
            return None
        number = ledger.number(waiting)
        assert number is not None, "taken from the ledger"
        again = RETRY in waiting.user_attrs
        return Claim(attempt, number, self._asked(attempt, number), self.terms.seed(number), again)

    def _asked(self, attempt: int, number: int) -> dict[str, Any]:
        import optuna

        space, queue = self.terms.space, self.terms.queue
        given = queue[number] if number < len(queue) else {} if number else defaults(space)
        if given:
            before = self._storage.get_trial(attempt).system_attrs.get("fixed_params", {})
            both = fixed(space, given) | before  # a second attempt has what the first one was asked
            self._storage.set_trial_system_attr(attempt, "fixed_params", both)
        with calm():
            sampler = optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                constant_liar=True,  # what runs is not asked again
                seed=self.terms.seed(number),
            )
            study = optuna.load_study(  # anew: another one has old trials in its cache
                study_name=self.terms.name,
                storage=self._storage,
                sampler=sampler,
                pruner=optuna.pruners.NopPruner(),
            )
            return asked(space, optuna.trial.Trial(study, attempt))

    # ---- while it runs

    def sign(self, claim: Claim, beat: int) -> bool:
        """Show life; False if the trial is no longer this process's."""
        return self._note(claim, {BEAT: beat})

    def report(self, claim: Claim, step: int, score: float, notes: dict[str, Any]) -> None:
        """Keep a score on the way."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._storage.set_trial_intermediate_value(claim.attempt, step, score)
        except UpdateFinishedTrialError:
            return
        self._note(claim, notes)

    # ---- ending

    def end(
        self, claim: Claim, place: str, notes: dict[str, Any], score: float | None = None
    ) -> bool:
        """Write how a trial ended, once; False if it was given up before, and does not count."""
        states = {"done": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
        value = self._last_report(claim) if place == "stopped" else score
        return self._close(claim, states[place], {ENDED: notes}, value)

    def give_up(self, claim: Claim, why: str) -> bool:
        """End an attempt that is to be made again: its worker was killed, or interrupted."""
        return self._close(claim, "FAIL", {KILLED: why}, None)

    def _close(self, claim: Claim, name: str, notes: dict[str, Any], value: float | None) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        state = TrialState[name]
        if not self._note(claim, notes):
            return False
        values = None if value is None else [value]
        try:
            self._storage.set_trial_state_values(claim.attempt, state, values)
        except UpdateFinishedTrialError:  # by another, or by us if a database lost its answer
            found = self._storage.get_trial(claim.attempt)
            return bool(found.state == state) and (
                KILLED in notes or KILLED not in found.user_attrs
            )
        return True

    def _last_report(self, claim: Claim) -> float | None:
        found = self._storage.get_trial(claim.attempt).intermediate_values
        return found[max(found)] if found else None

    def _note(self, claim: Claim, notes: dict[str, Any]) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            for name, value in notes.items():
                self._storage.set_trial_user_attr(claim.attempt, name, value)
        except UpdateFinishedTrialError:
            return False
        return True

    # ---- burying

    def bury(self, wanted: float) -> None:
        """End the attempts whose workers have died."""
        self._bury(self.ledger(wanted))

    def _bury(self, ledger: Ledger) -> list[FrozenTrial]:
        """End the attempts whose workers have died; those that are to be made again."""
        buried = []
        for attempt in ledger.running:
            why = self._death(attempt)
            if why and self.give_up(Claim(attempt._trial_id, -1, {}, 0, False), why):
                buried.append(attempt)
        return [attempt for attempt in buried if RETRY not in attempt.user_attrs]

    def _death(self, attempt: FrozenTrial) -> str:
        """What its worker died of; empty while it lives, as far as can be told."""
        owner = attempt.user_attrs.get(OWNER)
        still = self._watch.still(attempt.number, (owner, attempt.user_attrs.get(BEAT)))
        if owner is None:
            return "its worker died as it took it" if still > _UNSIGNED else ""
        lives = life(owner)
        if lives == "dead":
            return f"its worker died ({_said(owner)})"
        if lives == "unknown" and still > self.terms.silence:
            return f"its worker ({_said(owner)}) gave no sign of life for {words(still)}"
        return ""

    def _attempts(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)


def _opened(storage: BaseStorage, terms: Terms) -> Study:
    """The study of that name, made if there is none."""
    import optuna

    for left in (2, 1, 0):
        try:
            return optuna.create_study(
                study_name=terms.name,
                storage=storage,
                direction=terms.direction,
                pruner=optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except (optuna.exceptions.DuplicatedStudyError, KeyError):
            if not left:  # another process makes it at this moment, and is not yet through
                raise
            time.sleep(0.2)
    raise AssertionError("the last attempt returns or raises")


def _mark(terms: Terms) -> dict[str, Any]:
    return {
        "version": 1,
        "space": terms.space.fingerprint,
        "key": terms.key,
        "knobs": terms.space.as_dict(),
    }


def _compare(mark: dict[str, Any], terms: Terms, direction: str, where: str) -> None:
    """Raise unless a study is of this space and direction."""
    mine = _mark(terms)
    if mark.get("version") != mine["version"]:
        raise StudyError(f"{where} was made by another version of dropkit; name another study")
    if mark["space"] != mine["space"]:
        known = Space.from_dict(mark["knobs"])
        raise StudyError(
            f"{where} is a study of another model or space: {_difference(known, terms.space)}. "
            "Name another study, or search the same space"
        )
    if direction != terms.direction:
        raise StudyError(
            f"expected to {direction}, as {where} does; got direction={terms.direction!r}"
        )
    if mark["key"] != mine["key"]:
        raise SettingError(
            f"key: expected {mark['key']}, with which {where} began; got {terms.key}"
        )


def _difference(known: Space, asked_for: Space) -> str:
    """Where two spaces differ, in a line."""
    gone = [name for name in known.names if name not in asked_for.names]
    new = [name for name in asked_for.names if name not in known.names]
    if gone or new:
        parts = [f"it has {', '.join(gone[:5])}"] * bool(gone)
        parts += [f"it lacks {', '.join(new[:5])}"] * bool(new)
        return "; ".join(parts)
    changed = [
        knob.name
        for knob in known
        if Space((knob,)).fingerprint != Space((asked_for[knob.name],)).fingerprint
    ]
    return f"the range of {', '.join(changed[:5])} is another"


def _said(owner: str) -> str:
    """A process for a person."""
    parts = owner.split("|")
    return f"process {parts[-2]} on {parts[0]}"
