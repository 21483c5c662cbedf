"""What a table is: its columns as they are judged, its target, its task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from dropkit.errors import ColumnError, SettingError
from dropkit.records import Column, Schema
from dropkit.training.cells import Cells, cells, numbers
from dropkit.training.describing import Judged
from dropkit.training.judging import COUNT, ID, judge_column
from dropkit.training.readings import flags
from dropkit.training.targets import judge_target
from dropkit.training.wording import listed, nearest, shown

TYPES = ("category", "number", "boolean", "date", "drop", "id")
"""What a user can tell a column to be; the last two leave it out."""


def infer_schema(
    frame: pd.DataFrame,
    target: str,
    *,
    task: str = "auto",
    types: Mapping[str, str] = MappingProxyType({}),
) -> Schema:
    """Understand a table: the kind of each column, which of them carry nothing, and the task.

    A column is a number if all its cells are (0 and 1 alone: a boolean), a boolean if it holds
    true/false, yes/no, t/f or y/n, a date if all its cells are in one layout, else a category.
    Left out, with a reason: constant or empty columns, ids (text that differs in nearly every
    row; whole numbers that differ and are called id or the like, or that count the rows), free
    text, copies of another column. `types` overrides what is found, by column name.

    Raises ColumnError (absent, doubled, infinite, or not of the type that was told), TargetError
    (nothing can be learned) and SettingError (an unknown type or task).

    >>> table = pd.DataFrame({"size": [1.5, 2.5, 3.5, 4.5], "ripe": ["no", "no", "yes", "yes"]})
    >>> schema = infer_schema(table, "ripe")
    >>> schema.task, schema.classes, schema.columns[0].kind
    ('classification', ('no', 'yes'), 'number')
    """
    table, target = named(frame), str(target)
    names = list(table.columns)
    if target not in names:
        raise ColumnError(
            f"the table has no column {shown(target)} to be the target; {nearest(target, names)}"
        )
    told = _checked_types(names, types)
    goal = judge_target(table[target], target, _task(task, told.pop(target, None)))
    read = {name: cells(table[name]) for name in names if name != target}
    judged = [judge_column(name, column, told.get(name)) for name, column in read.items()]
    judged = _with_something(judged, read)
    columns = _without_copies(judged, read, target, cells(table[target]))
    return Schema(columns, target, goal.task, goal.classes, len(table), goal.reason)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with its column names as text; ColumnError if two become the same."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        raise ColumnError(
            f"the table has more than one column called {listed(twice)}; rename all but one"
        )
    return frame.set_axis(names, axis="columns")


def id_column(schema: Schema) -> Column | None:
    """The first column that was taken for an id, or None."""
    return next((column for column in schema.columns if column.reason.startswith(ID)), None)


def _checked_types(names: list[str], types: Mapping[str, str]) -> dict[str, str]:
    for name, kind in types.items():
        if str(name) not in names:
            raise ColumnError(
                f"a type was given for column {shown(name)}, which the table does not have; "
                f"{nearest(str(name), names)}"
            )
        if kind not in TYPES:
            raise SettingError(
                f"column {shown(name)} was told to be {shown(kind)}; expected {listed(TYPES)}"
            )
    return {str(name): kind for name, kind in types.items()}


def _task(task: str, told: str | None) -> str:
    """A type that was told for the target speaks for its task."""
    if told is None or task != "auto":
        return task
    if told in ("category", "boolean"):
        return "classification"
    if told == "number":
        return "regression"
    raise SettingError(
        f"the target was told to be {shown(told)}; expected 'category', 'boolean' or 'number'"
    )


def _with_something(judged: list[Judged], read: Mapping[str, Cells]) -> list[Judged]:
    """Where nothing is left but numbers that count the rows, they may be a time axis: keep them."""
    if any(one.column.used for one in judged):
        return judged
    kept = [
        judge_column(one.column.name, read[one.column.name], "number")
        if one.column.reason == COUNT
        else one
        for one in judged
    ]
    if not any(one.column.used for one in kept):
        why = "; ".join(f"{shown(one.column.name)}: {one.column.reason}" for one in kept[:5])
        raise ColumnError(
            f"the table has no column to learn from beside the target{' (' * bool(why)}{why}"
            f"{')' * bool(why)}; add columns, or tell their types"
        )
    return kept


def _without_copies(
    judged: list[Judged], read: Mapping[str, Cells], target: str, goal: Cells
) -> tuple[Column, ...]:
    """Drop each column whose cells are those of an earlier one, and doubt a copy of the target."""
    seen: dict[tuple[str, bytes], str] = {}
    goals = {kind: _fingerprint_as(kind, goal) for kind in ("number", "boolean", "category")}
    columns = []
    for one in judged:
        column = one.column
        if column.used:
            mark = _fingerprint(one.read, read[column.name])
            first = seen.setdefault((column.kind, mark), column.name)
            if first != column.name:
                reason = f"a copy of column {shown(first)}"
                column = replace(column, used=False, levels=(), layout="", reason=reason)
            elif mark == goals.get(column.kind):
                doubt = f"; equal to the target {shown(target)}: is it known when predicting?"
                column = replace(column, reason=column.reason + doubt)
        columns.append(column)
    return tuple(columns)


def _fingerprint(values: Any, column: Cells) -> bytes:
    """A digest of the values that were read or, for a category, of its texts."""
    digest = hashlib.blake2b()
    if values is None:
        codes, texts = column.coded
        digest.update(codes.tobytes())
        digest.update("\0".join(texts).encode("utf-8", "surrogatepass"))
    else:
        if values.dtype.kind == "f":
            values = values + 0.0  # so that -0.0 is 0.0
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.digest()


def _fingerprint_as(kind: str, goal: Cells) -> bytes:
    """The fingerprint that the target would have if it were a column of this kind."""
    if kind == "category":
        return _fingerprint(None, goal)
    values, bad = numbers(goal) if kind == "number" else flags(goal)
    return b"" if bad.any() else _fingerprint(values, goal)
