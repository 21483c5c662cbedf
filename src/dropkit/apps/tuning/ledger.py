"""What the trials of a storage amount to. Pure: of the same trials, every process sees the same.

A storage holds attempts. The first attempts, in order, are the numbers of the search: 0, 1, 2...
An attempt whose worker died is followed by one more, which says whose it is; if two processes
added one, the first of them counts. So no process has to ask another, and none is a master.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dropkit.apps.tuning.results import Place, Tried
from dropkit.apps.tuning.spaces import told
from dropkit.records import Space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RETRY, OWNER, BEAT, KILLED, ENDED = "retry_of", "owner", "beat", "killed", "ended"
FROM, STEP_ERROR = "space", "error@"
"""Keys of a trial's attributes."""

_PLACES: dict[str, Place] = {
    "COMPLETE": "done",
    "PRUNED": "stopped",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


@dataclass(frozen=True)
class Ledger:
    """The attempts of a study, by number."""

    attempts: Sequence[FrozenTrial]
    wanted: float
    """How many numbers there are to be; infinity where only time ends the search."""

    @cached_property
    def numbers(self) -> list[list[FrozenTrial]]:
        """For each number of the search its attempts, one or two."""
        found: dict[int, list[FrozenTrial]] = {}
        for attempt in sorted(self.attempts, key=lambda attempt: attempt.number):
            of = attempt.user_attrs.get(RETRY)
            if of is None:
                found[attempt.number] = [attempt]
            elif of in found and len(found[of]) == 1:
                found[of].append(attempt)
        every = list(found.values())
        return every if self.wanted == float("inf") else every[: int(self.wanted)]

    @property
    def last(self) -> list[FrozenTrial]:
        """For each number, the attempt that counts."""
        return [attempts[-1] for attempts in self.numbers]

    @property
    def missing(self) -> bool:
        """Whether a number has no attempt yet."""
        return len(self.numbers) < self.wanted

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do, for anyone."""
        return not self.missing and not self.orphans and not self.open

    @property
    def open(self) -> list[FrozenTrial]:
        """Attempts that wait or run."""
        return [attempt for attempt in self.last if not attempt.state.is_finished()]

    @property
    def ended(self) -> int:
        """How many numbers have ended for good."""
        return sum(attempt.state.is_finished() for attempt in self.last) - len(self.orphans)

    @property
    def waiting(self) -> list[FrozenTrial]:
        """Attempts that anyone may take, second attempts first."""
        found = [attempt for attempt in self.last if attempt.state.name == "WAITING"]
        return sorted(found, key=lambda attempt: (RETRY not in attempt.user_attrs, attempt.number))

    @property
    def running(self) -> list[FrozenTrial]:
        """Attempts that someone works on, or died over."""
        return [attempt for attempt in self.last if attempt.state.name == "RUNNING"]

    @property
    def orphans(self) -> list[FrozenTrial]:
        """First attempts whose worker died, and that nobody has yet put up again."""
        return [attempts[0] for attempts in self.numbers if _orphaned(attempts)]

    def number(self, attempt: FrozenTrial) -> int | None:
        """The number of the search that an attempt is of; None if it is one too many."""
        for number, attempts in enumerate(self.numbers):
            if any(attempt.number == other.number for other in attempts):
                return number
        return None


def _orphaned(attempts: Sequence[FrozenTrial]) -> bool:
    last = attempts[-1]
    return len(attempts) == 1 and last.state.name == "FAIL" and KILLED in last.user_attrs


def tried(number: int, attempts: Sequence[FrozenTrial], space: Space, seed: int) -> Tried:
    """What became of a number."""
    last = attempts[-1]
    notes: Mapping[str, Any] = last.user_attrs
    ended: Mapping[str, Any] = notes.get(ENDED, {})
    done = last.state.name == "COMPLETE"
    return Tried(
        number=number,
        place="waiting" if _orphaned(attempts) else _PLACES[last.state.name],
        params=told(space, last.params),
        seed=seed,
        score=last.value if done else None,
        error=ended.get("error") if done else None,
        seconds=ended.get("seconds"),
        attempts=len(attempts),
        why=str(ended.get("why") or notes.get(KILLED) or ""),
        traceback=str(ended.get("traceback", "")),
        curve=tuple(
            (step, value, notes.get(f"{STEP_ERROR}{step}"))
            for step, value in sorted(last.intermediate_values.items())
        ),
    )
