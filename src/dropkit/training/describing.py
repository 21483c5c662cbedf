"""The record of one column: what it was found to be, with what a person wants to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import numpy as np
import pandas as pd

from dropkit.errors import ColumnError
from dropkit.records import Column, Kind
from dropkit.training.cells import Cells, Floats, Mask, marked
from dropkit.training.layouts import described
from dropkit.training.readings import Dates, natural
from dropkit.training.wording import shown

EXAMPLE = 200
"""Characters of the example cell that are kept."""

Values: TypeAlias = "Floats | Dates | None"

_KINDS: dict[str, Kind] = {"number": "number", "boolean": "boolean", "date": "date"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A column with the cells that were read to judge it."""

    column: Column
    read: Values = None
    """Values of a number, boolean or date; None for a category or a dropped column."""


@dataclass(frozen=True, slots=True)
class Describer:
    """Writes the record of one column, once it is known what it is."""

    name: str
    cells: Cells

    def number(self, values: Floats, reason: str, distinct: int | None = None) -> Judged:
        """A column of amounts; ColumnError if one is infinite."""
        self.check_finite(values)
        missing = np.isnan(values)
        distinct = len(pd.unique(values[~missing])) if distinct is None else distinct
        if distinct == 1:
            return self._single(missing, "number")
        return Judged(self._column("number", reason, missing, distinct), values)

    def boolean(self, values: Floats, reason: str) -> Judged:
        """A column of two values, off and on."""
        missing = np.isnan(values)
        distinct = len(pd.unique(values[~missing]))
        if distinct == 1:
            return self._single(missing, "boolean")
        levels = self._levels()
        levels = tuple(
            level for level, mark in zip(levels, marked(levels), strict=True) if not mark
        )
        return Judged(self._column("boolean", reason, missing, distinct, levels), values)

    def date(self, values: Dates, layout: str) -> Judged:
        """A column of dates."""
        missing = np.isnat(values)
        present = values[~missing]
        distinct = len(pd.unique(present))
        if distinct == 1:
            return self._single(missing, "date")
        reason = f"dates from {str(present.min())[:10]} to {str(present.max())[:10]}"
        if self.cells.form != "date":
            reason += f", read as {described(self.cells, layout)}"
        column = self._column("date", reason, missing, distinct, (), layout)
        return Judged(column, values)

    def category(self, reason: str) -> Judged:
        """A column of levels."""
        levels = self._levels()
        missing = self.cells.missing
        if len(levels) == 1:
            return self._single(missing, "category")
        return Judged(self._column("category", reason, missing, len(levels), levels))

    def dropped(self, reason: str, kind: Kind | None = None) -> Judged:
        """A column that the model does not see."""
        distinct = 0 if self.cells.opaque else len(self.cells.coded[1])
        kind = kind or _KINDS.get(self.cells.form, "category")
        missing = int(self.cells.missing.sum())
        return Judged(Column(self.name, kind, False, reason, missing, distinct, self._example()))

    def empty(self) -> Judged:
        """A column without a single cell, or with nothing but marks of missing cells."""
        kind = _KINDS.get(self.cells.form, "category")
        return Judged(
            Column(self.name, kind, False, "every cell is missing", len(self.cells.missing), 0, "")
        )

    def refuse(self, bad: Mask, expected: str) -> NoReturn:
        """Raise ColumnError for cells that are not of the type that was told."""
        row = int(bad.argmax())
        raise ColumnError(
            f"column {shown(self.name)} cannot be a {expected}: {int(bad.sum())} of {len(bad)} "
            f"cells are none (first: row {row + 1}, {shown(self.cells.at(row))}); correct them, or "
            "give the column another type"
        )

    def check_finite(self, values: Floats) -> None:
        """Raise ColumnError for inf, and for numbers such as 1e400 that become inf."""
        infinite = np.isinf(values)
        if infinite.any():
            row = int(infinite.argmax())
            raise ColumnError(
                f"column {shown(self.name)}: {int(infinite.sum())} of {len(values)} cells are no "
                f"finite number (first: row {row + 1}, {shown(self.cells.at(row))}); correct them, "
                "or leave them empty, which counts as missing"
            )

    def _single(self, missing: Mask, kind: Kind) -> Judged:
        """One value only: with gaps, the gaps still tell something."""
        if not missing.any():
            return self.dropped("constant: the same in every row", kind)
        levels = self._levels()  # marks such as NA are levels of a category, so there may be more
        reason = "one value or missing: whether it is there is all that it tells"
        return Judged(self._column("category", reason, self.cells.missing, len(levels), levels))

    def _levels(self) -> tuple[str, ...]:
        codes, texts = self.cells.coded
        counts = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
        count = dict(zip(texts, counts, strict=True))
        return tuple(sorted(natural(texts), key=lambda text: -count[text]))

    def _example(self) -> str:
        missing = self.cells.missing
        return "" if missing.all() else self.cells.at(int(missing.argmin()))[:EXAMPLE]

    def _column(
        self,
        kind: Kind,
        reason: str,
        missing: Mask,
        distinct: int,
        levels: tuple[str, ...] = (),
        layout: str = "",
    ) -> Column:
        gaps = int(missing.sum())
        return Column(
            self.name, kind, True, reason, gaps, distinct, self._example(), levels, layout
        )
