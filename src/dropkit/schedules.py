"""Rates over time: each schedule is a pure function of the step, for a `dropkit.RateSchedule`."""

from dropkit.planning.schedules import (
    Schedule,
    constant,
    cosine,
    curriculum,
    early,
    late,
    linear,
    piecewise,
    triangle,
)

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "curriculum",
    "early",
    "late",
    "linear",
    "piecewise",
    "triangle",
]
