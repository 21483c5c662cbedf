"""When a trial may be stopped early: when it has no hope, by more than the noise, for a while.

Regularized trials bend late: dropout slows the start and wins at the end. So what is compared is
not two curves at the same step. A trial is stopped if it would not come to the median of what is
done, even if it went on improving until the end as it does, its pace growing as it grew, and even
if it gained from here as much as any other has; if that is so by more than two standard errors;
and if it was so at its last reports too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dropkit.apps.tuning.results import Direction, Point, Tried

_Seen = tuple[int, float]
"""A step and a score, of which less is better."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is waited for."""

    done: int = 8
    """Trials that are done before any is stopped."""
    grace: int | None = None
    """Reports that every trial may make; None: half of the longest curve."""
    reports: int = 3
    """Reports at which there was no hope, in a row."""
    errors: float = 2.0
    """Standard errors of the difference that are noise."""


def hopeless(
    curve: Sequence[Point],
    others: Sequence[Tried],
    direction: Direction,
    patience: Patience,
    noise: float | None = None,
) -> str:
    """Why a trial is to be stopped; empty if it is not.

    Args:
        curve: what it has reported, in the order of steps.
        others: the trials of the search; those that are done, and reported, are compared with.
        direction: whether less or more is better.
        patience: how much is waited for.
        noise: the standard error of a score, where none was reported; None: read off the curve.
    """
    sign = -1.0 if direction == "maximize" else 1.0
    done = [other for other in others if other.place == "done" and other.curve]
    if len(done) < patience.done:
        return ""
    known = [[(step, sign * score) for step, score, _ in other.curve] for other in done]
    grace = math.ceil(max(map(len, known)) / 2) if patience.grace is None else patience.grace
    goal = median(min(score for _, score in other) for other in known)  # a score may be another
    beyond = median(other.curve[-1][2] or 0.0 for other in done)  # thing than what was reported
    hope = math.inf
    for count in range(len(curve) - patience.reports + 1, len(curve) + 1):
        if count <= max(grace, 2):
            return ""
        seen = [(step, sign * score) for step, score, _ in curve[:count]]
        error = curve[count - 1][2]
        if error is None:
            error = max(noise or 0.0, _scatter([score for _, score in seen]))
        hope = _hoped(seen, known)
        if hope <= goal + patience.errors * math.hypot(error, beyond):
            return ""
    return (
        f"without hope at step {curve[-1][0]}: on its way to {sign * hope:.4g} at best, where the "
        f"median of {len(done)} trials came to {sign * goal:.4g}"
    )


def _hoped(seen: Sequence[_Seen], known: Sequence[Sequence[_Seen]]) -> float:
    """Where a falling curve may come to, seen with favour; never above its best."""
    step = seen[-1][0]
    left = max(0, max(other[-1][0] for other in known) - step)
    return min(score for _, score in seen) - max(_pace_kept(seen, left), _gained(known, step))


def _pace_kept(seen: Sequence[_Seen], left: int) -> float:
    """What it gains in the steps that are left if it goes on as it does; a pace that grew grows."""
    third = max(2, math.ceil(len(seen) / 3))
    late, before = seen[-third:], seen[-2 * third : -third]
    pace = -_slope(late)
    if len(before) < 2:
        return max(0.0, pace) * left
    apart = _middle(late) - _middle(before)
    growth = max(0.0, (pace + _slope(before)) / apart)
    now = pace + growth * (seen[-1][0] - _middle(late))
    return max(0.0, now * left + growth * left**2 / 2)


def _gained(known: Sequence[Sequence[_Seen]], step: int) -> float:
    """The most that another one gained from a step on."""
    gains = [0.0]
    for other in known:
        until = [score for at, score in other if at <= step]
        if until:
            gains.append(min(until) - min(score for _, score in other))
    return max(gains)


def _slope(points: Sequence[_Seen]) -> float:
    """Of the straight line through points, by least squares."""
    middle = _middle(points)
    mean = sum(score for _, score in points) / len(points)
    spread = sum((step - middle) ** 2 for step, _ in points)
    together = sum((step - middle) * (score - mean) for step, score in points)
    return together / spread if spread else 0.0


def _middle(points: Sequence[_Seen]) -> float:
    return sum(step for step, _ in points) / len(points)


def _scatter(scores: Sequence[float]) -> float:
    """The standard deviation of a curve about its course: of second differences, whose mean a
    straight course does not change (variance 6 times that of a score)."""
    if len(scores) < 4:
        return math.inf
    seconds = [a - 2 * b + c for a, b, c in zip(scores, scores[1:], scores[2:], strict=False)]
    return math.sqrt(sum(second**2 for second in seconds) / len(seconds) / 6)
