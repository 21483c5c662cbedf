"""What sampling a fitted model said of rows that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Calibration:
    """How draws are read, learned on validation rows by networks that did not train on them."""

    rows: int
    draws: int
    temperature: float
    """Divides the log-probabilities of each draw; 1 for values."""
    noise: float
    """Standard deviation of the truth around a draw's value; 0 for classes."""
    scores: tuple[float, ...]
    """Conformity scores of the validation rows, sorted. Classes: 1 minus the mean probability of
    the true class. Values: the distance of the truth from the mean, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Strange:
    """Rows made up to be unlike the table, as draws see them."""

    name: str
    how: str
    """How they were made, in words."""
    epistemic: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What draws say of the rows set aside, one entry for each row that was sampled."""

    varied: Literal["masks", "networks", "masks and networks"]
    """What makes the draws differ."""
    draws: int
    calibration: Calibration
    rows: tuple[int, ...]
    """Which of the holdout's rows; empty without a holdout."""
    prediction: tuple[tuple[float, ...], ...]
    """Means over draws: class probabilities, or a single value."""
    total: tuple[float, ...]
    """Entropy of the mean probabilities in nats, or standard deviation, noise included."""
    epistemic: tuple[float, ...]
    """What the draws disagree about: mutual information in nats, or standard deviation of the
    draws' values."""
    strange: tuple[Strange, ...]
