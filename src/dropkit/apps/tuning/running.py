"""One trial, from its claim to its end: whatever the objective does, something true is written."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dropkit.apps.tuning.keeping import Keeper
from dropkit.apps.tuning.ledger import STEP_ERROR
from dropkit.apps.tuning.pruning import Patience, hopeless
from dropkit.apps.tuning.results import Direction, Point, spread_of_repeats
from dropkit.apps.tuning.study import Claim, Register
from dropkit.apps.tuning.trial import Diverged, Objective, Trial, error_of, number_of
from dropkit.errors import FolderError, MissingExtraError, SettingError, StudyError, TrialStopped

_LONGEST_TRACE = 6000
"""Characters; the end of a traceback says more than its beginning."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended."""

    place: str
    score: float | None = None
    error: float | None = None
    why: str = ""
    traceback: str = ""


class Bench:
    """Where a process runs its trials."""

    def __init__(
        self,
        register: Register,
        keeper: Keeper,
        patience: Patience | None,
        deadline: float = math.inf,
    ) -> None:
        self._register, self._keeper = register, keeper
        self._patience, self._deadline = patience, deadline
        self._freed, self._freeing = -math.inf, 0.0
        """When memory was let go of last, and how long that took."""

    def run(self, claim: Claim, objective: Objective) -> Ended | None:
        """Run a trial and write how it ended; None if it was given up meanwhile, by others."""
        began = time.monotonic()
        space = self._register.terms.space
        rates = {name: claim.params[name] for name in space.rates}
        desk = _Desk(self._register, claim, self._keeper, self._patience, self._deadline)
        trial = Trial(claim.params, rates, claim.number, claim.seed, claim.again, desk)
        with self._alive(claim):
            try:
                ended = outcome(objective, trial)
            except BaseException as error:
                self._leave(claim, error)
                raise
        found = {"error": ended.error, "why": ended.why, "traceback": ended.traceback}
        notes: dict[str, Any] = {
            name: value for name, value in found.items() if value not in (None, "")
        }
        notes["seconds"] = round(time.monotonic() - began, 3)
        counts = self._register.end(claim, ended.place, notes, ended.score)
        del trial, desk
        self._free()
        return ended if counts else None

    def _free(self) -> None:
        """Let go of what trials held; where they take no longer than that, not after each."""
        began = time.monotonic()
        if began - self._freed > 4 * self._freeing:
            free()
            self._freed = time.monotonic()
            self._freeing = self._freed - began

    def _leave(self, claim: Claim, error: BaseException) -> None:
        """An attempt that is broken off is made again when the search goes on."""
        if not isinstance(error, StudyError):  # else nothing can be written; it is found to be left
            self._register.give_up(claim, f"it was broken off: {type(error).__name__}")

    @contextlib.contextmanager
    def _alive(self, claim: Claim) -> Iterator[None]:
        """Show signs of life meanwhile."""
        over = threading.Event()
        every = self._register.terms.silence / 6

        def beat() -> None:
            count = 0
            while not over.wait(every):
                count += 1
                try:
                    if not self._register.sign(claim, count):
                        return
                except StudyError:  # the trial itself will come to know
                    return

        thread = threading.Thread(target=beat, name="dropkit-signs-of-life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class _Desk:
    """Behind a trial: the study, the rule for stopping, and the folder of weights."""

    def __init__(
        self,
        register: Register,
        claim: Claim,
        keeper: Keeper,
        patience: Patience | None,
        deadline: float,
    ) -> None:
        self._register, self._claim, self._keeper = register, claim, keeper
        self._patience, self._deadline = patience, deadline

    def report(self, step: int, score: float, error: float | None) -> None:
        notes = {} if error is None else {f"{STEP_ERROR}{step}": error}
        self._register.report(self._claim, step, score, notes)

    def verdict(self, curve: list[Point]) -> str:
        if time.monotonic() > self._deadline:
            return "the time is up"
        if self._patience is None or not curve:
            return ""
        others = self._register.tried(self._register.ledger(math.inf))
        direction: Direction = self._register.terms.direction
        done = [(other.params, other.score or 0.0) for other in others if other.place == "done"]
        return hopeless(curve, others, direction, self._patience, spread_of_repeats(done))

    def keep(self, weights: Mapping[str, Any] | bytes) -> None:
        self._keeper.keep(self._claim.number, weights)


def outcome(objective: Objective, trial: Trial) -> Ended:
    """What the objective makes of a trial; only what ends the search is raised."""
    try:
        answer = objective(trial)
    except TrialStopped as error:
        return Ended("stopped", why=trial.stopped or str(error) or "by itself")
    except Diverged as error:
        return Ended("failed", why=str(error))
    except (StudyError, FolderError, MissingExtraError):
        raise
    except (Exception, SystemExit) as error:  # whatever a user's objective may raise
        return Ended("failed", why=_last_line(error), traceback=_trace())
    if trial.stopped:
        return Ended("stopped", why=trial.stopped)
    return judged(answer, trial)


def judged(answer: object, trial: Trial) -> Ended:
    """What an answer says: a score, a score with its standard error, or the last report."""
    pair = answer
    if answer is None:
        if not trial.curve:
            return Ended("failed", why="it gave None, and had reported nothing")
        pair = trial.curve[-1][1:]
    if not isinstance(pair, tuple | list):
        pair = (pair, None)
    score = number_of(pair[0]) if len(pair) == 2 else None
    if score is None:
        return Ended(
            "failed",
            why="expected a score, (score, standard error), or None after reports; got "
            f"{str(answer)[:80]!r}",
        )
    if not math.isfinite(score):
        return Ended("failed", why=f"the score is {score}")
    try:
        return Ended("done", score, None if pair[1] is None else error_of(pair[1]))
    except SettingError as error:
        return Ended("failed", why=str(error))


def free() -> None:
    """Let go of what a trial held: cycles, and the memory that torch keeps for the next one."""
    gc.collect()
    torch = sys.modules.get("torch")
    for name in ("cuda", "xpu", "mps"):
        device: Any = getattr(torch, name, None)
        used = getattr(device, "is_initialized", getattr(device, "is_available", bool))
        if used():
            device.empty_cache()


def _last_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def _trace() -> str:
    return traceback.format_exc()[-_LONGEST_TRACE:]
