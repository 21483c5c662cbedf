"""Columns of a table to tensors that a network can read, and the recipe as plain JSON.

Numbers: centred on the median, scaled by the interquartile range and softly clipped to (-3, 3)
(RealMLP, https://arxiv.org/abs/2407.04491), with the bins of a quantile encoding; a missing
number is the median plus an indicator. Categories: one-hot up to `ONE_HOT` levels, a learned
vector each beyond. Dates: elapsed days, month, weekday, hour. An unknown level is all zeros, or
the vector that rare levels share.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dropkit.errors import DropkitWarning
from dropkit.records import Column, Schema
from dropkit.training.columns import typed
from dropkit.training.layouts import DAYS, TIMES
from dropkit.training.network import Bins, Shape
from dropkit.training.readings import COMPACT, ISO
from dropkit.training.wording import listed, shown

ONE_HOT = 32
"""Most levels that are one-hot encoded; beyond, a learned vector is smaller and regularizes."""
RARE = 3
"""Levels of a many-level category in fewer rows than this share one vector."""
BINS = 96
"""Pieces per number: fine ones tell rows apart that nearly repeat, which an ensemble can afford."""
MANY, BINS_OF_MANY = 10_000, 64
"""Rows beyond which fewer pieces do, and are faster."""
ROWS_PER_BIN = 3
"""A quantile bin is not made smaller than this many rows."""
PIECES, MAPPED = 4096, 1 << 18
"""Most pieces of all numbers together, and most cells of the map from numbers to pieces: so that
the work of a wide table grows with its columns, and no faster."""
_SOFT_LIMIT = 3.0
_NARROWEST = 1e-4
"""Width below which bins are merged: in float32 the place within a narrower one is noise."""

Recipe = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as tensors: numbers (n, a) and flags (n, b) float32, codes (n, c) int64."""

    numbers: Tensor
    flags: Tensor
    codes: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.numbers)

    def __getitem__(self, rows: slice | Tensor) -> Encoded:
        """Some of the rows."""
        return Encoded(self.numbers[rows], self.flags[rows], self.codes[rows])

    def to(self, device: str) -> Encoded:
        """The same rows on another device."""
        return Encoded(self.numbers.to(device), self.flags.to(device), self.codes.to(device))


@dataclass(frozen=True, slots=True)
class Layout:
    """Which feature each encoded column belongs to (a mask drops a feature as a whole)."""

    numbers: tuple[int, ...]
    flags: tuple[int, ...]
    codes: tuple[int, ...]
    levels: tuple[int, ...]
    """Rows of the embedding table of each code column."""


