"""Metrics are scikit-learn's; their errors are the textbook's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.training.metrics import (
    CLASSIFICATION,
    REGRESSION,
    Judge,
    choose,
    standard_error,
    t_interval,
)
from workbench import column, schema

ORACLES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "log_loss": lambda y, p: sk.log_loss(y, p, labels=range(p.shape[1])),
    "accuracy": lambda y, p: 1 - sk.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: 1 - sk.balanced_accuracy_score(y, p.argmax(1)),
    "roc_auc": lambda y, p: 1 - sk.roc_auc_score(y, p[:, 1]),
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "r2": lambda y, p: 1 - sk.r2_score(y, p),
}


def probabilities(rows: int, classes: int, seed: int, digits: int = 17) -> np.ndarray:
    """Random probabilities; with few digits, many ties."""
    draws = np.random.default_rng(seed).random((rows, classes)).round(digits) + 0.05
    shares: np.ndarray = draws / draws.sum(1, keepdims=True)
    return shares


@pytest.mark.parametrize("digits", [17, 1])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("metric", CLASSIFICATION)
def test_classification_is_scikit_learn_s(metric: str, classes: int, digits: int) -> None:
    """Mutants: ties counted as wins; recalls weighted by class size; the score, not the loss."""
    if metric == "roc_auc" and classes > 2:
        pytest.skip("for two classes")
    truth = np.random.default_rng(1).integers(0, classes, 301) * (np.arange(301) % 3 > 0)
    given = probabilities(301, classes, 2, digits)
    judge = Judge(metric, torch.from_numpy(truth), 0)
    assert judge.loss(torch.from_numpy(given)) == pytest.approx(ORACLES[metric](truth, given))


@pytest.mark.parametrize("metric", REGRESSION)
def test_regression_is_scikit_learn_s(metric: str) -> None:
    draw = np.random.default_rng(3)
    truth = draw.normal(5, 2, 200)
    given = truth + draw.normal(size=200)
    judge = Judge(metric, torch.from_numpy(truth), 0)
    assert judge.loss(torch.from_numpy(given)) == pytest.approx(ORACLES[metric](truth, given))
    rows = torch.arange(50, 90)
    assert judge.loss(torch.from_numpy(given), rows) == pytest.approx(
        ORACLES[metric](truth[50:90], given[50:90])
    )


def test_certainty_that_is_wrong_stays_finite() -> None:
    given = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    loss = Judge("log_loss", torch.tensor([1, 0]), 0).loss(given)
    assert 30 < loss < 40


@pytest.mark.parametrize("metric", CLASSIFICATION)
def test_a_class_that_is_absent_among_the_rows_is_no_error(metric: str) -> None:
    given = torch.from_numpy(probabilities(9, 2, 0))
    assert 0 <= Judge(metric, torch.zeros(9, dtype=torch.int64), 0).loss(given) < 10


def test_a_constant_truth_is_no_error() -> None:
    truth = torch.ones(9, dtype=torch.float64)
    assert Judge("r2", truth, 0).loss(truth) == 0.0


def test_auto_is_log_loss_or_rmse() -> None:
    binary = schema(column("x"), classes=("a", "b"))
    triple = schema(column("x"), classes=("a", "b", "c"))
    values = schema(column("x"))
    assert choose("auto", binary) == choose("auto", triple) == "log_loss"
    assert choose("auto", values) == "rmse"
    assert choose("roc_auc", binary) == "roc_auc"
    for metric, table in (
        ("roc_auc", triple),
        ("rmse", binary),
        ("accuracy", values),
        ("x", values),
    ):
        with pytest.raises(SettingError, match=metric):
            choose(metric, table)


def errors(metric: str, make: Callable[[int], tuple[Tensor, Tensor]], times: int) -> list[float]:
    result = []
    for seed in range(times):
        truth, given = make(seed)
        result.append(standard_error(Judge(metric, truth, seed).replicates(given)))
    return result


@pytest.mark.parametrize("rows", [20, 400])
def test_the_error_of_a_mean_is_the_analytic_one(rows: int) -> None:
    """Mutants: groups - 1 left out, an error 19 times too small; standard deviation for error."""

    def make(seed: int) -> tuple[Tensor, Tensor]:
        draw = np.random.default_rng(seed)
        truth = torch.zeros(rows, dtype=torch.float64)
        return truth, torch.from_numpy(draw.exponential(size=rows))

    jackknife = errors("mae", make, 100)
    assert np.sqrt(np.mean(np.square(jackknife))) == pytest.approx(rows**-0.5, rel=0.15)


def test_with_as_many_groups_as_rows_it_is_the_textbook_s_error() -> None:
    values = torch.tensor([0.3, 1.4, 2.2, 5.0], dtype=torch.float64)
    replicates = Judge("mae", torch.zeros(4, dtype=torch.float64), 7).replicates(values)
    assert standard_error(replicates) == pytest.approx(float(stats.sem(values.numpy())))


def test_the_error_of_a_difference_knows_that_the_rows_are_the_same() -> None:
    """Mutant: the errors of both added up, so that nothing is ever told apart."""
    draw = np.random.default_rng(0)
    truth = torch.zeros(400, dtype=torch.float64)
    hard = torch.from_numpy(draw.exponential(size=400))
    judge = Judge("mae", truth, 0)
    behind = judge.replicates(hard + 0.01) - judge.replicates(hard)
    assert standard_error(behind) < 1e-9
    assert float(behind.mean()) == pytest.approx(0.01)


def test_one_group_has_no_error() -> None:
    assert standard_error(torch.tensor([3.0])) == 0.0


@pytest.mark.parametrize("count", [2, 3, 5, 8, 11, 12, 20, 50])
def test_the_interval_is_student_s(count: int) -> None:
    """Mutants: the normal's 1.96; the population's standard deviation; freedom off by one."""
    values = np.random.default_rng(count).normal(3, 2, count)
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert t_interval(values.tolist()) == pytest.approx(expected, rel=2e-3)


def test_one_value_tells_nothing_of_its_spread() -> None:
    assert t_interval([1.0]) == (-float("inf"), float("inf"))


@pytest.mark.parametrize("unit", [1e-170, 1e-3, 1.0, 1e160])
def test_units_of_the_target_do_not_matter(unit: float) -> None:
    """Mutant: squares in the target's units, which vanish or overflow."""
    draws = torch.randn(2, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth, prediction = draws[0], draws.sum(0)
    plain, scaled = Judge("rmse", truth, 0), Judge("rmse", truth * unit, 0)
    assert scaled.loss(prediction * unit) == pytest.approx(plain.loss(prediction) * unit)
    errors = [
        standard_error(judge.replicates(prediction * size))
        for judge, size in ((plain, 1.0), (scaled, unit))
    ]
    assert errors[1] == pytest.approx(errors[0] * unit)
    explained = Judge("r2", truth * unit, 0).loss(prediction * unit)
    assert explained == pytest.approx(Judge("r2", truth, 0).loss(prediction))
