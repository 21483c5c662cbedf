"""A trial is stopped when it has no hope, and not because it begins slowly or is noisy."""

from __future__ import annotations

import dataclasses
import math

import pytest

from dropkit.apps.tuning.pruning import Patience, hopeless
from dropkit.apps.tuning.results import Point, Tried

STEPS = 30
PATIENCE = Patience()


def falling(end: float, pace: float = 8.0, start: float = 2.0) -> list[Point]:
    return [(n, end + (start - end) * math.exp(-n / pace), None) for n in range(1, STEPS + 1)]


def done(curve: list[Point], number: int = 0) -> Tried:
    return Tried(number, "done", {}, 0, score=curve[-1][1], error=curve[-1][2], curve=tuple(curve))


OTHERS = [done(falling(0.4 + 0.01 * n), n) for n in range(10)]


def stopped_at(curve: list[Point], others: list[Tried] = OTHERS, sign: float = 1.0) -> int | None:
    direction = "minimize" if sign > 0 else "maximize"
    for count in range(1, len(curve) + 1):
        if hopeless(curve[:count], others, direction, PATIENCE):
            return curve[count - 1][0]
    return None


def test_what_is_worse_and_flat_is_stopped_after_its_grace() -> None:
    found = stopped_at(falling(1.5, pace=1.0))
    assert found is not None
    assert STEPS / 2 < found < STEPS * 2 / 3


def test_what_rises_is_stopped() -> None:
    assert stopped_at([(n, 1.0 + 0.1 * n, None) for n in range(1, STEPS + 1)]) is not None


def test_what_bends_late_is_not_stopped() -> None:
    """Caught: a median of curves at the same step, under which it lies until it has won."""
    late = [(n, 2.0 - 1.7 * (n / STEPS) ** 1.5, None) for n in range(1, STEPS + 1)]
    assert late[-1][1] < 0.4
    behind = sum(a[1] > b[1] for a, b in zip(late, falling(0.45), strict=True))
    assert behind > STEPS * 2 / 3
    assert stopped_at(late) is None


def test_what_others_gained_late_is_hoped_for_too() -> None:
    """As where a learning rate falls at the end: all lie flat, and win in their last steps."""

    def cliff(high: float, low: float) -> list[Point]:
        return [(n, high if n < 25 else low, 0.0) for n in range(1, STEPS + 1)]

    others = [done(cliff(1.0, 0.4 + 0.01 * n), n) for n in range(10)]
    assert stopped_at(cliff(1.02, 0.3), others) is None
    assert stopped_at(cliff(1.7, 1.1), others) is not None


def test_what_is_no_further_off_than_its_noise_is_not_stopped() -> None:
    noisy = [
        (step, score + 0.3 * (-1) ** n, None)
        for n, (step, score, _) in enumerate(falling(0.6, pace=2.0))
    ]
    assert stopped_at(noisy) is None
    assert stopped_at(falling(0.6, pace=2.0)) is not None  # without the noise it is


def test_reported_errors_are_noise() -> None:
    def wide(error: float) -> list[Point]:
        return [(step, score, error) for step, score, _ in falling(0.6, pace=2.0)]

    assert stopped_at(wide(0.15)) is None
    assert stopped_at(wide(0.01)) is not None


def test_the_scatter_of_repeats_is_noise() -> None:
    curve = falling(0.6, pace=2.0)
    assert hopeless(curve, OTHERS, "minimize", PATIENCE)
    assert not hopeless(curve, OTHERS, "minimize", PATIENCE, noise=0.2)


def test_one_verdict_is_not_enough() -> None:
    """One report that seems surer than the others, or is bad, stops nothing."""
    curve = [(step, score, 0.15) for step, score, _ in falling(0.6, pace=2.0)]
    curve[20] = (21, curve[20][1], 0.001)
    assert stopped_at(curve) is None
    spike = falling(0.42)
    spike[20] = (21, 9.0, 0.0)
    assert stopped_at(spike) is None


def test_nothing_is_stopped_while_little_is_done() -> None:
    assert stopped_at(falling(1.5, pace=1.0), OTHERS[:7]) is None
    failed = [Tried(n, "failed", {}, 0, curve=tuple(falling(0.4))) for n in range(20)]
    assert stopped_at(falling(1.5, pace=1.0), failed) is None


def test_more_is_better_where_it_is_said() -> None:
    mirrored = [done([(s, -v, e) for s, v, e in other.curve]) for other in OTHERS]
    bad = [(s, -v, e) for s, v, e in falling(1.5, pace=1.0)]
    assert stopped_at(bad, mirrored, -1) == stopped_at(falling(1.5, pace=1.0))


def test_reports_are_compared_with_reports() -> None:
    """A score may be another thing: an accuracy, where losses are reported."""
    strange = [dataclasses.replace(other, score=-50.0) for other in OTHERS]
    assert stopped_at(falling(0.43), strange) is None
    assert stopped_at(falling(1.5, pace=1.0), strange) is not None


def test_the_reason_says_where_it_was_going() -> None:
    why = hopeless(falling(1.5, pace=1.0), OTHERS, "minimize", PATIENCE)
    assert "without hope at step 30" in why
    assert "the median of 10 trials came to 0.4" in why


@pytest.mark.parametrize("grace", [0, 25])
def test_grace_can_be_named(grace: int) -> None:
    curve = falling(1.5, pace=1.0)
    told = Patience(grace=grace)
    first = next(n for n in range(1, 31) if hopeless(curve[:n], OTHERS, "minimize", told))
    assert first > grace
