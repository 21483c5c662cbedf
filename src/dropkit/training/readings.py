"""Plain cells read as flags, dates or levels; `cells` itself reads numbers.

A reading gives the values and a mask of the cells that could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dropkit.training.cells import Cells, Floats, Mask, Texts, numbers, spread

Dates: TypeAlias = npt.NDArray[np.datetime64]

PAIRS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("0", "1"))
"""Words for off and on, in small letters."""

ISO = "ISO8601"
"""The layout of dates such as 2024-01-31 and 2024-01-31T12:00:00Z."""
COMPACT = "%Y%m%d"
"""The layout of dates such as 20240131, which may as well be numbers."""

EXACT = 2.0**53
"""From here on, float64 cannot tell neighbouring whole numbers apart."""

_AMOUNT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:[.][0-9]*)?|[.][0-9]+)(?:[eE][+-]?[0-9]+)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")
_FLAGS = {word: float(value) for pair in PAIRS for value, word in enumerate(pair)}
_EARLIEST, _LATEST = np.datetime64("1677-09-22", "us"), np.datetime64("2262-04-11", "us")
"""What nanoseconds can hold; dates beyond, such as 9999-12-31 for "never", are moved to these."""


def flags(column: Cells) -> tuple[Floats, Mask]:
    """Read as 0.0 and 1.0, NaN where missing; everything else than the words of `PAIRS` is bad."""
    if column.form in ("text", "category"):
        return spread(column, _parsed_flags, np.array([np.nan]))
    values, bad = numbers(column)
    bad |= ~(np.isnan(values) | (values == 0) | (values == 1))
    return np.where(bad, np.nan, values), bad


def _parsed_flags(texts: Texts) -> Floats:
    words = [text.strip().casefold().removesuffix(".0") for text in texts]
    return np.array([_FLAGS.get(word, np.nan) for word in words], dtype=np.float64)


def dates(column: Cells, layout: str = ISO) -> tuple[Dates, Mask]:
    """Read as datetime64[ns] without time zone (UTC where one was given), NaT where missing."""
    if column.form == "date":
        return _nanoseconds(column.values), np.zeros(len(column.values), dtype=bool)
    nothing = np.array(["NaT"], dtype="datetime64[ns]")
    if column.form in ("text", "category") or (column.form == "number" and layout == COMPACT):
        return spread(column, lambda texts: parsed_dates(texts, layout), nothing)
    return np.repeat(nothing, len(column.missing)), ~column.missing


def parsed_dates(texts: Texts, layout: str) -> Dates:
    """The date that each text is in a layout, or else in ISO 8601; NaT where it is none."""
    series = pd.Series(texts, dtype=object)
    parsed = pd.to_datetime(series, format=layout, utc=True, errors="coerce")
    if layout not in (ISO, COMPACT) and parsed.isna().any():
        parsed = parsed.fillna(pd.to_datetime(series, format=ISO, utc=True, errors="coerce"))
    moments = _nanoseconds(parsed)
    for place in np.flatnonzero(np.isnat(moments)) if pd.__version__ < "3" else ():
        moments[place] = _far(texts[place])
    return moments


def _far(text: str) -> np.datetime64:
    """A day that pandas 2, which counts in nanoseconds only, cannot parse."""
    day = _DAY.match(text.strip())
    try:
        return np.clip(np.datetime64(day[0] if day else "NaT", "us"), _EARLIEST, _LATEST)
    except ValueError:
        return np.datetime64("NaT")


def _nanoseconds(values: pd.Series[Any]) -> Dates:
    naive = values if values.dt.tz is None else values.dt.tz_convert(None)
    fine = naive.to_numpy(dtype="datetime64[us]")
    held: Dates = np.clip(fine, _EARLIEST, _LATEST).astype("datetime64[ns]")
    return held


def aligned(column: Cells, levels: Sequence[str]) -> Texts:
    """Every cell as text, None where missing, spelled as in `levels` where it means one of them.

    1 and 1.0 mean the level '1', and so does '1.0'; '01' does not. True means 'true' as well.
    """
    codes, texts = column.coded
    known = set(levels)
    amounts = {float(level): level for level in reversed(levels) if _AMOUNT.fullmatch(level)}
    folded = {level.casefold(): level for level in levels} if column.form == "boolean" else {}
    meant = np.empty(len(texts) + 1, dtype=object)  # the last stays None, and is what -1 picks
    for code, text in enumerate(texts):
        if text in known:
            meant[code] = text
        elif amounts and _AMOUNT.fullmatch(text):
            meant[code] = amounts.get(float(text), text)
        else:
            meant[code] = folded.get(text.casefold(), text)
    return meant[codes]


def are_amounts(texts: Iterable[str]) -> bool:
    """Whether all texts are plain numbers, written without leading zeros."""
    return all(_AMOUNT.fullmatch(text) for text in texts)


def natural(texts: Iterable[str]) -> tuple[str, ...]:
    """Sort levels by their amounts if all of them are numbers, else as text."""
    known = list(texts)
    if are_amounts(known):
        return tuple(sorted(known, key=lambda text: (float(text), text)))
    return tuple(sorted(known))
