"""How dates are written: the layouts that are tried, and which of them fits a column."""

from __future__ import annotations

import re
from itertools import product

import numpy as np

from dropkit.training.cells import Cells, Texts, marked
from dropkit.training.readings import COMPACT, ISO, dates, parsed_dates

DAYS = {
    "%Y/%m/%d": "year/month/day",
    "%Y.%m.%d": "year.month.day",
    "%m/%d/%Y": "month/day/year",
    "%d/%m/%Y": "day/month/year",
    "%d.%m.%Y": "day.month.year",
    "%d-%m-%Y": "day-month-year",
    "%m-%d-%Y": "month-day-year",
    "%d %b %Y": "day month year",
    "%d-%b-%Y": "day-month-year",
    "%b %d, %Y": "month day, year",
    "%d %B %Y": "day month year",
    "%B %d, %Y": "month day, year",
    "%m/%d/%y": "month/day/year",
    "%d/%m/%y": "day/month/year",
    "%d.%m.%y": "day.month.year",
    "%d-%b-%y": "day-month-year",
}
"""Days as people write them. Of two that fit, the first is taken, and `described` says so."""
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")

_ISO = re.compile(r"[0-9]{4}-[0-9]{2}(?![0-9])")
_MAYBE = re.compile(r"(?=.*[0-9])(?=.*[-/. ]).{6,40}", re.DOTALL)
_SAMPLE = 200


def layout_of(column: Cells, told: bool = False) -> str:
    """Find the layout that fits every cell of a column, or "" if none does.

    `told`: the user says that these are dates, so that 20240131 is one as well.
    """
    present = column.values[~column.missing]
    texts = Cells(column.form, present.iloc[:_SAMPLE]).coded[1]
    sample = texts[~marked(texts)]
    fitting = (layout for layout in _candidates(sample, told) if _fits(sample, layout))
    return next((layout for layout in fitting if not dates(column, layout)[1].any()), "")


def _candidates(sample: Texts, told: bool) -> list[str]:
    """The layouts worth trying; few columns get past this."""
    layouts = [ISO] if all(_ISO.match(text.strip()) for text in sample) else []
    if all(_MAYBE.fullmatch(text.strip()) for text in sample):
        layouts += [day + time for time, day in product(TIMES, DAYS)]
    return [*layouts, COMPACT] if told else layouts


def _fits(sample: Texts, layout: str) -> bool:
    return not np.isnat(parsed_dates(sample, layout)).any()


def described(column: Cells, layout: str) -> str:
    """Say how a layout reads, and whether day and month could be the other way round."""
    if layout in (ISO, COMPACT):
        return "year-month-day"
    day = next(day for day in DAYS if layout.startswith(day))
    for one, other in (("%m/%d/", "%d/%m/"), ("%d-%m-", "%m-%d-")):
        if day.startswith(one):
            swapped = layout.replace(one, other, 1)
            if not dates(column, swapped)[1].any():
                return f"{DAYS[day]} ({DAYS[day.replace(one, other, 1)]} fits as well)"
    return DAYS[day]
