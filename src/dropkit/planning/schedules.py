"""Rates over time: pure functions of the step.

A row of the table is a law and a constructor. What all of them keep is said once: a schedule is a
frozen value, it is compared by what it says, and past its last step it holds what it came to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, exp, pi
from operator import index

from dropkit.errors import SettingError


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rate as a function of the step: `schedule(step)`, with steps counted from 0.

    Its text is the call that makes it, by which a saved run knows its schedules again.
    """

    law: str
    settings: tuple[tuple[str, float | int | str], ...] = ()
    parts: tuple[tuple[int, Schedule], ...] = ()
    """Of a schedule that is made of others: from which step on each holds."""

    def __call__(self, step: int) -> float:
        """The rate in force in a step.

        Raises:
            SettingError: the step is no whole number, or below 0.
        """
        at = whole("step", step)
        if not self.parts:
            rate = _LAWS[self.law](at, **dict(self.settings))
            return min(max(rate, 0.0), 1.0)  # a sum of rounded numbers may be just beside
        first, part = next(part for part in reversed(self.parts) if part[0] <= at)
        return part(at - first)

    def then(self, other: Schedule | float, at: int) -> Schedule:
        """This schedule up to a step, and from it on another, whose own steps begin there.

        >>> from dropkit.planning.schedules import constant, linear
        >>> both = linear(0.0, 0.2, steps=10).then(0.1, at=20)
        >>> [both(step) for step in (0, 5, 19, 20)]
        [0.0, 0.1, 0.2, 0.1]
        """
        at = whole("at", at, least=1)
        mine = self.parts or ((0, self),)
        if mine[-1][0] >= at:
            raise SettingError(f"at: expected a step after {mine[-1][0]}; got {at}")
        return Schedule("piecewise", parts=(*mine, (at, scheduled(other))))

    def __str__(self) -> str:
        if self.parts:
            return "piecewise({" + ", ".join(f"{at}: {part}" for at, part in self.parts) + "})"
        told = (f"{name}={value!r}" for name, value in self.settings)
        return f"{self.law}({', '.join(told)})"


def constant(rate: float) -> Schedule:
    """One rate for all steps.

    >>> from dropkit.planning.schedules import constant
    >>> constant(0.1)(10_000)
    0.1
    """
    return Schedule("constant", (("rate", _rate("rate", rate)),))


def linear(start: float, end: float, steps: int) -> Schedule:
    r"""From one rate to another in equal steps.

    .. math:: p(t) = p_0 + (p_1 - p_0) \min(t / T, 1)

    Args:
        start: the rate at step 0.
        end: the rate at step `steps`, and after it.
        steps: how many steps the way takes.

    Raises:
        SettingError: a rate outside [0, 1], or no steps.

    >>> from dropkit.planning.schedules import linear
    >>> [linear(0.5, 0.25, steps=4)(step) for step in range(6)]
    [0.5, 0.4375, 0.375, 0.3125, 0.25, 0.25]
    """
    return Schedule("linear", _ramp(start, end, steps))


def cosine(start: float, end: float, steps: int) -> Schedule:
    r"""From one rate to another along half a wave: slow at both ends.

    .. math:: p(t) = p_1 + \tfrac12 (p_0 - p_1) (1 + \cos(\pi \min(t / T, 1)))

    Args, Raises: as in `linear`.

    >>> from dropkit.planning.schedules import cosine
    >>> [round(cosine(0.2, 0.0, steps=4)(step), 4) for step in range(5)]
    [0.2, 0.1707, 0.1, 0.0293, 0.0]

    Source: Loshchilov & Hutter 2017, "SGDR", who lower the learning rate so.
    """
    return Schedule("cosine", _ramp(start, end, steps))


def early(rate: float, steps: int, decay: str = "none") -> Schedule:
    """Dropout in the first steps, and none after: for models that underfit.

    Args:
        rate: the rate at step 0.
        steps: in how many steps it drops.
        decay: "none", the same rate all along; or "linear", falling to 0.

    Raises:
        SettingError: a rate outside [0, 1], no steps, another decay.

    >>> from dropkit.planning.schedules import early
    >>> [early(0.1, steps=2)(step) for step in range(4)]
    [0.1, 0.1, 0.0, 0.0]

    Source: Liu et al. 2023, "Dropout Reduces Underfitting": noise brings the gradients of batches
    nearer to that of all data while a network is far from any minimum.
    """
    if decay not in ("none", "linear"):
        raise SettingError(f"decay: expected none or linear; got {decay!r}")
    if decay == "linear":
        return linear(rate, 0.0, steps)
    settings = (("rate", _rate("rate", rate)), ("steps", whole("steps", steps, least=1)))
    return Schedule("early", settings)


def late(rate: float, steps: int) -> Schedule:
    """No dropout in the first steps, and then a rate: for models that overfit.

    Args:
        rate: the rate from step `steps` on.
        steps: how many steps there are without.

    Raises:
        SettingError: a rate outside [0, 1], or no steps.

    >>> from dropkit.planning.schedules import late
    >>> [late(0.1, steps=2)(step) for step in range(4)]
    [0.0, 0.0, 0.1, 0.1]

    Source: Liu et al. 2023, "Dropout Reduces Underfitting", section 5.
    """
    settings = (("rate", _rate("rate", rate)), ("steps", whole("steps", steps, least=1)))
    return Schedule("late", settings)


