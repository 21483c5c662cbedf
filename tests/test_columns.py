"""Understanding a table: kinds of columns, dropped columns, overrides."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dropkit.errors import ColumnError, DropkitWarning, SettingError
from dropkit.records import Column
from dropkit.training.columns import (
    id_column,
    infer_schema,
    typed,
)
from made_up_columns import AMOUNTS, DAYS, ROWS, judged, repeated

# --- kinds ----------------------------------------------------------------------------------


KINDS: list[tuple[str, Any, str]] = [
    ("float", AMOUNTS, "number"),
    ("float32", AMOUNTS.astype(np.float32), "number"),
    ("few whole numbers", repeated(1, 2, 3, 4), "number"),
    ("many whole numbers, each once", np.arange(ROWS) ** 2, "number"),
    ("ranks in any order", (np.arange(ROWS) * 7) % ROWS, "number"),
    ("whole numbers with gaps", pd.array(repeated(1, None, 3, 4), dtype="Int64"), "number"),
    ("nullable floats", pd.array(repeated(1.5, None, 3, 4), dtype="Float64"), "number"),
    ("arrow numbers", pd.array(repeated(1, None, 3, 4), dtype="int64[pyarrow]"), "number"),
    ("objects", pd.Series(repeated(1, 2.5, None, 7), dtype=object), "number"),
    ("decimals", [decimal.Decimal(place % 7) / 2 for place in range(ROWS)], "number"),
    ("beyond int64", [10**30 + 10**20 * (place % 7) for place in range(ROWS)], "number"),
    ("durations", pd.to_timedelta(AMOUNTS, unit="h"), "number"),
    ("sparse", pd.arrays.SparseArray(repeated(0.0, 1.5)), "number"),
    ("text numbers", repeated("1", "2.5", " 3 ", "-4e1"), "number"),
    ("text numbers with marks", repeated("1", "NA", "3", "?"), "number"),
    ("numbers and text numbers", repeated(1, "2", 3, "4"), "number"),
    ("compact dates", DAYS.strftime("%Y%m%d").tolist(), "number"),
    ("bool", repeated(True, False), "boolean"),
    ("nullable bool", pd.array(repeated(True, None, False, True), dtype="boolean"), "boolean"),
    ("object bool", repeated(True, None, False, True), "boolean"),
    ("arrow bool", pd.array(repeated(True, None, False, True), dtype="bool[pyarrow]"), "boolean"),
    ("zero and one", repeated(0, 1), "boolean"),
    ("zero and one as floats", repeated(0.0, 1.0, np.nan, 1.0), "boolean"),
    ("zero and one as text", repeated("0", "1", "?", "1"), "boolean"),
    ("yes and no", repeated("Yes", "no"), "boolean"),
    ("t and f", repeated("T", "F"), "boolean"),
    ("y and n", repeated("y", "n", None, "Y"), "boolean"),
    ("TRUE and FALSE", repeated("TRUE", "FALSE"), "boolean"),
    ("text", repeated("red", "green", None, "blue"), "category"),
    ("string dtype", pd.array(repeated("a", None, "b", "c"), dtype="string"), "category"),
    ("arrow text", pd.array(repeated("a", None, "b", "c"), dtype="string[pyarrow]"), "category"),
    ("category dtype", pd.Categorical(repeated("x", "y", None, "x")), "category"),
    ("category of numbers", pd.Categorical(repeated(1, 2, None, 1)), "category"),
    ("category, each once", pd.Categorical(range(ROWS)), "category"),
    ("two words of no pair", repeated("yes", "false"), "category"),
    ("left and right", repeated("left", "right"), "category"),
    ("ranges", repeated("10-14", "15-19", "0-2", "3-5"), "category"),
    ("clock times", repeated("12:30", "13:45"), "category"),
    ("leading zeros", repeated("00123", "00456", "78901", "00123"), "category"),
    ("true beside one", repeated(True, 0, 1, False), "category"),
    ("datetime", DAYS, "date"),
    ("datetime with zone", DAYS.tz_localize("Europe/Berlin"), "date"),
    ("date objects", [None, *DAYS.date[1:]], "date"),
    ("arrow dates", pd.Series(DAYS).astype("date32[pyarrow]"), "date"),
    ("periods", DAYS.to_period("D"), "date"),
    ("ISO text", DAYS.strftime("%Y-%m-%d"), "date"),
    ("ISO text with time", DAYS.strftime("%Y-%m-%dT%H:%M:%SZ"), "date"),
    ("mixed zones", repeated("2024-01-01T00:00:00+01:00", "2024-02-01T00:00:00Z"), "date"),
    ("months", repeated("2024-01", "2024-02"), "date"),
    ("the end of time", repeated("9999-12-31", "2024-01-01"), "date"),
    ("dates with gaps", repeated("2024-01-31", "NA", None, "2024-02-28"), "date"),
    ("German", DAYS.strftime("%d.%m.%Y"), "date"),
    ("American", DAYS.strftime("%m/%d/%Y"), "date"),
    ("American with time", DAYS.strftime("%m/%d/%Y %I:%M %p"), "date"),
    ("British", DAYS.strftime("%d/%m/%Y"), "date"),
    ("words", DAYS.strftime("%B %d, %Y"), "date"),
]


@pytest.mark.parametrize(
    ("cells", "kind"), [case[1:] for case in KINDS], ids=[case[0] for case in KINDS]
)
def test_what_a_column_is(cells: Any, kind: str) -> None:
    column = judged(cells)
    assert (column.kind, column.used) == (kind, True), column.reason
    assert bool(column.levels) == (kind in ("category", "boolean"))
    assert bool(column.layout) == (kind == "date")
    check_reading(cells, column)


def check_reading(cells: Any, column: Column) -> None:
    """What is read has the type, the gaps and the levels that the column promises."""
    frame = pd.DataFrame({"x": cells}).set_axis([7] * ROWS)
    read = typed(frame, column)
    assert str(read.dtype) == {"date": "datetime64[ns]", "category": "object"}.get(
        column.kind, "float64"
    )
    assert read.isna().sum() == column.missing
    assert read.nunique() == column.distinct
    assert list(read.index) == [7] * ROWS
    if column.kind == "category":
        assert set(read.dropna()) == set(column.levels)
    pd.testing.assert_series_equal(typed(read.to_frame(), column), read)
    alone = typed(frame.iloc[[2]], column)
    pd.testing.assert_series_equal(alone, read.iloc[[2]])


DROPPED: list[tuple[str, str, Any, str]] = [
    ("x", "constant", repeated("a"), "constant"),
    ("x", "constant number", repeated(5.0), "constant"),
    ("x", "constant date", repeated("2024-01-01"), "constant"),
    ("x", "no cell", repeated(None), "every cell is missing"),
    ("x", "blank cells", repeated("", " "), "every cell is missing"),
    ("x", "marks only", repeated("?", "NA"), "every cell is missing"),
    ("x", "text of its own", [f"name{place}x" for place in range(ROWS)], "id: "),
    ("x", "zeros of its own", [f"{place:05d}" for place in range(ROWS)], "id: "),
    ("x", "uuid", [str(uuid.UUID(int=place % 30 + 10**30)) for place in range(ROWS)], "id: "),
    ("x", "row count", np.arange(ROWS) + 5, "id: "),
    ("x", "row count as text", [str(place) for place in range(ROWS)], "id: "),
    ("x", "long numbers", [str(10**18 + 17 * place) for place in range(ROWS)], "id: "),
    ("id", "called id", np.arange(ROWS) ** 2, "id: "),
    ("customerID", "called customerID", np.arange(ROWS) ** 2, "id: "),
    ("row_uuid", "called row_uuid", np.arange(ROWS) ** 2, "id: "),
    ("x", "prose", [f"a long remark on thing number {place}" for place in range(ROWS)], "free"),
    ("x", "lists", [[1, 2]] * ROWS, "its cells hold lists"),
    ("x", "objects", [{"a": 1}] * ROWS, "its cells hold lists"),
    ("x", "bytes", [b"a"] * ROWS, "its cells hold bytes"),
]


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [(name, cells, reason) for name, _, cells, reason in DROPPED],
    ids=[case[1] for case in DROPPED],
)
def test_what_carries_nothing_is_dropped_with_a_reason(name: str, cells: Any, reason: str) -> None:
    column = judged(cells, name)
    assert not column.used
    assert column.reason.startswith(reason)
    assert column.levels == ()


@pytest.mark.parametrize("name", ["paid", "width", "valid", "video", "identity_score"])
def test_names_that_only_contain_id_do_not_make_an_id(name: str) -> None:
    assert judged(np.arange(ROWS) ** 2, name).used


@pytest.mark.parametrize("name", ["store_id", "zip_code", "plz", "countryCode"])
def test_numbers_under_a_label_name_that_repeat_are_levels(name: str) -> None:
    column = judged(repeated(10, 20, 30, 40), name)
    assert (column.kind, column.used) == ("category", True)


def test_a_fraction_of_its_own_in_every_row_is_not_an_id() -> None:
    assert judged(AMOUNTS, "id").used


def test_one_value_with_gaps_is_a_category_of_one_level() -> None:
    for cells in (repeated("a", None), repeated(5.0, np.nan), repeated(True, None)):
        column = judged(cells)
        assert (column.kind, column.used, len(column.levels)) == ("category", True, 1)
        check_reading(cells, column)


def test_copies_are_dropped_whatever_their_type() -> None:
    frame = pd.DataFrame(
        {
            "a": AMOUNTS,
            "b": AMOUNTS.astype(str),
            "c": repeated("x", "y", None, "z"),
            "d": pd.Categorical(repeated("x", "y", None, "z")),
            "e": repeated(0.0, 1.5),
            "f": repeated(-0.0, 1.5),
            "g": repeated("y", "x", None, "z"),
            "target": AMOUNTS + 1,
        }
    )
    reasons = {column.name: column.reason for column in infer_schema(frame, "target").columns}
    assert {name for name, reason in reasons.items() if "copy" in reason} == {"b", "d", "f"}
    assert reasons["b"] == "a copy of column 'a'"


@pytest.mark.parametrize(
    ("cells", "target"),
    [
        (AMOUNTS, AMOUNTS),
        (repeated("a", "b"), repeated("a", "b")),
        (repeated("yes", "no"), repeated("yes", "no")),
        (repeated(0, 1), repeated(False, True)),
    ],
)
def test_a_copy_of_the_target_is_doubted(cells: Any, target: Any) -> None:
    schema = infer_schema(pd.DataFrame({"leak": cells, "target": target}), "target")
    assert "equal to the target" in schema.columns[0].reason
    assert schema.columns[0].used


def test_numbers_with_some_text_are_a_category_and_it_is_said_aloud() -> None:
    cells = repeated("1", "2", "3", "4", "5", "6", "7", "unknown")
    with pytest.warns(DropkitWarning, match=r"taken as a category.*5 of 40.*row 8, 'unknown'"):
        column = judged(cells)
    assert column.kind == "category"
    assert "5 of 40 cells are no number (first: row 8, 'unknown')" in column.reason
    with pytest.warns(DropkitWarning, match="is left out"):
        assert not judged(["unknown", *AMOUNTS[1:].astype(str)]).used


def test_amounts_with_signs_are_left_out_and_it_is_said_aloud() -> None:
    cells = [f"${place},{place:03d}" for place in range(1, ROWS + 1)]
    with pytest.warns(DropkitWarning, match=r"looks like numbers with signs .*\$1,001"):
        assert not judged(cells).used


def test_mixed_types_fall_back_to_a_category_with_a_reason() -> None:
    column = judged(repeated("a", 2.5, True, dt.date(2024, 1, 1)))
    assert column.kind == "category"
    assert column.reason == "mixed types (bool, date, float, str), taken as text"
    assert column.levels == ("2.5", "2024-01-01", "True", "a")


def test_levels_are_sorted_by_how_often_they_come_then_by_nature() -> None:
    cells = ["b", "a", "c", "c"] * (ROWS // 4)
    assert judged(cells).levels == ("c", "a", "b")
    assert judged(repeated(10, 9, 2, 1), told="category").levels == ("1", "2", "9", "10")


def test_dates_say_how_they_are_read_and_what_else_they_could_be() -> None:
    clear, unclear = ["01/31/2024", "12/01/2024"], ["01/02/2024", "03/04/2024"]
    assert judged(repeated(*clear)).reason.endswith("read as month/day/year")
    assert judged(repeated(*unclear)).reason.endswith("(day/month/year fits as well)")
    british = judged(repeated("31/01/2024", "01/12/2024"))
    assert british.layout == "%d/%m/%Y"
    new = pd.DataFrame({"x": ["01/02/2024", "2024-02-01", pd.Timestamp("2024-02-01")]})
    assert typed(new, british).dt.month.tolist() == [2, 2, 2]


def test_times_are_moved_to_utc_and_far_dates_to_what_can_be_held() -> None:
    zoned = judged(repeated("2024-01-01T00:00:00+01:00", "2024-02-01T00:00:00Z"))
    frame = pd.DataFrame({"x": ["2024-01-01T00:00:00+01:00", "9999-12-31", "0001-01-01"]})
    expected = ["2023-12-31 23:00:00", "2262-04-11", "1677-09-22"]
    assert typed(frame, zoned).tolist() == [pd.Timestamp(moment) for moment in expected]


# --- overrides ------------------------------------------------------------------------------

TOLD: list[tuple[Any, str, str, bool]] = [
    (repeated(1, 2, 3, 4), "category", "category", True),
    (repeated(1.0, 2.0, np.nan, 4.0), "category", "category", True),
    ([f"name{place}" for place in range(ROWS)], "category", "category", True),
    (np.arange(ROWS), "number", "number", True),
    (repeated(0, 1), "number", "number", True),
    (repeated("007", "008"), "number", "number", True),
    (repeated("yes", "no"), "boolean", "boolean", True),
    (repeated("1", "no"), "boolean", "boolean", True),
    (repeated(20240131, 20240201), "date", "date", True),
    (repeated("20240131", "20240201"), "date", "date", True),
    (AMOUNTS, "drop", "number", False),
    (AMOUNTS, "id", "number", False),
    (repeated("a"), "category", "category", False),
    (repeated("?"), "number", "category", False),
]


@pytest.mark.parametrize(("cells", "told", "kind", "used"), TOLD)
def test_the_user_has_the_last_word(cells: Any, told: str, kind: str, used: bool) -> None:
    column = judged(cells, told=told)
    assert (column.kind, column.used) == (kind, used)
    if used:
        check_reading(cells, column)


@pytest.mark.parametrize(
    ("cells", "told", "message"),
    [
        (repeated("1", "x"), "number", r"cannot be a number: 20 of 40 .*row 2, 'x'"),
        (repeated("yes", "maybe"), "boolean", r"cannot be a boolean: 20 .*row 2, 'maybe'"),
        (repeated(1, 2), "boolean", r"cannot be a boolean: 20 of 40 .*row 2, '2'"),
        (repeated("2024-01-01", "soon"), "date", r"cannot be a date: 20 of 40 .*row 2, 'soon'"),
        (AMOUNTS, "date", "cannot be a date: 40 of 40"),
        (DAYS, "number", "cannot be a number: 40 of 40"),
    ],
)
def test_a_type_that_the_cells_do_not_have(cells: Any, told: str, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        judged(cells, told=told)


def test_wrong_overrides() -> None:
    frame = pd.DataFrame({"height": AMOUNTS, "target": AMOUNTS + 1})
    with pytest.raises(ColumnError, match="did you mean 'height'"):
        infer_schema(frame, "target", types={"heigth": "number"})
    with pytest.raises(SettingError, match="told to be 'numbers'; expected 'category'"):
        infer_schema(frame, "target", types={"height": "numbers"})
    with pytest.raises(SettingError, match="target was told to be 'date'"):
        infer_schema(frame, "target", types={"target": "date"})


def test_the_id_column_is_found() -> None:
    frame = pd.DataFrame({"a": AMOUNTS, "id": range(ROWS), "b": AMOUNTS * 2, "y": AMOUNTS + 1})
    found = id_column(infer_schema(frame, "y"))
    assert found is not None
    assert found.name == "id"
    assert id_column(infer_schema(frame[["a", "b", "y"]], "y")) is None


# --- tables that cannot be used -------------------------------------------------------------


def test_columns_of_arrays_are_named_by_their_place() -> None:
    frame = pd.DataFrame(np.column_stack([AMOUNTS, AMOUNTS**2]))
    frame["y"] = AMOUNTS + 1
    schema = infer_schema(frame, "y")
    assert [column.name for column in schema.columns] == ["0", "1"]
    assert typed(frame, schema.columns[1]).tolist() == (AMOUNTS**2).tolist()
    assert infer_schema(frame, 1).target == "1"  # type: ignore[arg-type]


def test_names_that_clash() -> None:
    frame = pd.DataFrame([[1.5, 2.5, 3.5]] * ROWS, columns=[1, "1", "y"])
    with pytest.raises(ColumnError, match="more than one column called '1'"):
        infer_schema(frame, "y")
    column = Column("1", "number", True, "", 0, 1, "1.5")
    with pytest.raises(ColumnError, match="2 columns called '1'"):
        typed(frame, column)


@pytest.mark.parametrize(
    "cells",
    [
        [np.inf, *AMOUNTS[1:]],
        ["1e400", *AMOUNTS[1:].astype(str)],
        ["inf", *AMOUNTS[1:].astype(str)],
        pd.Series([10**400, *range(1, ROWS)], dtype=object),
        ["-Infinity", *AMOUNTS[1:].astype(str)],
    ],
)
def test_infinite_numbers(cells: Any) -> None:
    with pytest.raises(ColumnError, match=r"'x': 1 of 40 .*no finite number \(first: row 1, "):
        judged(cells)


def test_complex_numbers() -> None:
    with pytest.raises(ColumnError, match="complex numbers"):
        judged(AMOUNTS + 1j)


def test_nothing_left_to_learn_from() -> None:
    frame = pd.DataFrame({"a": repeated(1), "y": AMOUNTS})
    with pytest.raises(ColumnError, match=r"no column to learn from.*'a': constant"):
        infer_schema(frame, "y")
    with pytest.raises(ColumnError, match="no column to learn from"):
        infer_schema(frame[["y"]], "y")


def test_a_row_count_alone_may_be_a_time_axis() -> None:
    schema = infer_schema(pd.DataFrame({"day": range(ROWS), "y": AMOUNTS}), "y")
    assert schema.used[0].name == "day"
