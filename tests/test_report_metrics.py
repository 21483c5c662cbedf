"""The scores of a report: values as scikit-learn has them, intervals that cover what they claim."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from dropkit.apps.report.metrics import METRICS, Interval, Metric, advantage, measure, wilson


def test_wilson_known_answer() -> None:
    found = wilson(0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94331), abs=1e-5)
    assert wilson(1.0, 5).high == 1.0 and wilson(0.0, 5).low == 0.0


def test_log_loss_known_answer() -> None:
    truth = np.array([0.0, 1.0])
    found = measure(METRICS["log_loss"], truth, np.array([[0.5, 0.5], [0.75, 0.25]]))
    mean, half = np.log(2) * 1.5, np.log(2) / 2
    assert found.value == pytest.approx(mean)
    assert found.high - found.value == pytest.approx(
        12.706 * half
    )  # Student's, 1 degree of freedom


def test_a_certain_mistake_costs_a_finite_log_loss() -> None:
    wrong = measure(METRICS["log_loss"], np.array([0.0, 0.0]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert wrong.value == pytest.approx(-np.log(1e-15))


def test_rmse_known_answer() -> None:
    found = measure(METRICS["rmse"], np.zeros(4), np.array([[1.0], [1.0], [1.0], [3.0]]))
    root = sqrt(3.0)  # squares 1, 1, 1, 9: mean 3, standard deviation 4; delta method
    assert found.value == pytest.approx(root)
    assert found.high - found.value == pytest.approx(3.182 * 4 / 2 / root / 2)


def paired(metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator, rows = np.random.default_rng(3), 80
    if metric.task == "regression":
        truth = generator.normal(size=rows)
        noise = generator.normal(size=(rows, 2))
        return truth, (truth + 0.5 * noise[:, 0])[:, None], (truth + 0.7 * noise[:, 1])[:, None]
    codes = 2 if metric.name == "roc_auc" else 3
    truth = generator.integers(0, codes, rows).astype(float)
    both = generator.dirichlet(np.ones(codes), (2, rows))
    both[:, np.arange(rows), truth.astype(int)] += 0.5
    both = (both / both.sum(axis=2, keepdims=True)).round(2)  # ties, for the AUC
    return truth, both[0], both[1]


ORACLES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "log_loss": lambda truth, said: -np.log(said[np.arange(len(truth)), truth.astype(int)]).mean(),
    "accuracy": lambda truth, said: oracle.accuracy_score(truth, said.argmax(axis=1)),
    "balanced_accuracy": lambda truth, said: oracle.balanced_accuracy_score(
        truth, said.argmax(axis=1)
    ),
    "roc_auc": lambda truth, said: oracle.roc_auc_score(truth, said[:, 1]),
    "rmse": lambda truth, said: oracle.root_mean_squared_error(truth, said[:, 0]),
    "mae": lambda truth, said: oracle.mean_absolute_error(truth, said[:, 0]),
    "r2": lambda truth, said: oracle.r2_score(truth, said[:, 0]),
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_metric_agrees_with_its_oracle(metric: Metric) -> None:
    truth, ours, _ = paired(metric)
    expected = ORACLES[metric.name](truth, ours)
    assert measure(metric, truth, ours).value == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_influences_give_the_standard_error_that_the_jackknife_gives(metric: Metric) -> None:
    """For the score and for the paired difference; the jackknife needs no law."""
    truth, ours, theirs = paired(metric)
    rows = len(truth)

    def jackknife(statistic: Callable[[np.ndarray], float]) -> float:
        left_out = [statistic(np.delete(np.arange(rows), row)) for row in range(rows)]
        return sqrt((rows - 1) * float(np.var(left_out)))

    def score(keep: np.ndarray, said: np.ndarray) -> float:
        return metric.influence(truth[keep], said[keep])[0]

    single = metric.influence(truth, ours)[1]
    expected = jackknife(lambda keep: score(keep, ours))
    assert single.std(ddof=1) / sqrt(rows) == pytest.approx(expected, rel=0.06)
    found = advantage(metric, truth, ours, theirs)
    reach = 1.96 * jackknife(lambda keep: score(keep, ours) - score(keep, theirs))
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.06)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_the_better_predictions_have_the_advantage(metric: Metric) -> None:
    truth, ours, _ = paired(metric)
    blank = np.tile(ours.mean(axis=0), (len(truth), 1))
    assert advantage(metric, truth, ours, blank).low > 0
    assert advantage(metric, truth, blank, ours).high < 0
    assert advantage(metric, truth, ours, ours) == Interval(0.0, 0.0, 0.0)


def test_the_interval_of_a_paired_difference_covers_zero_when_it_should() -> None:
    """400 tables on which two models are equally good: about 5 % may say otherwise.

    With 400 draws, more than 38 or fewer than 6 have a chance below 0.1 % each way.
    """
    generator, metric, misses = np.random.default_rng(0), METRICS["rmse"], 0
    for _ in range(400):
        truth = generator.normal(size=150)
        ours, theirs = (truth + generator.normal(size=150) for _ in range(2))
        found = advantage(metric, truth, ours[:, None], theirs[:, None])
        misses += not found.low <= 0 <= found.high
    assert 6 <= misses <= 38


def coverage(metric: str, positives: int, negatives: int, tables: int = 400) -> float:
    """How often the interval of a score holds the score of infinitely many rows."""
    source = np.random.default_rng(0)
    truth = np.repeat([1.0, 0.0], [positives, negatives])
    hits = 0
    for _ in range(tables):
        score = source.normal(size=len(truth)) + 1.5 * truth
        chance = 1 / (1 + np.exp(-1.5 * (score - 0.75)))
        found = measure(METRICS[metric], truth, np.stack([1 - chance, chance], 1))
        true = stats.norm.cdf(1.5 / sqrt(2)) if metric == "roc_auc" else stats.norm.cdf(0.75)
        hits += found.low <= true <= found.high
    return hits / tables


@pytest.mark.parametrize("metric", ["roc_auc", "balanced_accuracy", "accuracy"])
@pytest.mark.parametrize(("positives", "negatives"), [(3, 8), (6, 51), (10, 90), (40, 40)])
def test_intervals_cover_what_they_claim(metric: str, positives: int, negatives: int) -> None:
    """Mutants: variances that vanish when a small class is predicted without a mistake."""
    assert coverage(metric, positives, negatives) >= 0.92


def test_a_perfect_ranking_of_few_rows_is_not_certain() -> None:
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    found = measure(METRICS["roc_auc"], truth, np.stack([1 - truth, truth], 1))
    assert found.low < 0.7 and found.value == found.high == 1.0


@pytest.mark.parametrize("rows", [4, 10, 40])
def test_equal_rivals_are_rarely_told_apart(rows: int) -> None:
    """Mutant: the normal law's quantile, with which one comparison in four of 4 rows was wrong."""
    source, wrong = np.random.default_rng(1), 0
    for _ in range(400):
        truth = source.normal(size=rows)
        ours, theirs = (truth[:, None] + source.normal(size=(rows, 1)) for _ in range(2))
        found = advantage(METRICS["rmse"], truth, ours, theirs)
        wrong += not found.low <= 0 <= found.high
    assert wrong / 400 <= 0.12
