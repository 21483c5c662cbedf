"""A trial, as the objective sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dropkit.apps.tuning.results import Point
from dropkit.errors import SettingError

if TYPE_CHECKING:
    from dropkit.apps.tuning.ranks import Ranks


class Diverged(Exception):
    """A report that is no number: the trial is over, and has failed."""


class Desk(Protocol):
    """What stands behind a trial: where its reports go, and who says whether it is to stop."""

    def report(self, step: int, score: float, error: float | None) -> None:
        """Keep a report."""

    def verdict(self, curve: list[Point]) -> str:
        """Why the trial is to stop; empty if it is not."""

    def keep(self, weights: Mapping[str, Any] | bytes) -> None:
        """Keep weights."""


@dataclass(slots=True)
class Trial:
    """One setting to be tried. The objective gets it, and answers with a score.

    `params` has a value for each knob, `rates` those of the knobs that are rates, by role or path;
    `number` counts the settings of the search from 0; `seed` has 32 bits, and is the same when a
    trial whose worker died is made again (then `again` is true).
    """

    params: dict[str, Any]
    rates: dict[str, float]
    number: int
    seed: int
    again: bool = False
    _desk: Desk | None = field(default=None, repr=False)
    _ranks: Ranks | None = field(default=None, repr=False)
    _curve: list[Point] = field(default_factory=list, repr=False)
    _why: str = field(default="", repr=False)

    def __getitem__(self, name: str) -> Any:
        """The value of a knob."""
        try:
            return self.params[name]
        except KeyError:
            raise SettingError(
                f"trial: expected one of {', '.join(self.params)}; got {name!r}"
            ) from None

    def report(self, score: float, step: int, error: float | None = None) -> None:
        """Say how far it has come: the score at a step, and its standard error if it is known.

        Of several ranks of `torch.distributed`, rank 0's reports count. A score that is not a
        finite number ends the trial, which has failed.

        Raises:
            SettingError: a step that is not above the last; an error below 0.
        """
        if self._ranks is not None and self._ranks.rank:
            return
        if not isinstance(step, int) or step < 0 or (self._curve and step <= self._curve[-1][0]):
            last = f" above {self._curve[-1][0]}" if self._curve else ""
            raise SettingError(f"report: expected a whole step{last}; got {step!r}")
        value = number_of(score)
        if value is None:
            raise SettingError(f"report: expected a number; got {score!r}")
        if not math.isfinite(value):
            raise Diverged(f"the score is {value} at step {step}")
        spread = None if error is None else error_of(error)
        self._curve.append((step, value, spread))
        if self._desk is not None:
            self._desk.report(step, value, spread)

    def should_stop(self) -> bool:
        """Whether to end here: there is no hope for it, or no time left. All ranks hear the same.

        Return or raise `dropkit.TrialStopped` then; what it has reported is kept.
        """
        if self._desk is not None and not self._why:
            self._why = self._desk.verdict(self._curve)
        if self._ranks is not None:
            self._why = self._ranks.ask(self._why)
        return bool(self._why)

    def keep(self, weights: Mapping[str, Any] | bytes) -> None:
        """Keep weights on the disk, for as long as the trial is among the best of the search.

        Args:
            weights: a state dictionary of tensors, written as safetensors, or bytes. A later call
                replaces what an earlier one kept; of several ranks, rank 0's is kept.
        """
        if self._desk is not None:
            self._desk.keep(weights)

    @property
    def curve(self) -> tuple[Point, ...]:
        """What was reported: (step, score, error)."""
        return tuple(self._curve)

    @property
    def stopped(self) -> str:
        """Why `should_stop` said so; empty while it has not."""
        return self._why


Answer = float | tuple[float, float] | None
Objective = Callable[[Trial], Answer]


def number_of(value: object) -> float | None:
    """A number, also one in a tensor or an array; None for anything else."""
    if isinstance(value, bool | str | bytes):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def error_of(value: object) -> float:
    """A standard error."""
    error = number_of(value)
    if error is None or not 0 <= error < math.inf:
        raise SettingError(f"error: expected a standard error of 0 or more; got {value!r}")
    return error
