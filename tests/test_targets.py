"""Understanding a target: the task it asks for, and targets nothing can be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkit.errors import ColumnError, SettingError, TargetError
from dropkit.records import Schema
from dropkit.training.columns import (
    encode_target,
    infer_schema,
    target_gaps,
)
from made_up_columns import AMOUNTS, CELLS, DAYS, ROWS, repeated


def goal(cells: Any, task: str = "auto", **types: str) -> Schema:
    frame = pd.DataFrame({"x": np.linspace(0.1, 0.9, len(cells)), "y": cells})
    return infer_schema(frame, "y", task=task, types=types)


TASKS: list[tuple[str, Any, str, tuple[str, ...]]] = [
    ("text", repeated("b", "a"), "classification", ("a", "b")),
    ("bool", repeated(True, False), "classification", ("False", "True")),
    ("category", pd.Categorical(repeated(1.5, 0.5)), "classification", ("0.5", "1.5")),
    ("two whole numbers", repeated(10, 9), "classification", ("9", "10")),
    ("few whole numbers", repeated(10, 9, 0, 2), "classification", ("0", "2", "9", "10")),
    ("whole floats", repeated(1.0, 0.0), "classification", ("0", "1")),
    ("text whole numbers", repeated("10", "9.0"), "classification", ("9", "10")),
    ("leading zeros", repeated("01", "1"), "classification", ("01", "1")),
    ("eleven whole numbers", [place % 11 for place in range(66)], "regression", ()),
    ("few rows for whole numbers", [1, 2, 3, 4, 5] * 4, "regression", ()),
    ("whole numbers that come once", [*range(1, 5), *[0] * 40], "regression", ()),
    ("fractions", AMOUNTS, "regression", ()),
    ("two fractions", repeated(0.5, 1.5), "regression", ()),
    ("text fractions", AMOUNTS.astype(str), "regression", ()),
    ("many whole numbers", np.arange(ROWS) ** 2, "regression", ()),
    ("a row count", np.arange(ROWS), "regression", ()),
]


@pytest.mark.parametrize(
    ("cells", "task", "classes"), [case[1:] for case in TASKS], ids=[case[0] for case in TASKS]
)
def test_the_task_that_a_target_asks_for(cells: Any, task: str, classes: Sequence[str]) -> None:
    schema = goal(cells)
    assert (schema.task, schema.classes) == (task, tuple(classes))
    assert schema.reason.startswith(f"{task}, since the target ")
    codes = encode_target(pd.Series(cells), schema)
    assert codes.dtype == (np.float64 if task == "regression" else np.int64)
    if classes:
        assert sorted(set(codes.tolist())) == list(range(len(classes)))


def test_the_task_can_be_told() -> None:
    assert goal(repeated(1, 2), "regression").task == "regression"
    assert goal(repeated(0.5, 1.5), "classification").classes == ("0.5", "1.5")
    assert goal(repeated(1, 2), y="number").task == "regression"
    assert goal([place % 20 for place in range(ROWS)], y="category").task == "classification"
    with pytest.raises(SettingError, match="'auto', 'classification' or 'regression'"):
        goal(repeated(1, 2), "clustering")


TARGETS: list[tuple[Any, str, str]] = [
    (repeated(None), "auto", "missing in all of 40 rows"),
    (repeated("?", ""), "auto", "missing in all of 40 rows"),
    (repeated(1.5, 2.5, 3.5, None), "auto", r"missing in 10 of 40 rows \(first: row 4\)"),
    (repeated("a", "b", " ", "b"), "auto", r"missing in 10 of 40 rows \(first: row 3\)"),
    (repeated("1", "NA"), "auto", r"missing in 20 of 40 rows \(first: row 2\)"),
    (repeated("a"), "auto", "'a' in every row"),
    (repeated(3), "auto", "'3' in every row"),
    (repeated(2.5), "auto", "'2.5' in every row"),
    ([f"n{place}" for place in range(ROWS)], "auto", "differs in every row, like an id"),
    ([1.5, np.inf, *AMOUNTS[2:]], "auto", r"not finite in 1 of 40 rows \(first: row 2, 'inf'\)"),
    (["1e400", *AMOUNTS[1:].astype(str)], "auto", "not finite in 1 of 40 rows .*'1e400'"),
    (["c", *["a", "b"] * 20], "auto", "class 'c' of target 'y' has one row only"),
    ([1, *[0] * 20], "auto", "class '1' of target 'y' has one row only"),
    (["a", "b", *["c"] * 9], "auto", "classes 'a', 'b' of target 'y' have one row only"),
    ([f"n{place // 2}" for place in range(3000)], "auto", "1500 classes in 3000 rows.*most 1000"),
    ([*range(30), *range(10)], "classification", "30 classes in 40 rows"),
    (["oops", *AMOUNTS[1:].astype(str)], "auto", r"1 cells are no number, first: row 1, 'oops'"),
    (["oops", *AMOUNTS[1:].astype(str)], "regression", r"no finite number in 1 of 40.*'oops'"),
    (repeated("a", "b"), "regression", "regression needs numbers"),
    (["a", "b", "a"], "auto", "has 3 rows; expected at least 4"),
    ([0.5, 1.5], "auto", "has 2 rows; expected at least 4"),
    (DAYS, "auto", "holds dates"),
    ([[1]] * ROWS, "auto", "holds lists"),
    ([b"a"] * ROWS, "auto", "holds bytes"),
    (AMOUNTS + 1j, "auto", "holds complex numbers"),
]


@pytest.mark.parametrize(
    ("cells", "task", "message"), TARGETS, ids=[message for *_, message in TARGETS]
)
def test_a_target_from_which_nothing_can_be_learned(cells: Any, task: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        goal(cells, task)
    assert "'y'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_that_is_absent_or_an_id() -> None:
    frame = pd.DataFrame({"x": AMOUNTS, "income": AMOUNTS, "row_id": np.arange(ROWS) ** 2})
    with pytest.raises(ColumnError, match=r"no column 'incme' .*did you mean 'income'"):
        infer_schema(frame, "incme")
    with pytest.raises(ColumnError, match="it has 'x', 'income', 'row_id'"):
        infer_schema(frame, "zzz")
    with pytest.raises(TargetError, match="'row_id' is an id"):
        infer_schema(frame, "row_id")


def test_as_few_rows_as_possible() -> None:
    assert goal(["a", "b", "a", "b"]).classes == ("a", "b")
    assert goal([0.5, 1.5, 2.5, 3.5]).task == "regression"


def test_gaps_can_be_left_out_by_the_caller() -> None:
    for cells in (["1", "NA", "2"], [1.5, None, 2.5], ["a", " ", "b"]):
        assert target_gaps(pd.Series(cells)).tolist() == [False, True, False]
    assert target_gaps(pd.Series(["a", "NA", "b"])).tolist() == [False] * 3


def test_targets_are_encoded_however_they_are_written() -> None:
    schema = goal(repeated("1", "2", "10", "2"))
    for cells in (["1", "10"], [1, 10], [1.0, 10.0], ["1.0", " 10 "[1:3]]):
        assert encode_target(pd.Series(cells), schema).tolist() == [0, 2]
    schema = goal(repeated("true", "false"))
    assert encode_target(pd.Series([True, False]), schema).tolist() == [1, 0]


def test_new_targets_that_do_not_fit() -> None:
    schema = goal(repeated("a", "b"))
    with pytest.raises(TargetError, match=r"not seen: 'c' \(in 1 rows, first: row 2\)"):
        encode_target(pd.Series(["a", "c"]), schema)
    with pytest.raises(TargetError, match=r"missing in 1 of 2 rows \(first: row 2\)"):
        encode_target(pd.Series(["a", None]), schema)
    schema = goal(AMOUNTS)
    for cell in ("x", np.inf):
        with pytest.raises(TargetError, match="no finite number in 1 of 2 rows"):
            encode_target(pd.Series([1.5, cell]), schema)


@settings(deadline=None)  # the first date loads parsers
@given(cells=st.lists(CELLS, min_size=4, max_size=12))
def test_whatever_the_target_only_named_errors_come(cells: list[Any]) -> None:
    series = pd.Series(cells, dtype=object)
    frame = pd.DataFrame({"x": AMOUNTS[: len(cells)], "y": series})
    try:
        schema = infer_schema(frame, "y")
    except TargetError:
        return
    codes = encode_target(series, schema)
    assert len(codes) == len(cells)
    assert np.isfinite(codes).all()
    assert schema.task == "regression" or codes.min() == 0
