"""Durations as people write them, and how much of one is left."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from dropkit.errors import SettingError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PATTERN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds(text: str) -> float:
    """Read a duration: `60s`, `2m`, `1h30m`, or bare seconds; `SettingError` for anything else.

    >>> seconds("1h30m")
    5400.0
    >>> seconds("45")
    45.0
    """
    compact = "".join(text.lower().split())
    match = _PATTERN.fullmatch(compact)
    amounts = match.groups() if match else ()
    total = sum(float(n) * unit for n, unit in zip(amounts, _UNITS.values(), strict=False) if n)
    if not match or not 0 < total < 1e9:
        raise SettingError(f"expected a duration above zero such as 60s, 2m or 1h30m; got {text!r}")
    return total


def words(duration: float) -> str:
    """A duration for a person.

    >>> words(4.21), words(75.2), words(7500)
    ('4.2 s', '1 min 15 s', '2 h 5 min')
    """
    whole = max(0, round(duration))
    if 0 < duration < 9.95:
        return f"{duration:.2g} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True, slots=True)
class Clock:
    """Time since a start, against a cap.

    `began` is on the scale of `time.monotonic()`; `cap` is in seconds, None for no cap.
    """

    began: float
    cap: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until the cap; infinity without one, below zero after it."""
        return float("inf") if self.cap is None else self.cap - self.elapsed


def process_clock(cap: float | None = None) -> Clock:
    """A clock that started with this process, as near as can be told.

    The computing time used so far stands for the time since the start: unlike the process's age it
    stays right when a shell that has been running for hours turns into this process with `exec`.
    """
    return Clock(time.monotonic() - time.process_time(), cap)
