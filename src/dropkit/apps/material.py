"""From tables to what a search and a report need: a schema, training rows, rows set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dropkit.apps.predictions import Cell, identities
from dropkit.apps.request import Request
from dropkit.errors import ColumnError, SettingError, TargetError
from dropkit.kernel import Stream, derive
from dropkit.records import Schema
from dropkit.training.columns import (
    encode_target,
    infer_schema,
    target_gaps,
    typed,
    understood,
)
from dropkit.training.judging import ID
from dropkit.training.schema import named
from dropkit.training.targets import LEAST_ROWS
from dropkit.training.wording import nearest, shown

if TYPE_CHECKING:
    import pandas as pd

Indices = npt.NDArray[np.int64]

_CELLS, _LONGEST = 2_000_000, 100
"""Cells kept for a report, and characters of each: it shows a few rows, briefly."""
_SPLIT = 0x7357
"""Names the stream that sets rows aside, so that no other use of the seed meets the same draws."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Rows that no choice sees."""

    source: str
    frame: pd.DataFrame
    truth: np.ndarray
    ids: dict[str, Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Material:
    """What a fit works on."""

    schema: Schema
    train: pd.DataFrame
    """Its columns read, as they will be many times."""
    target: np.ndarray
    """Of the training rows: values, or class codes."""
    aside: Aside | None
    ids: tuple[str, ...]
    """Columns that name a row."""


def material(request: Request, table: pd.DataFrame, test: pd.DataFrame | None) -> Material:
    """Understand the table, drop rows without a target if that was asked for, set rows aside.

    Raises `InputError` for anything that cannot be used, before any training.
    """
    table = labelled(named(table).reset_index(drop=True), request, request.table)
    schema = _schema(table, request)
    ids = _ids(schema, request)
    target = encode_target(table[request.target], schema)
    if test is not None:
        test = labelled(named(test).reset_index(drop=True), request, str(request.test))
        aside = _from_file(test, request, schema, ids)
        return Material(schema, understood(table, schema), target, aside, ids)
    if request.test_size == 0:
        return Material(schema, understood(table, schema), target, None, ids)
    kept, away = split(target, len(schema.classes), request.test_size, request.seed)
    if len(kept) < LEAST_ROWS:
        raise SettingError(
            f"--test-size {request.test_size:g} leaves {len(kept)} of {len(table)} rows to learn "
            f"from; expected at least {LEAST_ROWS}. Choose a smaller share."
        )
    rows = table.iloc[away]
    aside = Aside(
        f"{100 * request.test_size:.3g} % of the rows, set aside",
        rows.reset_index(drop=True),
        target[away],
        identities(rows, ids, [int(index) + 1 for index in rows.index]),
    )
    train = understood(table.iloc[kept].reset_index(drop=True), schema)
    return Material(schema, train, target[kept], aside, ids)


def labelled(table: pd.DataFrame, request: Request, source: str) -> pd.DataFrame:
    """The rows that have a target. Raises `TargetError` if some lack one and may not be dropped."""
    if request.target not in table.columns:
        return table
    absent = target_gaps(table[request.target])
    missing = int(absent.sum())
    if missing in (0, len(table)):  # none is well, and all is an error with words of its own
        return table
    if not request.drop_unlabelled:
        raise TargetError(
            f"expected a target in every row; {missing} of {len(table)} rows of {source} have none "
            f"in column {shown(request.target)}. Fill them in, or leave these rows out with "
            "--drop-unlabelled."
        )
    return table[~absent]


def split(target: np.ndarray, classes: int, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices of the rows to train on and of those set aside, each in order.

    Of each class the same share is set aside, as near as whole rows allow, and never its last row.
    `classes` is 0 for regression.
    """
    order = Stream(derive(seed, _SPLIT)).permutation(len(target)).numpy()
    groups = [order[target[order] == code] for code in range(classes)] if classes else [order]
    wanted = np.array([share * len(group) for group in groups])
    counts = np.floor(wanted).astype(int)
    short = max(1, round(share * len(target))) - int(counts.sum())
    for index in np.argsort(counts - wanted, kind="stable")[: max(0, short)]:
        counts[index] += 1
    taken = [
        group[: min(count, len(group) - 1)] for group, count in zip(groups, counts, strict=True)
    ]
    away = np.sort(np.concatenate(taken))
    kept = np.setdiff1d(np.arange(len(target)), away)
    return kept, away


def cells(frame: pd.DataFrame, schema: Schema) -> tuple[tuple[str, ...], ...]:
    """Rows as short text, in the order of the schema's columns; of a huge frame its first rows."""
    frame = frame.iloc[: _CELLS // max(1, len(schema.columns))]
    columns = [
        [_text(cell) for cell in frame[column.name]] if column.name in frame else [""] * len(frame)
        for column in schema.columns
    ]
    return tuple(zip(*columns, strict=True)) if columns else ((),) * len(frame)


def names(ids: dict[str, Sequence[Cell]]) -> tuple[str, ...]:
    """One name per row: the first id column's cell, or the row number."""
    column = next(iter(ids.values()))
    return tuple("" if cell is None else str(cell) for cell in column)


def _schema(table: pd.DataFrame, request: Request) -> Schema:
    types = dict(request.types)
    if request.id is not None:
        if request.id not in table.columns:
            raise ColumnError(
                f"--id: there is no column {shown(request.id)}; "
                f"{nearest(request.id, list(table.columns))}"
            )
        types[request.id] = "id"
    return infer_schema(table, request.target, task=request.task, types=types)


def _ids(schema: Schema, request: Request) -> tuple[str, ...]:
    if request.id is not None:
        return (request.id,)
    return tuple(column.name for column in schema.columns if column.reason.startswith(ID))


def _from_file(test: pd.DataFrame, request: Request, schema: Schema, ids: tuple[str, ...]) -> Aside:
    if request.target not in test.columns:
        raise ColumnError(
            f"expected {request.test} to hold the target {shown(request.target)}; "
            f"{nearest(request.target, list(test.columns))}"
        )
    for column in schema.used:  # so that what cannot be predicted is said before hours of training
        typed(test, column)
    return Aside(
        str(request.test),
        test.reset_index(drop=True),
        encode_target(test[request.target], schema),
        identities(test, ids, [int(index) + 1 for index in test.index]),
    )


def _text(cell: Any) -> str:
    import pandas as pd

    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    return str(cell)[:_LONGEST]
