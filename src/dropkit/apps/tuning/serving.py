"""A worker's life: take a trial, run it, take the next, until there is nothing left to do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dropkit.apps.tuning.keeping import Keeper
from dropkit.apps.tuning.pruning import Patience
from dropkit.apps.tuning.results import Search, Tried
from dropkit.apps.tuning.running import Bench
from dropkit.apps.tuning.study import Register, Terms
from dropkit.apps.tuning.trial import Objective
from dropkit.errors import StudyError

_WAITS = (0.05, 2.0)
"""Seconds between two looks for a trial, while others run the last ones: the first, the longest."""

_SHOWN = 1500
"""Characters of a traceback in a message."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is told; it travels to other processes and machines."""

    objective: Objective | str
    """A function, or module:function and file.py:function."""
    terms: Terms
    out: str
    trials: int | None = None
    left: float = math.inf
    """Seconds in which a trial may begin."""
    keep: int = 3
    patience: Patience | None = field(default_factory=Patience)
    failures: int = 5
    """Trials that fail in a row, with none that succeeded, until the search is given up."""
    known: frozenset[int] = frozenset()
    """Numbers that had ended when the search was called: what failed then is forgiven now."""
    timeout: float | None = None
    """Seconds that a trial may take."""

    @property
    def wanted(self) -> float:
        """How many numbers there are to be."""
        return math.inf if self.trials is None else self.trials


def load(objective: Objective | str) -> Objective:
    """The objective itself."""
    if not isinstance(objective, str):
        return objective
    from dropkit.apps.tuning.finding import objective_at

    return objective_at(objective)


class Shift:
    """A worker in this process."""

    def __init__(
        self,
        work: Work,
        register: Register | None = None,
        said: Callable[[str, int], None] = lambda event, attempt: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._work, self._said, self._stop = work, said, stop
        self._register = register or Register(work.terms)
        self._keeper = Keeper(work.out, work.keep)
        self._deadline = time.monotonic() + work.left
        self._bench = Bench(self._register, self._keeper, work.patience, self._deadline)

    def serve(self) -> None:
        """Run trials until all are done, the time is up, or someone asks to stop."""
        objective, wait = load(self._work.objective), _WAITS[0]
        while not self._stop() and time.monotonic() < self._deadline:
            claim = self._register.claim(self._work.wanted)
            if claim is None:
                if self._register.ledger(self._work.wanted).over:
                    return
                time.sleep(wait)
                wait = min(2 * wait, _WAITS[1])
                continue
            wait = _WAITS[0]
            self._said("began", claim.attempt)
            ended = self._bench.run(claim, objective)
            if self._keeper.files():
                self._keeper.tidy(found(self._work, self._register))
            self._said("ended", claim.attempt)
            if ended is None or ended.place == "failed":
                give_up_if_all_fail(self._work, self._register)


def found(work: Work, register: Register, ended: str = "") -> Search:
    """What the study holds now."""
    terms = work.terms
    files = Keeper(work.out, work.keep).files()
    return Search(
        space=terms.space,
        direction=terms.direction,
        trials=register.tried(register.ledger(work.wanted)),
        wanted=work.trials,
        storage=terms.storage,
        out=work.out,
        weights={number: str(paths[0]) for number, paths in files.items()},
        ended=ended,
    )


def give_up_if_all_fail(work: Work, register: Register) -> None:
    """Raise `StudyError` if nothing but failures came of the first trials."""
    trials = register.tried(register.ledger(work.wanted))
    mine = [trial for trial in trials if trial.ended and trial.number not in work.known]
    enough = min(work.failures, work.wanted - len(work.known & {t.number for t in trials}))
    if len(mine) >= max(1, enough) and all(trial.place == "failed" for trial in mine):
        raise StudyError(_all_failed(mine))


def _all_failed(failed: Iterable[Tried]) -> str:
    *_, last = failed
    trace = f"\n\n{last.traceback[-_SHOWN:].rstrip()}" if last.traceback else ""
    return (
        f"none of the first {last.number + 1} trials succeeded; the last one failed: {last.why}. "
        f"Correct the objective or the space, and continue with resume{trace}"
    )
