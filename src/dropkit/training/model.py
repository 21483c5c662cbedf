"""The fitted predictor: an encoder, the networks that validation chose, and their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.records import Column, Schema
from dropkit.training.encoding import Encoded, Encoder
from dropkit.training.ensemble import temper
from dropkit.training.network import Bins, Inputs, Parameters, Shape, forward, sizes
from dropkit.training.outputs import Readout
from dropkit.training.thinning import Kind, Network, Rates, draws

_CELLS = 1 << 22
"""Activations at a time, over all networks: what a prediction needs of memory."""
_ROUNDING = 1e-6
"""Shares that sum to 1 may miss it by this much."""


Varied = Literal["", "masks", "networks", "masks and networks"]


class Model:
    """An ensemble of networks of one shape that predicts in evaluation mode, or is sampled.

    Both are computed in float64 on the CPU, so that a row's prediction depends neither on the
    rows beside it nor on the device of training. There is no mode to forget: `predict` has no way
    in for masks, and `draws` always has them.
    """

    def __init__(
        self,
        schema: Schema,
        encoder: Encoder,
        readout: Readout,
        shape: Shape,
        networks: Parameters,
        shares: Sequence[float],
        temperature: float,
        rates: Sequence[Rates] | None,
    ) -> None:
        self.schema = schema
        self._encoder, self._readout, self._shape = encoder, readout, shape
        self._networks = {name: value.cpu() for name, value in networks.items()}
        self._shares = tuple(shares)
        self._temperature = temperature
        self.rates = None if rates is None else tuple(rates)
        """Dropout rates of each network; None of a model that was saved before they were kept."""

    @classmethod
    def of(
        cls,
        schema: Schema,
        encoder: Encoder,
        readout: Readout,
        shape: Shape,
        trials: Sequence[tuple[Parameters, float, Rates]],
        temperature: float,
    ) -> Model:
        """An ensemble of trials; a trial's weight is shared among its folds' networks."""
        networks = {
            name: torch.cat([weights[name] for weights, _, _ in trials]) for name in sizes(shape)
        }
        counts = [len(next(iter(weights.values()))) for weights, _, _ in trials]
        each = list(zip(trials, counts, strict=True))
        shares = [weight / count for (_, weight, _), count in each for _ in range(count)]
        rates = [rates for (_, _, rates), count in each for _ in range(count)]
        return cls(schema, encoder, readout, shape, networks, shares, temperature, rates)

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Class probabilities (rows, classes), or values (rows,), in float64.

        Columns are found by name; a target or further columns may be present. A level that
        training has not seen counts as unknown, with a DropkitWarning.

        Raises ColumnError for a column that is absent or of another type.
        """
        return self.read(self.encode(frame))

    def encode(self, frame: pd.DataFrame) -> Encoded:
        """Rows as the networks read them; warns and raises as `predict` does."""
        return self._encoder.transform(frame)

    @property
    def scale(self) -> float:
        """The standard deviation of the values that it learned from; 1 of classes."""
        return self._readout.spread

    @property
    def varied(self) -> Varied:
        """What makes its draws differ; empty: nothing does.

        Raises SettingError if the dropout rates are not known.
        """
        rates = self._known_rates()
        several = sum(share > 0 for share in self._shares) > 1
        drops = any(any(rate) for rate, share in zip(rates, self._shares, strict=True) if share)
        if drops:
            return "masks and networks" if several else "masks"
        return "networks" if several else ""

    def draws(self, rows: Encoded, count: int, key: int, first: int = 0) -> Tensor:
        """Passes with dropout on: probabilities (draws, rows, classes), or values (draws, rows).

        They are not tempered. Draw t is one network, taken so that after each draw all networks
        have had their shares to within one draw, thinned by masks of `derive(key, t)` at the
        rates at which it was trained, and the same for all rows. Nothing else enters: not the
        other rows, not the number of draws. `first` starts at a later draw, to replay it alone.

        Raises SettingError for fewer than one draw, if the dropout rates are not known, and if
        all draws would be the same: one network without dropout.
        """
        if count < 1 or first < 0:
            raise SettingError(
                f"expected 1 draw or more, from the first or a later one; got {count} from {first}"
            )
        self.check_varied()
        stacked = {name: value.double() for name, value in self._networks.items()}
        networks = [
            Network({name: value[place : place + 1] for name, value in stacked.items()}, rates)
            for place, rates in enumerate(self._known_rates())
        ]
        kind = Kind(self._shape, self._encoder.layout, self._encoder.bins(), self._readout)
        return draws(kind, networks, self._shares, rows, key, range(first, first + count))

    def check_varied(self) -> None:
        """Raise SettingError if no draws of it can differ, or if it does not know its rates."""
        if not self.varied:
            raise SettingError(
                "expected a model whose draws can differ; validation chose a single network "
                "without dropout. Fit with a larger budget, or predict without draws."
            )

    def _known_rates(self) -> tuple[Rates, ...]:
        if self.rates is None:
            raise SettingError(
                "expected a model that knows the dropout rates of its networks; this one was saved "
                "by an older dropkit, which did not keep them. Fit it again with `dropkit fit` to "
                "sample it; without draws it predicts as before."
            )
        return self.rates

    def read(self, rows: Encoded) -> np.ndarray:
        """`predict` for rows that are encoded."""
        bins = self._encoder.bins()
        networks = {name: value.double() for name, value in self._networks.items()}
        shares = torch.tensor(self._shares, dtype=torch.float64)
        width = self._shape.pieces + self._shape.plain + sum(self._shape.hidden)
        step = max(1, _CELLS // (width * len(shares)))
        parts = []
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            inputs = Inputs(
                some.numbers.double().expand(len(shares), -1, -1),
                some.flags.double().expand(len(shares), -1, -1),
                some.codes.expand(len(shares), -1, -1),
            )
            parts.append(self._predict(inputs, networks, bins, shares))
        if not parts:
            empty = (0, self._readout.classes) if self._readout.classes else (0,)
            return np.zeros(empty)
        result: np.ndarray = torch.cat(parts).numpy()
        return result

    @torch.no_grad()
    def _predict(self, inputs: Inputs, networks: Parameters, bins: Bins, shares: Tensor) -> Tensor:
        outputs = forward(self._shape, networks, bins, inputs)
        members = self._readout.read(outputs)
        mixed = torch.tensordot(shares, members, dims=1)
        return temper(mixed, self._temperature) if self._readout.classes else mixed

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain JSON values from which `restore` makes the same model."""
        description = {
            "schema": asdict(self.schema),
            "encoder": self._encoder.state(),
            "readout": self._readout.state(),
            "shape": asdict(self._shape),
            "shares": list(self._shares),
            "temperature": self._temperature,
            "rates": None if self.rates is None else [list(rates) for rates in self.rates],
        }
        return {name: value.contiguous() for name, value in self._networks.items()}, description

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Model:
        """The model that `state` describes; KeyError, TypeError or ValueError for nonsense."""
        schema = _schema(description["schema"])
        shape = Shape(**_tuples(description["shape"]))
        shares, temperature = _mixing(description["shares"], description["temperature"])
        for name, size in sizes(shape).items():
            if tuple(tensors[name].shape) != (len(shares), *size):
                raise ValueError(
                    f"tensor {name!r} is {tuple(tensors[name].shape)}, "
                    f"expected {(len(shares), *size)}"
                )
        encoder = Encoder.restore(schema, description["encoder"])
        readout = Readout.restore(description["readout"])
        _agree(schema, encoder, readout, shape)
        return cls(
            schema,
            encoder,
            readout,
            shape,
            {name: tensors[name] for name in sizes(shape)},
            shares,
            temperature,
            _rates(description["rates"], len(shares)),
        )


def _rates(values: Any, count: int) -> list[Rates] | None:
    """The dropout rates of so many networks; ValueError for others."""
    if values is None:
        return None
    if not (type(values) is list and len(values) == count):
        raise ValueError(f"expected the dropout rates of {count} networks, a pair for each")
    for pair in values:
        if not (
            type(pair) is list and len(pair) == 2 and all(type(rate) is float for rate in pair)
        ):
            raise ValueError(f"expected a pair of dropout rates, got {pair!r}")
        if not all(0 <= rate < 1 for rate in pair):
            raise ValueError(f"expected dropout rates from 0 to below 1, got {pair}")
    return [Rates(*pair) for pair in values]


def _mixing(shares: Any, temperature: Any) -> tuple[list[float], float]:
    """Weights of the networks that sum to 1, and a temperature; ValueError for others."""
    if not (type(shares) is list and all(type(one) is float for one in [*shares, temperature])):
        raise ValueError("expected a list of shares and a temperature, all of them numbers")
    if not (min(shares, default=-1.0) >= 0 and math.isclose(sum(shares), 1.0, rel_tol=_ROUNDING)):
        raise ValueError("expected shares that sum to 1, and none below 0")
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    return shares, temperature


def _agree(schema: Schema, encoder: Encoder, readout: Readout, shape: Shape) -> None:
    """ValueError if the parts of a description cannot be of one model."""
    expected = encoder.shape(shape.hidden, readout.outputs)
    if shape != expected:
        raise ValueError(f"the network is {shape}; its columns ask for {expected}")
    if min(shape.hidden, default=0) < 1:
        raise ValueError("the network has no hidden layer, or an empty one")
    if len(encoder.recipes) != len(schema.used) or readout.classes != len(schema.classes):
        raise ValueError("the columns or classes of the description contradict each other")
    if (schema.task == "classification") != bool(readout.classes):
        raise ValueError(f"the task is {schema.task}; the network has {readout.classes} classes")


def _schema(values: Mapping[str, Any]) -> Schema:
    columns = tuple(Column(**_tuples(column)) for column in values["columns"])
    return Schema(**{**_tuples(values), "columns": columns})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