class Encoder:
    """A fitted recipe from a table to `Encoded`; made by `Encoder.fit` or from its own recipes."""

    def __init__(self, schema: Schema, recipes: Sequence[Recipe]) -> None:
        self.schema = schema
        self.recipes = list(recipes)

    @classmethod
    def fit(cls, frame: pd.DataFrame, schema: Schema) -> Encoder:
        """Learn centres, scales, bins and levels from a table (its target is not looked at)."""
        bins = _bins(len(frame), sum(_parts(column) for column in schema.used))
        recipes = [_fit(typed(frame, column), column, bins) for column in schema.used]
        return cls(schema, recipes)

    @property
    def layout(self) -> Layout:
        """Where each feature's encoded columns stand."""
        numbers: list[int] = []
        flags: list[int] = []
        codes: list[int] = []
        levels: list[int] = []
        for feature, recipe in enumerate(self.recipes):
            numbers += [feature] * len(recipe["numbers"])
            flags += [feature] * (len(recipe["onehot"]) + int(recipe["missing"]))
            if recipe["embedded"]:
                codes.append(feature)
                levels.append(1 + len(recipe["embedded"]))
        return Layout(tuple(numbers), tuple(flags), tuple(codes), tuple(levels))

    def bins(self) -> Bins:
        """The quantile bins of all numbers, in float64; a number of one bin is not encoded."""
        scales = [scale for recipe in self.recipes for scale in recipe["numbers"]]
        ends = [torch.tensor(scale["ends"], dtype=torch.float64) for scale in scales]
        counts = torch.tensor([max(0, len(end) - 1) for end in ends], dtype=torch.int64)
        owner = torch.arange(len(ends)).repeat_interleave(counts)
        nothing = torch.zeros(0, dtype=torch.float64)
        slopes = torch.cat([nothing, *(1.0 / end.diff() for end in ends)])
        starts = torch.cat([nothing, *(end[:-1] for end in ends)])
        slope = torch.zeros(len(ends), len(owner), dtype=torch.float64)
        slope[owner, torch.arange(len(owner))] = slopes
        return Bins(slope, -starts * slopes)

    def shape(self, hidden: tuple[int, ...], outputs: int) -> Shape:
        """The network that these columns ask for."""
        layout = self.layout
        return Shape(
            numbers=len(layout.numbers),
            pieces=len(self.bins().offset),
            flags=len(layout.flags),
            levels=layout.levels,
            hidden=hidden,
            outputs=outputs,
        )

    def transform(self, frame: pd.DataFrame) -> Encoded:
        """Encode rows; raises ColumnError for a column that is absent or of another type."""
        numbers: list[np.ndarray] = []
        flags: list[np.ndarray] = []
        codes: list[np.ndarray] = []
        for column, recipe in zip(self.schema.used, self.recipes, strict=True):
            cells = typed(frame, column)
            if recipe["missing"]:
                flags.append(cells.isna().to_numpy(dtype=np.float32))
            elif column.kind != "category":
                cells = _filled(cells, column)
            values = _numbers(cells, column)
            numbers += [
                _scaled(value, scale)
                for value, scale in zip(values, recipe["numbers"], strict=True)
            ]
            if column.kind == "category":
                _warn_unknown(cells, column)
            flags += [_equal(cells, level) for level in recipe["onehot"]]
            if recipe["embedded"]:
                position = {level: code for code, level in enumerate(recipe["embedded"], 1)}
                codes.append(cells.map(position).fillna(0).to_numpy(dtype=np.int64))
        return Encoded(
            _stack(numbers, len(frame), np.float32),
            _stack(flags, len(frame), np.float32),
            _stack(codes, len(frame), np.int64),
        )

    def state(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return {"recipes": self.recipes}

    @classmethod
    def restore(cls, schema: Schema, state: Mapping[str, Any]) -> Encoder:
        """The encoder that `state` describes; KeyError, TypeError or ValueError for nonsense."""
        for column, recipe in zip(schema.used, state["recipes"], strict=True):
            _check(recipe, column)
        return cls(schema, state["recipes"])


def _check(recipe: Recipe, column: Column) -> None:
    """ValueError, or an error of its kin, for a recipe that `_fit` would not have written."""
    if set(recipe) != {"numbers", "missing", "onehot", "embedded"}:
        raise ValueError(f"the recipe of {shown(column.name)} has the parts {listed(recipe)}")
    numbers, onehot, embedded = recipe["numbers"], recipe["onehot"], recipe["embedded"]
    levels = _all_are(str, onehot) and _all_are(str, embedded) and type(recipe["missing"]) is bool
    fits = len(numbers) == _parts(column) and (column.kind == "category" or not onehot + embedded)
    if not (levels and fits and all(map(_is_scale, numbers))):
        raise ValueError(f"the recipe of {shown(column.name)} is none of a {column.kind}")
    if column.layout not in ("", ISO, COMPACT, *(day + time for day in DAYS for time in TIMES)):
        raise ValueError(f"the layout of {shown(column.name)} is {shown(column.layout)}")


def _is_scale(scale: Mapping[str, Any]) -> bool:
    """Whether it is a centre, a spread, and ends of bins that rise by more than `_NARROWEST`."""
    center, spread, ends = scale["center"], scale["spread"], scale["ends"]
    if not (_all_are(float, [center, spread]) and _all_are(float, ends)):
        return False
    finite = np.isfinite([center, spread, *ends]).all()
    return bool(finite and spread > 0 and (np.diff(ends) > _NARROWEST).all())


def _all_are(kind: type, values: object) -> bool:
    """Whether it is a list of nothing else."""
    return type(values) is list and all(type(value) is kind for value in values)


def _parts(column: Column) -> int:
    """How many numbers stand for a cell of a column."""
    return {"category": 0, "date": 4}.get(column.kind, 1)


def _bins(rows: int, numbers: int) -> int:
    """Pieces of each of so many numbers; one piece is none."""
    finest = BINS if rows <= MANY else BINS_OF_MANY
    room = min(PIECES, MAPPED // max(1, numbers)) // max(1, numbers)
    return max(1, min(finest, max(2, rows // ROWS_PER_BIN), room))


def _fit(cells: pd.Series, column: Column, bins: int) -> Recipe:
    recipe: Recipe = {"numbers": [], "missing": False, "onehot": [], "embedded": []}
    if column.kind == "category":
        counts = cells.value_counts()
        levels = [str(level) for level in counts.index]
        if len(levels) <= ONE_HOT:
            recipe["onehot"] = levels
        else:
            recipe["embedded"] = [str(level) for level in counts.index[counts >= RARE]]
    else:
        recipe["numbers"] = [_fit_number(value, bins) for value in _numbers(cells, column)]
    recipe["missing"] = bool(cells.isna().any())
    return recipe


def _numbers(cells: pd.Series, column: Column) -> list[np.ndarray]:
    """The numbers that stand for a cell: itself, or the parts of a date; none for a category."""
    if column.kind == "category":
        return []
    if column.kind != "date":
        return [cells.to_numpy(dtype=np.float64)]
    days = (cells - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    parts = (days, cells.dt.month, cells.dt.day_of_week, cells.dt.hour)
    return [part.to_numpy(dtype=np.float64) for part in parts]


def _fit_number(values: np.ndarray, bins: int) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if not len(known):  # all cells that hold something were set aside
        return {"center": 0.0, "spread": 1.0, "ends": []}
    low, quarter, median, three, high = np.quantile(known, (0, 0.25, 0.5, 0.75, 1))
    spread = (three - quarter) or (high - low) / 2 or 1.0
    scale = {"center": float(median), "spread": float(spread)}
    ends = _ends(_scaled(known, scale), bins)
    return scale | {"ends": [float(end) for end in ends] if len(ends) > 2 else []}


def _ends(values: np.ndarray, bins: int) -> np.ndarray:
    """Ends of quantile bins in which no single value counts for more than one bin.

    A plain quantile spends nearly all bins of a column that is mostly zero on the zero.
    """
    distinct, counts = np.unique(values, return_counts=True)
    mass = np.minimum(counts, len(values) / bins).cumsum()
    places = np.searchsorted(mass, np.linspace(0, mass[-1], bins + 1) * (1 - 1e-9))
    ends = np.unique(distinct[np.minimum(places, len(distinct) - 1)])
    ends[0] = distinct[0]
    result: np.ndarray = ends[np.concatenate([[True], np.diff(ends) > _NARROWEST])]
    return result


def _scaled(values: np.ndarray, scale: Mapping[str, Any]) -> np.ndarray:
    scaled = np.nan_to_num((values - scale["center"]) / scale["spread"])
    result: np.ndarray = scaled / np.hypot(1.0, scaled / _SOFT_LIMIT)
    return result


def _equal(cells: pd.Series, level: str) -> np.ndarray:
    return (cells == level).to_numpy(dtype=np.float32)


def _filled(cells: pd.Series, column: Column) -> pd.Series:
    """Cells of a column that had no gaps in training, so that no indicator speaks for them now."""
    gaps, boolean = int(cells.isna().sum()), column.kind == "boolean"
    if gaps:
        warnings.warn(
            f"column {shown(column.name)} has {gaps} empty or unknown cell(s), and had none in "
            f"training; they are taken for {'neither level' if boolean else 'its median'}",
            DropkitWarning,
            stacklevel=4,
        )
    return cells.fillna(0.5) if boolean else cells  # the median would be one of the levels


def _warn_unknown(cells: pd.Series, column: Column) -> None:
    unknown = sorted(set(cells.dropna().unique()) - set(column.levels))
    if unknown:
        warnings.warn(
            f"column {shown(column.name)} has {len(unknown)} level(s) that training did not see "
            f"({listed(unknown, 3)}); they are treated as unknown",
            DropkitWarning,
            stacklevel=4,
        )


def _stack(columns: list[np.ndarray], rows: int, kind: type) -> Tensor:
    if not columns:
        return torch.from_numpy(np.zeros((rows, 0), kind))
    return torch.from_numpy(np.stack(columns, 1).astype(kind))
