"""Metrics by which validation judges, each as a loss, with an error that holds for any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel import Stream, derive
from dropkit.records import Schema

_GROUPS = 20
"""Groups of the delete-group jackknife; more of them change the error by a few per cent."""

Loss = Callable[[Tensor, Tensor], float]


def log_loss(prediction: Tensor, truth: Tensor) -> float:
    """Mean negative log-probability of the true class."""
    hit = prediction.gather(1, truth.unsqueeze(1)).clamp_min(1e-15)
    return -float(hit.log().mean())


def error_rate(prediction: Tensor, truth: Tensor) -> float:
    """1 - accuracy."""
    return 1.0 - float((prediction.argmax(1) == truth).double().mean())


def balanced_error(prediction: Tensor, truth: Tensor) -> float:
    """1 - the mean over classes present of the class's recall."""
    hit = (prediction.argmax(1) == truth).double()
    counts = truth.bincount(minlength=prediction.shape[1])
    hits = truth.bincount(hit, minlength=prediction.shape[1])
    return 1.0 - float((hits / counts)[counts > 0].mean())


def ranking_error(prediction: Tensor, truth: Tensor) -> float:
    """1 - area under the ROC curve, ties counted half; 0.5 where a class is absent."""
    positive = truth == 1
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return 0.5
    losers = prediction[~positive, 1].sort().values
    winners = prediction[positive, 1].contiguous()
    below = torch.searchsorted(losers, winners) + torch.searchsorted(losers, winners, right=True)
    return 1.0 - float(below.sum()) / 2 / pairs


def root_mean_squared_error(prediction: Tensor, truth: Tensor) -> float:
    """Square root of the mean squared error."""
    error = prediction - truth
    unit = _unit(error)
    return float((error / unit).square().mean().sqrt()) * unit


def mean_absolute_error(prediction: Tensor, truth: Tensor) -> float:
    """Mean absolute error."""
    return float((prediction - truth).abs().mean())


def unexplained(prediction: Tensor, truth: Tensor) -> float:
    """1 - R2: the squared error as a share of the target's variance."""
    unit = _unit(truth - truth.mean())
    spread = ((truth - truth.mean()) / unit).square().mean().clamp_min(1e-300)
    return float(((prediction - truth) / unit).square().mean() / spread)


def _unit(values: Tensor) -> float:
    """A power of two near the largest magnitude. Dividing by it is exact, and then squares of very
    large or small values neither overflow nor vanish."""
    largest = float(values.abs().max()) if len(values) else 0.0
    return (
        math.ldexp(1.0, max(-1021, math.frexp(largest)[1] - 1)) if 0 < largest < math.inf else 1.0
    )


CLASSIFICATION: dict[str, Loss] = {
    "log_loss": log_loss,
    "accuracy": error_rate,
    "balanced_accuracy": balanced_error,
    "roc_auc": ranking_error,
}
REGRESSION: dict[str, Loss] = {
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": unexplained,
}


def choose(metric: str, schema: Schema) -> str:
    """The metric's name, "auto" made plain; raises SettingError if it does not fit the task."""
    names = REGRESSION if schema.task == "regression" else CLASSIFICATION
    if metric == "auto":
        return next(iter(names))
    if metric not in names:
        raise SettingError(
            f"metric {metric!r} does not fit a {schema.task} task; choose one of {', '.join(names)}"
        )
    if metric == "roc_auc" and len(schema.classes) != 2:
        raise SettingError(
            f"metric 'roc_auc' needs two classes, and {schema.target!r} has "
            f"{len(schema.classes)}; try log_loss or balanced_accuracy"
        )
    return metric


@dataclass(frozen=True)
class Judge:
    """A metric on fixed rows: losses of predictions, and the noise of a loss or a difference.

    Predictions are probabilities (rows, classes) or values (rows,), in float64.
    """

    metric: str
    truth: Tensor
    key: int

    def loss(self, prediction: Tensor, rows: Tensor | None = None) -> float:
        """The metric as a loss, over all rows or some."""
        function = CLASSIFICATION.get(self.metric) or REGRESSION[self.metric]
        if rows is None:
            return function(prediction, self.truth)
        return function(prediction[rows], self.truth[rows])

    def replicates(self, prediction: Tensor) -> Tensor:
        """Losses with one group of rows left out, group by group: what the jackknife needs."""
        rows = len(self.truth)
        group = Stream(derive(self.key, rows)).permutation(rows) % min(_GROUPS, rows)
        losses = [self.loss(prediction, group != left) for left in range(min(_GROUPS, rows))]
        return torch.tensor(losses, dtype=torch.float64)


def standard_error(replicates: Tensor) -> float:
    """Standard error by the delete-group jackknife, of a loss or of a difference of two losses."""
    groups = len(replicates)
    if groups < 2:
        return 0.0
    away = replicates - replicates.mean()
    unit = _unit(away)
    return float(((away / unit).square().sum() * (groups - 1) / groups).sqrt()) * unit


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean by Student's t; (-inf, inf) for fewer than two values."""
    count = len(values)
    if count < 2:
        return -float("inf"), float("inf")
    sample = torch.tensor(values, dtype=torch.float64)
    unit = _unit(sample)
    half = student(count - 1) * float((sample / unit).std()) * unit / count**0.5
    return float(sample.mean()) - half, float(sample.mean()) + half


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t (tabulated to 10, then Cornish and Fisher's expansion)."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    if freedom <= len(table):
        return table[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