def curriculum(rate: float, steps: int, sharpness: float = 10.0) -> Schedule:
    r"""From no dropout to a rate, fast at first and ever slower.

    .. math:: p(t) = p \, (1 - e^{-\gamma t}), \qquad \gamma = s / T

    Args:
        rate: what it comes to.
        steps: the steps of the whole training, T.
        sharpness: s; at step T the rate is within a share of exp(-s) of its end.

    Raises:
        SettingError: a rate outside [0, 1], no steps, a sharpness that is not above 0.

    >>> from dropkit.planning.schedules import curriculum
    >>> [round(curriculum(0.5, steps=100)(step), 3) for step in (0, 10, 100)]
    [0.0, 0.316, 0.5]

    Source: Morerio et al. 2017, "Curriculum Dropout": in its terms the chance to keep is
    (1 - k) exp(-gamma t) + k, with k = 1 - rate and gamma = 10 / T.
    """
    if not sharpness > 0 or sharpness == float("inf"):
        raise SettingError(f"sharpness: expected a number above 0; got {sharpness!r}")
    settings = (("rate", _rate("rate", rate)), ("steps", whole("steps", steps, least=1)))
    return Schedule("curriculum", (*settings, ("sharpness", float(sharpness))))


def triangle(low: float, high: float, steps: int) -> Schedule:
    """One cycle: from a low rate up to a high one, and down again in as many steps.

    Args:
        low: the rate at step 0, at step `steps`, and after it.
        high: the rate in the middle.
        steps: of the whole cycle.

    Raises:
        SettingError: a rate outside [0, 1], or fewer than 2 steps.

    >>> from dropkit.planning.schedules import triangle
    >>> [triangle(0.0, 0.2, steps=4)(step) for step in range(6)]
    [0.0, 0.1, 0.2, 0.1, 0.0, 0.0]

    Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks".
    """
    rates = (("low", _rate("low", low)), ("high", _rate("high", high)))
    return Schedule("triangle", (*rates, ("steps", whole("steps", steps, least=2))))


def piecewise(parts: Mapping[int, Schedule | float]) -> Schedule:
    """Schedules one after another.

    Args:
        parts: by the step from which it holds, a rate or a schedule; its own steps begin there.

    Raises:
        SettingError: nothing that holds from step 0 on.

    >>> from dropkit.planning.schedules import linear, piecewise
    >>> steps = piecewise({0: 0.1, 100: linear(0.1, 0.3, steps=10), 200: 0.0})
    >>> [round(steps(step), 2) for step in (99, 105, 150, 200)]
    [0.1, 0.2, 0.3, 0.0]
    """
    if not isinstance(parts, Mapping) or 0 not in parts:
        raise SettingError(
            "parts: expected a dictionary with what holds from step 0 on; got "
            f"{sorted(parts) if isinstance(parts, Mapping) else parts!r}"
        )
    ordered = sorted((whole("parts", at), part) for at, part in parts.items())
    made = scheduled(ordered[0][1])
    for at, part in ordered[1:]:
        made = made.then(part, at)
    return made


def scheduled(value: Schedule | float) -> Schedule:
    """A schedule as it is; a rate as one that never changes.

    Raises:
        SettingError: it is neither.
    """
    return value if isinstance(value, Schedule) else constant(value)


# ---- what is checked


def _rate(name: str, value: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0.0 <= value <= 1.0:
        raise SettingError(f"{name}: expected a rate between 0 and 1; got {value!r}")
    return float(value)


def whole(name: str, value: int, least: int = 0) -> int:
    """A whole number, as an int.

    Raises:
        SettingError: it is none, or too small.
    """
    try:
        number = -1 if isinstance(value, bool) else index(value)
    except TypeError:
        number = -1
    if number < least:
        raise SettingError(f"{name}: expected a whole number from {least} on; got {value!r}")
    return number


def _ramp(start: float, end: float, steps: int) -> tuple[tuple[str, float | int], ...]:
    rates = (("start", _rate("start", start)), ("end", _rate("end", end)))
    return (*rates, ("steps", whole("steps", steps, least=1)))


# ---- the laws


def _constant(step: int, rate: float) -> float:
    return rate


def _linear(step: int, start: float, end: float, steps: int) -> float:
    share = step / steps
    return end if step >= steps else start * (1 - share) + end * share


def _cosine(step: int, start: float, end: float, steps: int) -> float:
    share = (1 + cos(pi * step / steps)) / 2
    return end if step >= steps else start * share + end * (1 - share)


def _early(step: int, rate: float, steps: int) -> float:
    return rate if step < steps else 0.0


def _late(step: int, rate: float, steps: int) -> float:
    return 0.0 if step < steps else rate


def _curriculum(step: int, rate: float, steps: int, sharpness: float) -> float:
    return rate * (1 - exp(-sharpness * step / steps))


def _triangle(step: int, low: float, high: float, steps: int) -> float:
    share = 1 - abs(2 * step / steps - 1)
    return low if step >= steps else low * (1 - share) + high * share


_LAWS: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "early": _early,
    "late": _late,
    "curriculum": _curriculum,
    "triangle": _triangle,
}
