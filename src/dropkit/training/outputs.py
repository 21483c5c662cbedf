"""How outputs are read: between the target's own units and those the networks learn in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ROOM = 0.05
"""Predictions may leave the range seen in training by this share of it, and no further."""


@dataclass(frozen=True, slots=True)
class Readout:
    """Class logits, or standardized values of a bounded target."""

    classes: int
    """Number of classes; 0 for regression."""
    center: float = 0.0
    spread: float = 1.0
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def fit(cls, truth: np.ndarray, classes: int) -> Readout:
        """Learn the centre and spread of a target."""
        if classes:
            return cls(classes)
        low, high = float(truth.min()), float(truth.max())
        room = _ROOM * (high - low)
        largest = float(np.abs(truth).max()) or 1.0  # else the squares of 1e200 are infinite
        spread = float((truth / largest).std()) * largest or 1.0
        return cls(0, float(truth.mean()), spread, low - room, high + room)

    @property
    def outputs(self) -> int:
        """Width of the output layer."""
        return self.classes or 1

    def learned(self, truth: np.ndarray) -> Tensor:
        """What the networks learn: class codes, or standardized values."""
        if self.classes:
            return torch.from_numpy(truth.astype(np.int64))
        return torch.from_numpy(((truth - self.center) / self.spread).astype(np.float32))

    def judged(self, truth: np.ndarray) -> Tensor:
        """What predictions are compared with: class codes, or values in the target's units."""
        return torch.from_numpy(truth.astype(np.int64 if self.classes else np.float64))

    def prior(self, truth: np.ndarray) -> Tensor:
        """Output of a network that has learned nothing: log class frequencies, or 0."""
        if not self.classes:
            return torch.zeros(1)
        counts = np.bincount(truth.astype(np.int64), minlength=self.classes)
        shares = (counts + 1.0) / (counts.sum() + self.classes)
        return torch.from_numpy(np.log(shares).astype(np.float32))

    def read(self, outputs: Tensor) -> Tensor:
        """Outputs (..., width) to probabilities (..., classes) or values (...,), in float64."""
        if self.classes:
            return outputs.double().softmax(-1).cpu()
        values = outputs[..., 0].double().cpu() * self.spread + self.center
        return values.clamp(self.low, self.high)

    def error(self, loss: float) -> float:
        """A training-unit loss as log-loss, or as root mean squared error in the target's units."""
        return loss if self.classes else loss**0.5 * self.spread

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Readout:
        """The readout that `state` describes; TypeError or ValueError for nonsense."""
        readout = cls(**state)
        bounds = (readout.center, readout.spread, readout.low, readout.high)
        if not (np.isfinite(bounds).all() and readout.spread > 0 and readout.low <= readout.high):
            raise ValueError(f"outputs cannot be read with the centre, spread and bounds {bounds}")
        return readout
