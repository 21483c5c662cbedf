"""What one column is: a number, category, boolean or date, or nothing that could generalize."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dropkit.errors import ColumnError, DropkitWarning
from dropkit.training.cells import (
    Cells,
    Floats,
    Mask,
    marked,
    numbers,
    parsed_numbers,
)
from dropkit.training.describing import Describer, Judged
from dropkit.training.idlike import (
    NEARLY_ALL,
    are_prose,
    are_uuids,
    counts_rows,
    look_like_amounts,
    name_says_id,
    name_says_label,
)
from dropkit.training.layouts import layout_of
from dropkit.training.readings import EXACT, ISO, PAIRS, dates, flags
from dropkit.training.wording import shown

ID = "id: "
"""Every reason for which a column is taken for an id starts so."""
COUNT = ID + "consecutive whole numbers, one for each row"

_ZEROS = re.compile(r"[+-]?0[0-9]")
_MANY = 20
"""With fewer rows, text is an id only if it differs in all of them; nearly all may be chance."""
_PROBE = 100


def judge_column(name: str, column: Cells, told: str | None = None) -> Judged:
    """Say what a column is, from its cells or as the user told.

    Raises ColumnError for inf, complex numbers, and for a type that the cells do not have.
    """
    describe = Describer(name, column)
    if column.form == "complex":
        raise ColumnError(
            f"column {shown(name)} holds complex numbers; expected real ones: split it into real "
            "and imaginary part"
        )
    if told in ("drop", "id"):
        return describe.dropped(ID + "as told" if told == "id" else "left out, as told")
    if column.opaque:
        what = "lists or objects" if column.form == "nested" else "bytes"
        return describe.dropped(f"its cells hold {what}; spread them over columns to use them")
    if column.missing.all():
        return describe.empty()
    return _as_told(describe, told) if told else _Finder(describe).find()


def _as_told(describe: Describer, told: str) -> Judged:
    column = describe.cells
    if told == "category":
        return describe.category("a category, as told")
    if told == "date":
        layout = ISO if column.form == "date" else layout_of(column, told=True)
        moments, bad = dates(column, layout or ISO)
        return describe.refuse(bad, told) if bad.any() else describe.date(moments, layout)
    values, bad = numbers(column) if told == "number" else flags(column)
    if bad.any():
        describe.refuse(bad, told)
    if np.isnan(values).all():
        return describe.empty()
    words = f"a {told}, as told"
    return describe.number(values, words) if told == "number" else describe.boolean(values, words)


@dataclass(frozen=True, slots=True)
class _Finder:
    """The rules, in the order in which they are asked."""

    describe: Describer

    @property
    def cells(self) -> Cells:
        return self.describe.cells

    def find(self) -> Judged:
        form = self.cells.form
        if form == "boolean":
            return self.describe.boolean(flags(self.cells)[0], "true or false")
        if form == "date":
            return self.describe.date(dates(self.cells)[0], ISO)
        if form == "number":
            return self.number(numbers(self.cells)[0])
        if form == "category":
            return self.describe.category("a category")
        return self.text()

    def text(self) -> Judged:
        """Text may be numbers, words for yes and no, dates; else it is labels."""
        if self.begins_with_numbers():
            values, bad = numbers(self.cells)
            if not bad.any() and np.isnan(values).all():
                return self.describe.empty()
            if not bad.any() and self.has_leading_zeros(values):
                return self.labels("codes with leading zeros, kept as text")
            if not bad.any():
                return self.number(values)
            if bad.sum() < 0.5 * (~self.cells.missing).sum():
                return self.soiled(bad)
        texts = self.cells.coded[1][:10]
        words = {text.strip().casefold() for text in texts[~marked(texts)]}
        if words in [set(pair) for pair in PAIRS]:
            return self.describe.boolean(flags(self.cells)[0], " or ".join(sorted(words)))
        layout = layout_of(self.cells)
        if layout:
            return self.describe.date(dates(self.cells, layout)[0], layout)
        note = self.cells.note
        return self.labels(f"{note}, taken as text" if note else "text")

    def begins_with_numbers(self) -> bool:
        """Whether one of the first cells is a number, so that reading all of them is worth it."""
        sample = self.cells.values[~self.cells.missing].iloc[:_PROBE].to_numpy(dtype=object)
        return bool(marked(sample).all() or np.isfinite(parsed_numbers(sample)).any())

    def has_leading_zeros(self, values: Floats) -> bool:
        """Whether whole numbers are written so that 007 is not 7."""
        present = values[np.isfinite(values)]
        if (present != np.floor(present)).any():
            return False
        texts = self.cells.values.dropna()
        suspects = texts[texts.str.startswith(("0", "+0", "-0"))].unique()
        return any(_ZEROS.match(text) for text in suspects)

    def soiled(self, bad: Mask) -> Judged:
        """Mostly numbers, with text among them: said aloud, for a few typos cost a column."""
        row, (codes, texts) = int(bad.argmax()), self.cells.coded
        reason = (
            f"text among numbers: {int(bad.sum())} of {len(bad)} cells are no number (first: row "
            f"{row + 1}, {shown(self.cells.at(row))}); correct or empty them to use it as a number"
        )
        repeats = len(texts) <= NEARLY_ALL * int((codes >= 0).sum())
        self.warn(reason, "taken as a category" if repeats else "left out")
        return self.describe.category(reason) if repeats else self.describe.dropped(reason)

    def warn(self, reason: str, verdict: str) -> None:
        name = shown(self.describe.name)
        warnings.warn(f"column {name} is {verdict}: {reason}", DropkitWarning, stacklevel=6)

    def number(self, values: Floats) -> Judged:
        """Numbers may be a 0/1 switch, an id, or labels; else they are amounts."""
        describe, name = self.describe, self.describe.name
        describe.check_finite(values)
        present = values[~np.isnan(values)]
        distinct = pd.unique(present)
        if len(distinct) == 2 and set(distinct.tolist()) == {0.0, 1.0}:
            return describe.boolean(values, "0 or 1")
        if len(distinct) < 2 or (present != np.floor(present)).any():
            return describe.number(values, self.cells.note or "numbers", len(distinct))
        if np.abs(present).max() >= EXACT and len(self.cells.coded[1]) > len(distinct):
            return self.labels("whole numbers too long to tell apart as numbers, kept as text")
        share = len(distinct) / len(present)
        if name_says_id(name) and share > NEARLY_ALL:
            return describe.dropped(ID + "its name says so, and nearly every row has its own")
        if name_says_label(name) and share <= 0.5:
            return describe.category("whole numbers that by their name are labels")
        if counts_rows(values):
            return describe.dropped(COUNT)
        return describe.number(values, self.cells.note or "whole numbers", len(distinct))

    def labels(self, what: str) -> Judged:
        """Text that repeats is levels; text that does not is ids or prose, and is left out."""
        codes, texts = self.cells.coded
        share = len(texts) / int((codes >= 0).sum())
        if share > 0.5 and are_prose(texts):
            return self.describe.dropped("free text: long, and nearly always different")
        nearly_all = share > NEARLY_ALL and (share == 1 or len(codes) >= _MANY)
        if nearly_all and what == "text" and len(texts) > 1 and look_like_amounts(texts):
            reason = (
                f"text that looks like numbers with signs (first: {shown(texts[0])}); write plain "
                "numbers to use it"
            )
            self.warn(reason, "left out")
            return self.describe.dropped(reason)
        if nearly_all and len(texts) > 1:
            return self.describe.dropped(ID + "text that differs in nearly every row")
        if share > 0.5 and are_uuids(texts):
            return self.describe.dropped(ID + "unique identifiers such as uuid")
        return self.describe.category(what)
