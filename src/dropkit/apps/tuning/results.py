"""What a search found: values, in the order of its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from dropkit.records import Space

Direction = Literal["minimize", "maximize"]
Place = Literal["waiting", "running", "done", "stopped", "failed"]
Point = tuple[int, float, float | None]
"""A step, the score that was reported, and its standard error if it was known."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting, and what became of it."""

    number: int
    place: Place
    params: dict[str, Any]
    seed: int
    score: float | None = None
    """None: it was not done."""
    error: float | None = None
    """The standard error of the score; None: not known."""
    seconds: float | None = None
    attempts: int = 1
    """2: the worker of the first one died."""
    why: str = ""
    """Of a trial that failed or was stopped."""
    traceback: str = field(default="", repr=False)
    curve: tuple[Point, ...] = field(default=(), repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.place in ("done", "stopped", "failed")


_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t for 95 %, two-sided, with 1, 2, 3... degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a knob was worth: how much worse the score is without it."""

    knob: str
    value: Any
    """In the best setting."""
    instead: Any
    """In its place."""
    loss: float
    """By which the score is worse; below 0: it is better."""
    error: float | None
    """The standard error of that; None: of one pair it is not known."""
    pairs: int

    @property
    def margin(self) -> float | None:
        """Half of its 95 % interval, by Student's t: few pairs are worth little."""
        if self.error is None:
            return None
        freedom = self.pairs - 1
        factor = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.6 / freedom
        return factor * self.error

    @property
    def sure(self) -> bool:
        """Whether it is more than chance."""
        return self.margin is not None and abs(self.loss) > self.margin


@dataclass(frozen=True, slots=True)
class Search:
    """A search: its space, its direction, and all that was tried."""

    space: Space
    direction: Direction
    trials: tuple[Tried, ...]
    wanted: int | None = None
    """How many trials were asked for; None: as many as there was time for."""
    storage: str = ""
    out: str = ""
    weights: dict[int, str] = field(default_factory=dict)
    """For the trials whose weights are kept, their files."""
    ended: str = ""
    """Why it ended before all trials were done; empty: it did not."""
    worths: tuple[Worth, ...] = ()
    """What each knob was worth, where that was asked for."""

    def of(self, place: Place) -> tuple[Tried, ...]:
        """The trials that came to this."""
        return tuple(trial for trial in self.trials if trial.place == place)

    @property
    def ranked(self) -> tuple[Tried, ...]:
        """What was done, best first; of equals, the first."""
        sign = -1.0 if self.direction == "maximize" else 1.0
        return tuple(sorted(self.of("done"), key=lambda trial: sign * (trial.score or 0.0)))

    @property
    def best(self) -> Tried | None:
        """The best; None while nothing is done."""
        return next(iter(self.ranked), None)

    @property
    def noise(self) -> float | None:
        """The standard error of a score: reported, or by settings that were tried repeatedly."""
        reported = sorted(t.error for t in self.of("done") if t.error is not None)
        if reported:
            return reported[len(reported) // 2]
        return spread_of_repeats([(t.params, t.score or 0.0) for t in self.of("done")])

    @property
    def tied(self) -> tuple[Tried, ...]:
        """Others that are not to be told from the best: nearer than two errors of a difference."""
        best, noise = self.best, self.noise
        if best is None or noise is None:
            return ()
        near = []
        for trial in self.ranked[1:]:
            margin = 2.0 * math.hypot(best.error or noise, trial.error or noise)
            if abs((trial.score or 0.0) - (best.score or 0.0)) <= margin:
                near.append(trial)
        return tuple(near)


def spread_of_repeats(scores: list[tuple[dict[str, Any], float]]) -> float | None:
    """The standard deviation of scores of equal settings; None where none was repeated."""
    groups: dict[str, list[float]] = {}
    for params, score in scores:
        groups.setdefault(repr(sorted(params.items())), []).append(score)
    squares = sum(sum((s - sum(g) / len(g)) ** 2 for s in g) for g in groups.values())
    freedom = sum(len(group) - 1 for group in groups.values())
    return math.sqrt(squares / freedom) if freedom else None
