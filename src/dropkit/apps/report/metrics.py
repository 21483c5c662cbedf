"""The scores of a report: each metric is one row of a table, its value and its influence per row.

The influence of a row is how much it moves the value. Its variance over rows gives the standard
error of the value, and the variance of the difference of two influences gives that of a paired
difference, so that one formula serves every metric and no random numbers are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import numpy.typing as npt

from dropkit.records import Task
from dropkit.training.metrics import student

Array = npt.NDArray[np.float64]
Influence = Callable[[Array, Array], tuple[float, Array]]

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal law."""
TINY = 1e-15
"""Probabilities are clipped to this before their logarithm is taken."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to score predictions."""

    name: str
    title: str
    task: Task
    lower_is_better: bool
    percent: bool
    floor: float
    ceiling: float
    influence: Influence
    """(truth, prediction) to the value and one influence per row; ValueError if it is undefined."""

    @property
    def loss_title(self) -> str:
        """Name of the loss form, in which validation works: lower is better."""
        return self.title if self.lower_is_better else f"1 - {self.title}"

    def from_loss(self, loss: float) -> float:
        """The score whose loss form is `loss`."""
        return loss if self.lower_is_better else 1.0 - loss


def row_log_losses(truth: Array, prediction: Array) -> Array:
    """Negative logarithm of the probability that each row's true class was given."""
    given = prediction[np.arange(len(truth)), truth.astype(int)]
    return np.asarray(-np.log(np.clip(given, TINY, 1.0)), dtype=np.float64)


def _mean(rows: Array) -> tuple[float, Array]:
    return float(rows.mean()), rows - rows.mean()


def _log_loss(truth: Array, prediction: Array) -> tuple[float, Array]:
    return _mean(row_log_losses(truth, prediction))


def _correct(truth: Array, prediction: Array) -> Array:
    return np.asarray(prediction.argmax(axis=1) == truth, dtype=np.float64)


def _accuracy(truth: Array, prediction: Array) -> tuple[float, Array]:
    return _mean(_correct(truth, prediction))


def _balanced_accuracy(truth: Array, prediction: Array) -> tuple[float, Array]:
    correct, present = _correct(truth, prediction), np.unique(truth)
    influence, total = np.zeros(len(truth)), 0.0
    for code in present:
        members = truth == code
        recall = float(correct[members].mean())
        total += recall / len(present)
        influence[members] = (correct[members] - recall) / members.mean() / len(present)
    return total, influence


def _roc_auc(truth: Array, prediction: Array) -> tuple[float, Array]:
    """Placement values (DeLong, DeLong and Clarke-Pearson 1988)."""
    positive, score = truth == 1, prediction[:, -1]
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    if not len(above) or not len(below):
        raise ValueError("the area under the ROC curve needs rows of both classes")
    wins = _shares_below(below, score[positive])
    losses = 1.0 - _shares_below(above, score[~positive])
    area, influence = float(wins.mean()), np.zeros(len(truth))
    influence[positive] = (wins - area) / positive.mean()
    influence[~positive] = (losses - area) / (~positive).mean()
    return area, influence


def _shares_below(ordered: Array, points: Array) -> Array:
    """Share of `ordered` under each point, ties counted half."""
    left, right = (np.searchsorted(ordered, points, side) for side in ("left", "right"))
    return np.asarray((left + right) / (2.0 * len(ordered)), dtype=np.float64)


def _rmse(truth: Array, prediction: Array) -> tuple[float, Array]:
    error = prediction[:, 0] - truth
    size = float(np.abs(error).max()) or 1.0  # squares of very large or small errors do not fit
    mean, influence = _mean((error / size) ** 2)
    root = sqrt(mean)
    return size * root, size * influence / (2.0 * root) if root > 0 else influence


def _mae(truth: Array, prediction: Array) -> tuple[float, Array]:
    return _mean(np.abs(prediction[:, 0] - truth))


