"""The fitted predictor: an encoder, the networks that validation chose, and their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dropkit.records import Column, Schema
from dropkit.training.encoding import Encoded, Encoder
from dropkit.training.ensemble import temper
from dropkit.training.network import Bins, Inputs, Parameters, Shape, forward, sizes
from dropkit.training.outputs import Readout

_CELLS = 1 << 22
"""Activations at a time, over all networks: what a prediction needs of memory."""
_ROUNDING = 1e-6
"""Shares that sum to 1 may miss it by this much."""


class Model:
    """An ensemble of networks of one shape that predicts in evaluation mode, and in no other.

    Predictions are computed in float64 on the CPU, so that a row's prediction depends neither
    on the rows beside it nor on the device of training. Masks have no way in: there is no mode
    to forget.
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
    ) -> None:
        self.schema = schema
        self._encoder, self._readout, self._shape = encoder, readout, shape
        self._networks = {name: value.cpu() for name, value in networks.items()}
        self._shares = tuple(shares)
        self._temperature = temperature

    @classmethod
    def of(
        cls,
        schema: Schema,
        encoder: Encoder,
        readout: Readout,
        shape: Shape,
        trials: Sequence[tuple[Parameters, float]],
        temperature: float,
    ) -> Model:
        """An ensemble of trials; a trial's weight is shared among its folds' networks."""
        networks = {
            name: torch.cat([weights[name] for weights, _ in trials]) for name in sizes(shape)
        }
        counts = [len(next(iter(weights.values()))) for weights, _ in trials]
        shares = [
            weight / count
            for (_, weight), count in zip(trials, counts, strict=True)
            for _ in range(count)
        ]
        return cls(schema, encoder, readout, shape, networks, shares, temperature)

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Class probabilities (rows, classes), or values (rows,), in float64.

        Columns are found by name; a target or further columns may be present. A level that
        training has not seen counts as unknown, with a DropkitWarning.

        Raises ColumnError for a column that is absent or of another type.
        """
        return self.read(self._encoder.transform(frame))

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
        )


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
