"""Numbers as a person wants to read them: as many digits as their uncertainty allows."""

from __future__ import annotations

from math import floor, isfinite, log10

from dropkit.apps.report.metrics import Interval, Metric


def decimals(spread: float) -> int:
    """Decimals that show `spread` with two significant digits."""
    if not isfinite(spread) or spread <= 0:
        return 3
    return max(0, 1 - floor(log10(spread)))


def fixed(value: float, places: int) -> str:
    """A number with that many decimals, thousands apart, and never a negative zero."""
    if not isfinite(value):
        return "unknown"
    if places > 8 or abs(value) >= 1e12:
        return short(value)
    text = f"{value:,.{places}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def short(value: float, digits: int = 3) -> str:
    """A number of unknown precision with at least `digits` significant digits."""
    if not isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    size = floor(log10(abs(value)))
    if size < -4 or size > 11:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    text = f"{value:,.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float, places: int = 0) -> str:
    """A share as a percentage."""
    return f"{fixed(100 * share, places)} %"


def value_text(metric: Metric, interval: Interval, like: Interval | None = None) -> str:
    """The value alone, with the digits that its interval allows, or that of `like` beside it."""
    places = _places(metric, like or interval)
    return percent(interval.value, places) if metric.percent else fixed(interval.value, places)


def range_text(metric: Metric, interval: Interval, like: Interval | None = None) -> str:
    """The interval alone: `0.38 to 0.45`."""
    if not (isfinite(interval.low) and isfinite(interval.high)):
        return "not known"
    places = _places(metric, like or interval)
    unit = " %" if metric.percent else ""
    scale = 100.0 if metric.percent else 1.0
    low, high = (fixed(scale * end, places) for end in (interval.low, interval.high))
    return f"{low} to {high}{unit}"


def difference_text(metric: Metric, interval: Interval) -> str:
    """The size of a difference, without its sign; shares are in percentage points."""
    places = _places(metric, interval)
    size = abs(interval.value)
    return f"{fixed(100 * size, places)} points" if metric.percent else fixed(size, places)


def difference_range(metric: Metric, interval: Interval, sign: float = 1.0) -> str:
    """The interval of a difference, seen from the side of `sign`."""
    ends = sorted((sign * interval.low, sign * interval.high))
    return range_text(metric, Interval(sign * interval.value, *ends)).removesuffix(" %")


def _places(metric: Metric, interval: Interval) -> int:
    scale = 100.0 if metric.percent else 1.0
    spread = scale * (interval.high - interval.low) / 2
    return min(1, decimals(spread)) if metric.percent else decimals(spread)


def clip(text: str, limit: int = 60) -> str:
    """A user's text on one line, cut where it is too long for a table or figure."""
    seen = text[: 4 * limit]  # a cell may hold megabytes
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in seen).split())
    whole = len(line) <= limit and len(text) <= 4 * limit
    return line if whole else line[: limit - 1] + "…"
