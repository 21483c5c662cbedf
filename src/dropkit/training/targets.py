"""Which task a target asks for, whether anything can be learned from it, and its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from dropkit.errors import SettingError, TargetError
from dropkit.records import Schema, Task
from dropkit.training.cells import Cells, Codes, Floats, Mask, Texts, cells, numbers, spelled
from dropkit.training.idlike import name_says_id
from dropkit.training.readings import EXACT, aligned, are_amounts, natural
from dropkit.training.wording import listed, shown

FEW_CLASSES = 10
"""Whole numbers with at most so many values may be classes; more are taken for amounts."""
ROWS_PER_CLASS = 5
"""Rows per value, on average, from which few whole numbers are taken for classes."""
LEAST_PER_CLASS = 2
"""Rows that a class needs: one to train on and one to judge by."""
LEAST_ROWS = 4
"""Rows that a fit needs: two to train on and two to judge by."""
MOST_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Goal:
    """What a target asks for."""

    task: Task
    classes: tuple[str, ...]
    reason: str


def judge_target(series: pd.Series[Any], name: str, task: str = "auto") -> Goal:
    """Choose the task of a target and check that it can be learned; TargetError says why not.

    With `task="auto"`: text, booleans and categories are classes. Numbers with fractions are
    values. Whole numbers are classes if they take two values, or at most 10, each in at least two
    rows and in five on average; else values.
    """
    if task not in ("auto", "classification", "regression"):
        raise SettingError(
            f"task is {shown(task)}; expected 'auto', 'classification' or 'regression'"
        )
    column = cells(series)
    if column.opaque or column.form == "date":
        what = {"date": "dates", "nested": "lists or objects", "binary": "bytes"}
        raise TargetError(
            f"target {shown(name)} holds {what.get(column.form, 'complex numbers')}; expected "
            "classes or numbers: turn it into one of these, or choose another target"
        )
    values, bad = numbers(column)
    numeric = not bad.any()
    _check_present(_gaps(column, values, numeric), name)
    if numeric and np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise TargetError(
            f"target {shown(name)} is not finite in {int(np.isinf(values).sum())} of {len(values)} "
            f"rows (first: row {row + 1}, {shown(column.at(row))}); correct or leave them out"
        )
    chosen, reason = _choose(column, values, numeric, task)
    if chosen == "classification":
        return Goal(chosen, _classes(column, bad, name), reason)
    if not numeric:
        _refuse_text(column, bad, name)
    _check_amounts(values, name)
    return Goal(chosen, (), reason)


def target_gaps(series: pd.Series[Any]) -> Mask:
    """True for every row without a target, so that a caller may leave these rows out."""
    column = cells(series)
    if column.opaque:
        return column.missing
    values, bad = numbers(column)
    return _gaps(column, values, not bad.any())


def encode_target(series: pd.Series[Any], schema: Schema) -> np.ndarray[Any, Any]:
    """Turn a target into float64 values, or into int64 codes of `schema.classes`.

    Raises TargetError for a missing cell, a class that training has not seen, or a value that is
    no finite number.
    """
    column = cells(series)
    values, bad = numbers(column)
    _check_present(_gaps(column, values, not bad.any()), schema.target)
    if schema.task == "regression":
        wrong = bad | ~np.isfinite(values)
        if wrong.any():
            _refuse_text(column, wrong, schema.target)
        return values
    texts = aligned(column, schema.classes)
    codes = pd.Index(schema.classes, dtype=object).get_indexer(pd.Index(texts, dtype=object))
    unseen = codes < 0
    if unseen.any():
        raise TargetError(
            f"target {shown(schema.target)} has classes that training has not seen: "
            f"{listed(sorted(set(texts[unseen])))} (in {int(unseen.sum())} rows, first: row "
            f"{int(unseen.argmax()) + 1}); expected {listed(schema.classes)}"
        )
    return np.asarray(codes, dtype=np.int64)


def _gaps(column: Cells, values: Floats, numeric: bool) -> Mask:
    """Rows without a target; among numbers, marks such as NA are gaps as well."""
    return np.isnan(values) if numeric and column.form != "date" else column.missing


def _check_present(missing: Mask, name: str) -> None:
    if missing.all():
        raise TargetError(
            f"target {shown(name)} is missing in all of {len(missing)} rows: nothing can be learned"
        )
    if missing.any():
        raise TargetError(
            f"target {shown(name)} is missing in {int(missing.sum())} of {len(missing)} rows "
            f"(first: row {int(missing.argmax()) + 1}); fill these cells or leave the rows out"
        )


def _choose(column: Cells, values: Floats, numeric: bool, task: str) -> tuple[Task, str]:
    """The rule of `judge_target`, with the words for it."""
    if task == "classification":
        return "classification", "classification, as told"
    if task == "regression":
        return "regression", "regression, as told"
    if column.form in ("boolean", "category") or not numeric:
        what = {"boolean": "true or false", "category": "a category"}.get(column.form, "text")
        return "classification", f"classification, since the target is {what}"
    if (values != np.floor(values)).any():
        return "regression", "regression, since the target has fractions"
    distinct, counts = np.unique(values, return_counts=True)
    often = counts.min() >= LEAST_PER_CLASS and len(values) >= ROWS_PER_CLASS * len(distinct)
    words = f"since the target takes {len(distinct)} whole values in {len(values)} rows"
    if len(distinct) <= 2 or (len(distinct) <= FEW_CLASSES and often):
        return "classification", f"classification, {words}"
    return "regression", f"regression, {words}"


def _classes(column: Cells, bad: Mask, name: str) -> tuple[str, ...]:
    texts, counts = _labels(column, bad)
    rows = int(counts.sum())
    _check_rows(rows, name)
    if len(texts) == 1:
        _refuse_constant(texts[0], name)
    if len(texts) == rows:
        raise TargetError(
            f"target {shown(name)} differs in every row, like an id; expected classes that repeat: "
            f"choose another target, or ask for regression if it is an amount{_soil(column, bad)}"
        )
    if len(texts) > min(MOST_CLASSES, rows / 2):
        raise TargetError(
            f"target {shown(name)} has {len(texts)} classes in {rows} rows; expected at most "
            f"{MOST_CLASSES}, and half as many as rows: join rare classes, or ask for regression "
            f"if it is an amount{_soil(column, bad)}"
        )
    rare = natural(texts[counts < LEAST_PER_CLASS])
    if rare:
        several = len(rare) > 1
        raise TargetError(
            f"class{'es' * several} {listed(rare)} of target {shown(name)} "
            f"{'have' if several else 'has'} one row only; expected at least {LEAST_PER_CLASS}: "
            "add rows, join classes, or leave them out"
        )
    return natural(texts)


def _labels(column: Cells, bad: Mask) -> tuple[Texts, Codes]:
    """Labels and how often each comes; 1.0 and 1 are the same label, 01 is another."""
    codes, texts = column.coded
    if not bad.any() and are_amounts(texts):
        amounts, codes = np.unique([float(text) for text in texts], return_inverse=True)[:]
        if np.abs(amounts).max() < EXACT:
            spread = codes[column.coded[0]]
            return spelled(amounts.tolist()), np.bincount(spread, minlength=len(amounts))
    return texts, np.bincount(column.coded[0], minlength=len(texts))


def _soil(column: Cells, bad: Mask) -> str:
    """Where most of a target is numbers: which cells are not."""
    if not bad.any() or bad.mean() > 0.5:
        return ""
    row = int(bad.argmax())
    return f" ({int(bad.sum())} cells are no number, first: row {row + 1}, {shown(column.at(row))})"


def _refuse_text(column: Cells, bad: Mask, name: str) -> NoReturn:
    row = int(bad.argmax())
    raise TargetError(
        f"target {shown(name)} is no finite number in {int(bad.sum())} of {len(bad)} rows (first: "
        f"row {row + 1}, {shown(column.at(row))}); regression needs numbers: correct these cells, "
        "or ask for classification"
    )


def _refuse_constant(value: object, name: str) -> NoReturn:
    raise TargetError(
        f"target {shown(name)} is {shown(value)} in every row: nothing can be learned; choose "
        "another target, or add rows with other values"
    )


def _check_rows(rows: int, name: str) -> None:
    if rows < LEAST_ROWS:
        raise TargetError(
            f"target {shown(name)} has {rows} row{'s' * (rows != 1)}; expected at least "
            f"{LEAST_ROWS}: add rows"
        )


def _check_amounts(values: Floats, name: str) -> None:
    _check_rows(len(values), name)
    distinct = len(np.unique(values))
    if distinct == 1:
        _refuse_constant(f"{values[0]:g}", name)
    if name_says_id(name) and distinct == len(values) and (values == np.floor(values)).all():
        raise TargetError(
            f"target {shown(name)} is an id: by its name, and by a number of its own in every row; "
            "choose another target"
        )
