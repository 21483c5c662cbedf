"""Small tables and populations for the tests of the engine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from dropkit.records import Cocktail, Column, Schema
from dropkit.training.columns import encode_target, infer_schema
from dropkit.training.encoding import Encoded, Layout
from dropkit.training.network import Bins, Inputs, Parameters, Shape, initialize
from dropkit.training.population import Material, Member, Pace, Population
from dropkit.training.search import Search

ALARM = 1e-6
"""How often a test of a random law may fail although the law holds."""

RICH = Cocktail(
    hidden_dropout=0.3,
    input_dropout=0.1,
    weight_decay=0.1,
    learning_rate=5e-3,
    l1=0.01,
    label_smoothing=0.05,
    mixup=0.2,
    feature_masking=0.1,
    feature_noise=0.1,
    max_norm=2.0,
    weight_averaging=0.8,
)
"""Every ingredient at once."""
STILL = replace(
    RICH, hidden_dropout=0.0, input_dropout=0.0, mixup=0.0, feature_masking=0.0, feature_noise=0.0
)
"""Every ingredient that draws nothing."""


def within(hits: int, trials: int, chance: float) -> bool:
    """Whether a count obeys Binomial(trials, chance): exact, two-sided, false alarms `ALARM`."""
    law = stats.binom(trials, chance)
    return bool(law.ppf(ALARM / 2) <= hits <= law.isf(ALARM / 2))


def bins_of(*ends: Sequence[float]) -> Bins:
    """Bins of numbers that are cut at these ends."""
    slope = torch.zeros(len(ends), sum(max(0, len(cut) - 1) for cut in ends), dtype=torch.float64)
    offset = torch.zeros(slope.shape[1], dtype=torch.float64)
    piece = 0
    for number, cut in enumerate(ends):
        for low, high in pairwise(cut):
            slope[number, piece], offset[piece] = 1 / (high - low), -low / (high - low)
            piece += 1
    return Bins(slope, offset)


SHAPE = Shape(numbers=2, pieces=5, flags=3, levels=(6,), hidden=(8, 7), outputs=3)
ENDS = ((-1.0, -0.2, 0.1, 2.0), (-1.5, 0.0, 1.0))
LAYOUT = Layout(numbers=(0, 1), flags=(2, 2, 2), codes=(3,), levels=(6,))
"""Two numbers, a category of three levels, a category with learned vectors."""


def rows_of(count: int, key: int = 0) -> Encoded:
    """Random rows of `LAYOUT`."""
    source = torch.Generator().manual_seed(key)
    flags = torch.eye(3)[torch.randint(3, (count,), generator=source)]
    codes = torch.randint(6, (count, 1), generator=source)
    return Encoded(torch.randn(count, 2, generator=source), flags, codes)


def truth_of(rows: Encoded, outputs: int = 3) -> Tensor:
    """A target that the rows determine, but for noise: classes, or for one output values."""
    signal = rows.numbers[:, 0] + rows.flags[:, 0] - 0.5 * rows.numbers[:, 1]
    source = torch.Generator().manual_seed(1)
    signal = signal + 0.5 * torch.randn(len(rows), generator=source)
    if outputs == 1:
        return signal
    return torch.bucketize(signal, signal.quantile(torch.arange(1, outputs) / outputs))


def material(count: int = 32, outputs: int = 3) -> Material:
    rows = rows_of(count)
    shape = replace(SHAPE, outputs=outputs)
    prior = torch.tensor([0.5, 0.3, 0.2]).log() if outputs == 3 else torch.zeros(outputs)
    bins = bins_of(*ENDS).to(torch.float32)
    return Material(rows, truth_of(rows, outputs), LAYOUT, bins, shape, prior)


def folds_of(count: int, folds: int) -> list[Tensor]:
    return [torch.arange(count)[fold::folds] for fold in range(folds)]


def population(
    stuff: Material,
    cocktails: Sequence[Cocktail],
    folds: int = 2,
    *,
    epochs: int = 12,
    patience: float = 1.0,
    evaluations: int = 6,
) -> Population:
    """One member per cocktail, its fold by turns, its start named by its place."""
    members = [Member(cocktail, place % folds, place) for place, cocktail in enumerate(cocktails)]
    pace = Pace(epochs, 8, evaluations, patience)
    return Population(stuff, folds_of(len(stuff.truth), folds), members, pace, key=5)


def trained(one: Population) -> Population:
    while not one.finished:
        one.advance()
    return one


def parameters(shape: Shape = SHAPE, members: int = 3, prior: Tensor | None = None) -> Parameters:
    """Parameters none of which is zero, in float64."""
    if prior is None:
        prior = torch.zeros(shape.outputs)
    start = initialize(shape, prior, range(members))
    source = torch.Generator().manual_seed(2)
    return {
        name: value.double() + 0.3 * torch.randn(value.shape, generator=source).double()
        for name, value in start.items()
    }


def inputs(members: int = 3, count: int = 10, key: int = 0) -> Inputs:
    """Other rows for each member, in float64."""
    each = [rows_of(count, key + member) for member in range(members)]
    return Inputs(
        torch.stack([rows.numbers for rows in each]).double(),
        torch.stack([rows.flags for rows in each]).double(),
        torch.stack([rows.codes for rows in each]),
    )


def mixed(count: int = 64, key: int = 0) -> pd.DataFrame:
    """Columns of every kind with missing cells, and three targets that depend on them."""
    draw = np.random.default_rng(key)
    size, age = draw.normal(size=count), draw.gamma(2.0, 10.0, count).round(1)
    shade = draw.choice(["red", "green", "blue"], count, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame(
        {
            "size": size,
            "age": np.where(draw.random(count) < 0.2, np.nan, age),
            "shade": np.where(draw.random(count) < 0.1, None, shade),
            "sunny": draw.random(count) < 0.5,
            "day": pd.Timestamp("2021-01-01") + pd.to_timedelta(draw.integers(0, 700, count), "D"),
            "town": [f"town {place}" for place in draw.zipf(1.3, count) % 50],
        }
    )
    frame.loc[3, "day"] = pd.NaT
    signal = 2.0 * size + (shade == "red") + 0.2 * draw.normal(size=count)
    frame["amount"] = signal
    frame["rank"] = pd.qcut(signal, 3, labels=["low", "mid", "top"]).astype(object)
    frame["won"] = np.where(signal > np.median(signal), "yes", "no")
    return frame


TARGETS = ("amount", "rank", "won")


def search(frame: pd.DataFrame, target: str, **settings: Any) -> Search:
    """A search on a table of `mixed`, for one of its targets."""
    table = frame.drop(columns=[name for name in TARGETS if name != target], errors="ignore")
    schema = infer_schema(table, target)
    return Search(table, encode_target(table[target], schema), schema, **settings)


def finished(one: Search) -> Search:
    while not one.finished:
        one.advance()
    return one


def text(description: dict[str, Any]) -> dict[str, Any]:
    """A description as it comes back from a file."""
    read: dict[str, Any] = json.loads(json.dumps(description))
    return read


def column(name: str, kind: Any = "number", **about: Any) -> Column:
    """A used column, described by hand."""
    settings = {"used": True, "reason": "", "missing": 0, "distinct": 0, "example": ""} | about
    return Column(name, kind, **settings)


def schema(*columns: Column, rows: int = 0, classes: tuple[str, ...] = ()) -> Schema:
    task = "classification" if classes else "regression"
    return Schema(columns, "target", task, classes, rows)


def equal(first: Parameters, second: Parameters) -> bool:
    """The same names and the same bits; NaN is equal to itself."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name].nan_to_num(math.pi), second[name].nan_to_num(math.pi))
        for name in first
    )
