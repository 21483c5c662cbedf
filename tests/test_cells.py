"""New tables, read as the one that was learned from."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkit.errors import ColumnError, DropkitWarning
from dropkit.records import Column
from dropkit.training.columns import (
    infer_schema,
    typed,
    understood,
)
from made_up_columns import AMOUNTS, CELLS, DAYS, ROWS, judged, repeated


def new(cells: Any, column: Column) -> list[object]:
    read = typed(pd.DataFrame({"x": cells}), column)
    return [None if pd.isna(cell) else cell for cell in read]


def test_a_column_that_is_absent_names_the_nearest() -> None:
    column = judged(AMOUNTS, "height")
    with pytest.raises(ColumnError, match=r"no column 'height'.*did you mean 'heigth'"):
        typed(pd.DataFrame({"heigth": AMOUNTS}), column)


@pytest.mark.parametrize(
    ("training", "cells", "message"),
    [
        (AMOUNTS, ["1", "x", "y"], r"was a number in training.*2 of 3 .*row 2, 'x'"),
        (AMOUNTS, [1.0, np.inf], r"1 of 2 cells are no finite number \(first: row 2, 'inf'\)"),
        (AMOUNTS, ["1", "1e400"], r"1 of 2 cells .*'1e400'"),
        (AMOUNTS, DAYS, "40 of 40 cells"),
        (AMOUNTS, [[1], [2]], "2 of 2 cells"),
        (DAYS, ["2024-01-01", "soon"], r"was a date in training.*row 2, 'soon'"),
        (DAYS, [1, 2], "2 of 2 cells"),
        (repeated(0, 1), ["0", "x"], r"was a boolean in training.*1 of 2.*'x'"),
        (repeated("yes", "no"), DAYS, "was a boolean in training"),
        (repeated("a", "b"), [["a"], ["b"]], "was a category in training"),
    ],
)
def test_a_column_that_has_changed_its_type(training: Any, cells: Any, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        new(cells, judged(training))


def test_numbers_are_read_from_whatever_holds_them() -> None:
    column = judged(AMOUNTS)
    for cells in (["1", "NA", "2.5"], [1, None, 2.5], pd.array([1, None, 2.5], dtype="Float64")):
        assert new(cells, column) == [1.0, None, 2.5]
    assert new([True, False], column) == [1.0, 0.0]
    assert new([None, None], column) == [None, None]
    assert new(pd.Categorical(["1", None, "2.5"]), column) == [1.0, None, 2.5]


def test_levels_of_numbers_match_however_they_are_written() -> None:
    for training in (repeated("1", "2"), repeated(1, 2), repeated(1.0, 2.0)):
        column = judged(training, told="category")
        for cells in (["1", "2", "x"], ["1.0", "2.0", "x"], [1, 2, "x"]):
            assert new(cells, column) == ["1", "2", "x"]
        for cells in ([1, 2], [1.0, 2.0], pd.array([1, 2], dtype="Int64")):
            assert new(cells, column) == ["1", "2"]
    column = judged(repeated("1.0", "2.0"), told="category")
    assert new([1, 2, 3], column) == ["1.0", "2.0", "3"]
    assert new(["01", 1], judged(repeated("1", "2"), told="category")) == ["01", "1"]


def test_booleans_are_read_however_they_are_written() -> None:
    column = judged(repeated("yes", "no"))
    for cells in (["YES", "no", ""], [True, False, None], [1, 0, None], ["t", "f", "NA"]):
        assert new(cells, column) == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("training", "cells"),
    [
        (repeated("yes", "no"), ["yes", "maybe"]),
        (repeated(0, 1), [1, 2]),
        (repeated("0", "1"), ["1", "2"]),
    ],
)
def test_unseen_levels_of_a_boolean_are_unknown_and_named(training: Any, cells: Any) -> None:
    with pytest.warns(DropkitWarning, match=rf"'x' has levels .*not seen: '{cells[1]}'"):
        assert new(cells, judged(training)) == [1.0, None]


def test_a_table_can_be_understood_once() -> None:
    frame = pd.DataFrame(
        {
            "id": range(ROWS),
            "number": AMOUNTS.astype(str),
            "level": repeated("a", None),
            "flag": repeated("yes", "no"),
            "day": DAYS.strftime("%Y-%m-%d"),
            "target": AMOUNTS,
        }
    )
    schema = infer_schema(frame, "target")
    once = understood(frame, schema)
    assert list(once.columns) == list(frame.columns)
    assert once["id"].tolist() == frame["id"].tolist()
    for column in schema.used:
        pd.testing.assert_series_equal(typed(once, column), typed(frame, column))


@settings(deadline=None)  # the first date loads parsers
@given(cells=st.lists(CELLS, min_size=4, max_size=12), other=st.lists(CELLS, max_size=4))
def test_whatever_the_cells_only_named_errors_come(cells: list[Any], other: list[Any]) -> None:
    series = pd.Series(cells, dtype=object)
    frame = pd.DataFrame({"x": series, "amount": AMOUNTS[: len(cells)], "y": AMOUNTS[: len(cells)]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DropkitWarning)
        try:
            column = infer_schema(frame, "y").columns[0]
        except ColumnError:
            return
        if column.used:
            read = typed(frame, column)
            assert read.isna().sum() == column.missing
            assert read.nunique() == column.distinct
            try:
                typed(pd.DataFrame({"x": pd.Series(other, dtype=object)}), column)
            except ColumnError as error:
                assert "'x'" in str(error)


def test_understanding_a_million_cells_takes_no_loop_over_them() -> None:
    rows = 200_000
    frame = pd.DataFrame(
        {
            "number": np.tile(AMOUNTS, rows // ROWS).astype(str),
            "level": np.tile(repeated("a", "b", "c", "d"), rows // ROWS),
            "y": np.tile(AMOUNTS, rows // ROWS),
        }
    )
    schema = infer_schema(frame, "y")
    assert [column.kind for column in schema.columns] == ["number", "category"]
    assert len(understood(frame, schema)) == rows
