"""Columns of a new table, read as the training table was."""

from __future__ import annotations

import warnings
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from dropkit.errors import ColumnError, DropkitWarning
from dropkit.records import Column, Schema
from dropkit.training.cells import Cells, Floats, Mask, cells, numbers
from dropkit.training.readings import ISO, aligned, dates, flags
from dropkit.training.schema import id_column, infer_schema
from dropkit.training.targets import encode_target, target_gaps
from dropkit.training.wording import listed, nearest, shown

__all__ = ["encode_target", "id_column", "infer_schema", "target_gaps", "typed", "understood"]


def typed(frame: pd.DataFrame, column: Column) -> pd.Series[Any]:
    """Read one column of a table as training understood it.

    A number becomes float64 with NaN; a category object strings, None for missing; a boolean
    float64 0, 1 or NaN; a date datetime64[ns] with NaT. What is read already stays as it is.

    Levels of a category that training has not seen are returned as they are. Those of a boolean
    become NaN, with a DropkitWarning that names them.

    Raises ColumnError if the column is absent, or holds cells of another type.
    """
    found = cells(_find(frame, column))
    if column.kind == "category":
        if found.opaque:
            _refuse(found, column, ~found.missing)
        values: Any = aligned(found, column.levels)
        return pd.Series(values, index=frame.index, name=column.name, dtype=object)
    if column.kind == "date":
        values, bad = dates(found, column.layout or ISO)
    elif column.kind == "boolean":
        values, bad = _boolean(found, column)
    else:
        values, bad = numbers(found)
        bad = bad | np.isinf(values)
    if bad.any():
        _refuse(found, column, bad)
    return pd.Series(values, index=frame.index, name=column.name)


def understood(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The table with every used column read once, for callers that will read it many times.

    Other columns stay as they are. Raises ColumnError as `typed` does.
    """
    read = {column.name: typed(frame, column) for column in schema.used}
    names = [str(name) for name in frame.columns]
    parts = [read.get(name, frame.iloc[:, place]) for place, name in enumerate(names)]
    return pd.concat(parts, axis="columns").set_axis(names, axis="columns")


def _find(frame: pd.DataFrame, column: Column) -> pd.Series[Any]:
    labels = frame.columns
    if labels.inferred_type == "string" and labels.is_unique and column.name in labels:
        return frame[column.name]  # the usual case, at once: a table may have thousands of columns
    names = [str(name) for name in frame.columns]
    places = [place for place, name in enumerate(names) if name == column.name]
    if not places:
        raise ColumnError(
            f"the table has no column {shown(column.name)}, which the model was trained on; "
            f"{nearest(column.name, names)}"
        )
    if len(places) > 1:
        raise ColumnError(
            f"the table has {len(places)} columns called {shown(column.name)}; rename all but one"
        )
    return frame.iloc[:, places[0]]


def _boolean(found: Cells, column: Column) -> tuple[Floats, Mask]:
    """Read flags; a level that training has not seen is unknown, another type is an error."""
    values, bad = flags(found)
    if not bad.any() or found.opaque or found.form == "date":
        return values, bad
    if set(column.levels) <= {"0", "1", "0.0", "1.0"}:  # where only another number can be a level
        alien = numbers(found)[1]
        if alien.any():
            return values, alien
    unseen = sorted(set(found.coded[1][found.coded[0][bad]]))
    warnings.warn(
        f"column {shown(column.name)} has levels that training has not seen: {listed(unseen)} (in "
        f"{int(bad.sum())} rows; expected {listed(column.levels)}); they are taken as unknown",
        DropkitWarning,
        stacklevel=3,
    )
    return values, np.zeros(len(values), dtype=bool)


def _refuse(found: Cells, column: Column, bad: Mask) -> NoReturn:
    row = int(bad.argmax())
    expected = {"number": "finite number"}.get(column.kind, column.kind)
    raise ColumnError(
        f"column {shown(column.name)} was a {column.kind} in training, such as "
        f"{shown(column.example)}; {int(bad.sum())} of {len(bad)} cells are no {expected} (first: "
        f"row {row + 1}, {shown(found.at(row))}); correct or empty them"
    )
