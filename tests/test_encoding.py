"""Columns to tensors: robust, reversible from JSON, and the same for a row in any company."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from dropkit.errors import ColumnError, DropkitWarning
from dropkit.training.columns import infer_schema
from dropkit.training.encoding import (
    BINS,
    MAPPED,
    ONE_HOT,
    PIECES,
    RARE,
    ROWS_PER_BIN,
    Encoder,
)
from dropkit.training.network import encode
from workbench import TARGETS, column, mixed, schema, text


def fitted(cells: Any, kind: str = "number", **about: Any) -> tuple[Encoder, pd.DataFrame]:
    frame = pd.DataFrame({"x": cells})
    return Encoder.fit(frame, schema(column("x", kind, **about))), frame


def numbers(cells: Any, new: Any = None) -> np.ndarray:
    """What the network sees of a number."""
    encoder, frame = fitted(cells)
    frame = frame if new is None else pd.DataFrame({"x": new})
    return encoder.transform(frame).numbers.numpy()[:, 0]


def test_a_number_is_centred_scaled_and_softly_clipped() -> None:
    """Mutants: mean and standard deviation; a hard clip, which makes outliers equal."""
    cells = np.append(np.linspace(10, 30, 101), [80.0, 1000.0])
    low, middle, high = np.quantile(cells, (0.25, 0.5, 0.75))
    plain = (cells - middle) / (high - low)
    assert np.allclose(numbers(cells), plain / np.sqrt(1 + (plain / 3) ** 2), atol=1e-6)
    assert 2.9 < numbers(cells)[-1] < 3.0
    assert numbers(cells)[-2] < numbers(cells)[-1]


@settings(max_examples=30, deadline=None)
@given(scale=some.floats(1e-6, 1e6), shift=some.floats(-1e3, 1e3))
def test_units_do_not_matter(scale: float, shift: float) -> None:
    cells = np.random.default_rng(0).gamma(2.0, size=50)
    assert np.allclose(numbers(cells), numbers(scale * (cells + shift)), atol=1e-4)


@pytest.mark.parametrize("outlier", [1e30, 1e200, 1.7e308, -1e200])
def test_an_outlier_stays_at_its_end(outlier: float) -> None:
    """Mutant: a square that overflows, so that the farthest outlier becomes the centre."""
    seen = numbers(np.linspace(-1, 1, 49), [0.0, outlier])
    assert seen[1] == pytest.approx(np.copysign(3.0, outlier), abs=1e-3)


def test_numbers_of_all_magnitudes_stay_finite() -> None:
    """Mutant: an interquartile range that overflows."""
    for cells in (np.linspace(-1, 1, 50) * 1.7e308, np.linspace(-1, 1, 50) * 1e-308):
        seen = numbers(cells)
        assert np.isfinite(seen).all()
        assert (np.diff(seen) >= 0).all()
        assert seen[0] < 0 < seen[-1]


def test_a_missing_number_is_the_median_and_an_indicator() -> None:
    """Mutants: zero before scaling; no indicator."""
    encoder, frame = fitted([1.0, 2.0, 3.0, 4.0, 10.0, np.nan])
    seen = encoder.transform(frame)
    assert seen.numbers[-1] == seen.numbers[2] == 0.0
    assert seen.flags.tolist() == [[0.0]] * 5 + [[1.0]]


def test_there_is_no_indicator_where_nothing_was_missing() -> None:
    encoder, _ = fitted([1.0, 2.0, 3.0, 4.0])
    with pytest.warns(DropkitWarning, match="'x' has 1 empty"):
        seen = encoder.transform(pd.DataFrame({"x": [np.nan, 2.0]}))
    assert seen.flags.shape == (2, 0)
    assert seen.numbers[0] == 0.0


@pytest.mark.parametrize("unknown", [None, "maybe"])
@pytest.mark.filterwarnings("ignore::dropkit.errors.DropkitWarning")
def test_an_unknown_boolean_is_neither_level(unknown: str | None) -> None:
    """Mutant: the median, which is the more frequent level."""
    encoder, _ = fitted(["yes"] * 9 + ["no"] * 3, "boolean", levels=("yes", "no"))
    seen = encoder.transform(pd.DataFrame({"x": ["yes", unknown, "no"]})).numbers[:, 0]
    assert seen[0] > seen[1] > seen[2]


@pytest.mark.parametrize("kind", ["number", "boolean", "date", "category"])
def test_a_column_may_be_empty_in_the_rows_that_train(kind: str) -> None:
    """The schema is judged on all rows; those with the only cells may have been set aside."""
    types: dict[str, Any] = {"number": float, "boolean": float, "date": "datetime64[ns]"}
    cells = pd.Series([None] * 20).astype(types.get(kind, object))
    encoder, frame = fitted(cells, kind, missing=20)
    seen = encoder.transform(frame)
    assert len(seen) == 20
    assert seen.numbers.isfinite().all()


def test_bins_are_quantiles_that_are_never_narrow() -> None:
    """Mutants: equal widths; bins of zero width, whose slope is infinite."""
    draws = np.random.default_rng(0).normal(size=4000)
    encoder, frame = fitted(draws)
    assert encoder.bins().slope.shape == (1, BINS)
    passed = encode(encoder.transform(frame).numbers.double(), encoder.bins())
    inside = ((passed > 0) & (passed < 1)).double().mean(0)
    assert torch.allclose(inside, torch.full_like(inside, 1 / BINS), atol=2e-3)
    tied, _ = fitted(np.repeat([0.0, 1.0, 1.0 + 1e-9, 2.0], 100))
    assert tied.bins().slope.max() <= 1e4


def test_small_tables_have_few_bins() -> None:
    encoder, _ = fitted(np.arange(40.0))
    assert encoder.bins().slope.shape[1] == 40 // ROWS_PER_BIN


@pytest.mark.parametrize("cells", [[0.0] * 15 + [1.0] * 5, [5.0] * 20])
def test_a_number_of_one_bin_is_not_encoded(cells: list[float]) -> None:
    assert fitted(cells)[0].bins().slope.shape == (1, 0)


def test_a_date_is_elapsed_days_month_weekday_and_hour() -> None:
    days = pd.date_range("2020-01-31 06:00", periods=40, freq="31h")
    encoder, frame = fitted(days, "date")
    seen = encoder.transform(frame).numbers.numpy()
    parts = [days.month, days.day_of_week, days.hour]
    assert seen.shape == (40, 4)
    assert (np.diff(seen[:, 0]) > 0).all()
    for place, part in enumerate(parts, 1):
        assert np.allclose(seen[:, place], numbers(np.asarray(part, dtype=float)), atol=1e-6)


def test_a_missing_date_is_the_median_and_an_indicator() -> None:
    days = pd.Series(pd.date_range("2020-01-01", periods=20))
    days[4] = pd.NaT
    encoder, frame = fitted(days, "date")
    seen = encoder.transform(frame)
    assert not seen.numbers[4].any()
    assert seen.flags.sum() == seen.flags[4].sum() == 1


def test_few_levels_are_one_hot() -> None:
    cells = ["a", "b", "c", None, "a"]
    encoder, frame = fitted(cells, "category", levels=("a", "b", "c"), missing=1)
    flags = encoder.transform(frame).flags
    assert flags.shape == (5, 4)
    assert (flags.sum(1) == 1).all()
    assert torch.equal(flags[0], flags[4])
    assert len({tuple(row) for row in flags.tolist()}) == 4


@pytest.mark.parametrize("width", [1, 40, 60, 200, 600])
def test_the_pieces_of_a_wide_table_are_bounded(width: int) -> None:
    """Mutant: as many pieces for each column as if it were the only one."""
    cells = np.random.default_rng(0).normal(size=(400, width))
    frame = pd.DataFrame(cells, columns=[f"x{place}" for place in range(width)])
    schema = infer_schema(frame.assign(y=cells[:, 0] > 0), "y")
    numbers, pieces = Encoder.fit(frame, schema).bins().slope.shape
    assert numbers == width
    assert pieces <= min(PIECES, width * BINS) and numbers * pieces <= MAPPED


@pytest.mark.parametrize("levels", [("a", "b"), ("a", "b", "c")])
def test_an_unknown_level_is_all_zeros_and_said(levels: tuple[str, ...]) -> None:
    """Mutant: one flag for two levels, where an unknown one would be the second."""
    encoder, _ = fitted([*levels] * 3, "category", levels=levels)
    with pytest.warns(DropkitWarning, match=r"'x'.*'zebra'"):
        seen = encoder.transform(pd.DataFrame({"x": ["zebra", "a"]}))
    assert not seen.flags[0].any()
    assert seen.flags[1].any()


def many() -> tuple[Encoder, pd.DataFrame]:
    names = tuple(f"town {place}" for place in range(100))
    cells = [*np.repeat(names[:98], RARE), *names[98:], None]
    return fitted(cells, "category", levels=names, missing=1)


def test_many_levels_have_a_vector_each_but_rare_ones_share() -> None:
    """Mutants: codes from 0, so that a level is 'unknown'; a vector for each rare level."""
    encoder, frame = many()
    seen = encoder.transform(frame)
    assert encoder.layout.levels == (99,)
    assert seen.codes[:, 0].unique().tolist() == list(range(99))
    assert (seen.codes[-3:] == 0).all()
    assert seen.flags[:, 0].tolist() == [0.0] * (len(frame) - 1) + [1.0]
    with pytest.warns(DropkitWarning, match="unknown"):
        new = encoder.transform(pd.DataFrame({"x": ["nowhere", None, "town 7"]}))
    assert (new.codes[:2] == 0).all() and new.codes[2] > 0


@pytest.mark.parametrize("count", [ONE_HOT, ONE_HOT + 1])
def test_the_border_between_few_and_many(count: int) -> None:
    names = tuple(str(place) + "th" for place in range(count))
    encoder, frame = fitted(list(names) * RARE, "category", levels=names)
    seen = encoder.transform(frame)
    assert seen.flags.shape[1] == (count if count == ONE_HOT else 0)
    assert seen.codes.shape[1] == (0 if count == ONE_HOT else 1)


def test_levels_that_are_all_rare_carry_nothing() -> None:
    names = tuple(f"n{place}" for place in range(40))
    encoder, frame = fitted(list(names), "category", levels=names)
    assert encoder.transform(frame).codes.shape == (40, 0)
    assert encoder.layout.levels == ()


def whole() -> tuple[Encoder, pd.DataFrame]:
    frame = mixed(200).drop(columns=["rank", "won"])
    return Encoder.fit(frame, infer_schema(frame, "amount")), frame


def same(first: Any, second: Any) -> bool:
    return all(
        torch.equal(getattr(first, name), getattr(second, name))
        for name in ("numbers", "flags", "codes")
    )


def test_the_layout_names_the_feature_of_each_encoded_column() -> None:
    encoder, frame = whole()
    seen, layout = encoder.transform(frame), encoder.layout
    assert seen.numbers.shape[1] == len(layout.numbers)
    assert seen.flags.shape[1] == len(layout.flags)
    assert seen.codes.shape[1] == len(layout.codes) == len(layout.levels)
    used = [column.name for column in encoder.schema.used]
    assert [layout.numbers.count(used.index(name)) for name in ("size", "age", "day")] == [1, 1, 4]
    assert layout.flags.count(used.index("shade")) == 4  # three levels and missing
    for place, levels in enumerate(layout.levels):
        assert seen.codes[:, place].max() < levels


def test_a_recipe_survives_json() -> None:
    encoder, frame = whole()
    again = Encoder.restore(encoder.schema, text(encoder.state()))
    assert same(again.transform(frame), encoder.transform(frame))
    assert again.layout == encoder.layout
    assert torch.equal(again.bins().slope, encoder.bins().slope)


def test_a_row_is_encoded_alike_in_any_company() -> None:
    """Mutants: scales taken from the new table; levels in order of appearance."""
    encoder, frame = whole()
    order = np.random.default_rng(0).permutation(len(frame))[:50]
    all_rows, some_rows = encoder.transform(frame), encoder.transform(frame.iloc[order])
    for name in ("numbers", "flags", "codes"):
        assert torch.equal(getattr(all_rows, name)[order], getattr(some_rows, name))


def test_the_target_is_not_looked_at() -> None:
    frame = mixed()
    tables = [frame.assign(amount=value) for value in (frame.amount, frame.amount[::-1].to_numpy())]
    recipes = [
        Encoder.fit(table, infer_schema(table.drop(columns=["rank", "won"]), "amount")).recipes
        for table in tables
    ]
    assert recipes[0] == recipes[1]


def test_no_rows_and_further_columns() -> None:
    encoder, frame = whole()
    assert len(encoder.transform(frame.iloc[:0])) == 0
    extra = frame.assign(extra="?")[[*reversed(frame.columns), "extra"]]
    assert same(encoder.transform(extra), encoder.transform(frame))
    with pytest.raises(ColumnError, match="size"):
        encoder.transform(frame.drop(columns="size"))


def test_nothing_is_warned_about_a_table_that_was_trained_on() -> None:
    encoder, frame = whole()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.transform(frame.drop(columns=list(TARGETS), errors="ignore"))