def _r2(truth: Array, prediction: Array) -> tuple[float, Array]:
    size = float(np.abs(truth - truth.mean()).max())
    if size == 0:
        raise ValueError("R² needs a target that varies")
    error, error_influence = _mean(((prediction[:, 0] - truth) / size) ** 2)
    spread, spread_influence = _mean(((truth - truth.mean()) / size) ** 2)
    return 1.0 - error / spread, (error * spread_influence / spread - error_influence) / spread


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("log_loss", "log-loss", "classification", True, False, 0.0, inf, _log_loss),
        Metric("accuracy", "accuracy", "classification", False, True, 0.0, 1.0, _accuracy),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            "classification",
            False,
            True,
            0.0,
            1.0,
            _balanced_accuracy,
        ),
        Metric("roc_auc", "ROC AUC", "classification", False, False, 0.0, 1.0, _roc_auc),
        Metric("rmse", "RMSE", "regression", True, False, 0.0, inf, _rmse),
        Metric("mae", "MAE", "regression", True, False, 0.0, inf, _mae),
        Metric("r2", "R²", "regression", False, False, -inf, 1.0, _r2),
    )
}
"""Every metric by which validation can choose, by name."""


def measure(metric: Metric, truth: Array, prediction: Array) -> Interval:
    """The score of predictions with its 95 % interval; ValueError if it is undefined here.

    Accuracy and the area under the ROC curve have score intervals, which are right near 0 and 1 and
    never of no width (Wilson's, and method 5 of Newcombe 2006); the others have Student's.
    """
    value, influence = metric.influence(truth, prediction)
    if metric.name == "accuracy":
        return wilson(value, len(truth))
    if metric.name == "roc_auc":
        return newcombe(value, int((truth == 1).sum()), int((truth != 1).sum()))
    reach = _reach(influence)
    if metric.name == "balanced_accuracy":
        reach = _balanced_reach(truth, prediction)
    low, high = max(metric.floor, value - reach), min(metric.ceiling, value + reach)
    return Interval(value, low, high)


def advantage(metric: Metric, truth: Array, ours: Array, theirs: Array) -> Interval:
    """How much better our predictions score on the same rows; above 0 we are better."""
    (our_value, our_rows), (their_value, their_rows) = (
        metric.influence(truth, prediction) for prediction in (ours, theirs)
    )
    sign = -1.0 if metric.lower_is_better else 1.0
    value, reach = sign * (our_value - their_value), _reach(our_rows - their_rows)
    return Interval(value + 0.0, value - reach, value + reach)  # + 0.0 turns -0.0 into 0.0


def wilson(share: float, rows: int) -> Interval:
    """Wilson's 95 % interval of a share."""
    weight = Z95**2 / rows
    centre = (share + weight / 2) / (1 + weight)
    reach = Z95 * sqrt(share * (1 - share) / rows + weight / (4 * rows)) / (1 + weight)
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach))


def newcombe(area: float, positives: int, negatives: int) -> Interval:
    """95 % interval of an area under the ROC curve: the areas from which it is 1.96 errors away.

    The error is that of Hanley and McNeil 1982 with equal group sizes.
    """
    half = (positives + negatives) / 2 - 1

    def fits(candidate: float) -> bool:
        spread = 1 + half * ((1 - candidate) / (2 - candidate) + candidate / (1 + candidate))
        error = sqrt(candidate * (1 - candidate) * spread / (positives * negatives))
        return abs(area - candidate) <= Z95 * error

    return Interval(area, _edge(fits, area, 0.0), _edge(fits, area, 1.0))


def _edge(fits: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where between `inside` and `outside` a condition ends, by bisection."""
    inside = min(max(inside, 1e-12), 1 - 1e-12)
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if fits(middle) else (inside, middle)
    return inside


def _balanced_reach(truth: Array, prediction: Array) -> float:
    """Half the width of its interval; the variance of each recall is that of (hits + 1) / (n + 2),
    so that a class of one row does not count as certain."""
    correct, variance = _correct(truth, prediction), 0.0
    present = np.unique(truth)
    for code in present:
        hits, rows = float(correct[truth == code].sum()), int((truth == code).sum())
        share = (hits + 1) / (rows + 2)
        variance += share * (1 - share) / rows
    return Z95 * sqrt(variance) / len(present)


def _reach(influence: Array) -> float:
    """Half the width of Student's 95 % interval; infinite from a single row."""
    rows = len(influence)
    if rows < 2:
        return inf
    size = float(np.abs(influence).max()) or 1.0
    return student(rows - 1) * size * float((influence / size).std(ddof=1)) / sqrt(rows)
