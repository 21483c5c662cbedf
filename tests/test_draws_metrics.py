"""Metrics of draws: what scikit-learn and the definitions say, and what each is at its ends."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior import metrics
from dropkit.posterior.draws import Draws
from made_up_draws import chance, classes, noise

LOGITS = 2 * noise(6, 400, 4)
SHARES = LOGITS.softmax(-1).mean(0)
TRUTH = classes(SHARES, seed=1)
DRAWS = Draws.of(LOGITS, outputs="logits")
VALUES = Draws.of(noise(30, 200) * (0.1 + chance(200, seed=2)))
TARGETS = noise(200, seed=3)


def certain(*rows: list[float]) -> Draws:
    """One draw of probabilities of two classes, the first as given."""
    p = torch.tensor(rows, dtype=torch.float64).flatten()
    return Draws.of(torch.stack([p, 1 - p], -1).unsqueeze(0), outputs="probabilities")


def test_likelihood_and_brier_are_scikit_learns() -> None:
    """Mutants: the mean over classes for the sum; the score of the logits."""
    p, labels = SHARES.numpy(), list(range(4))
    assert metrics.negative_log_likelihood(DRAWS, TRUTH) == pytest.approx(
        log_loss(TRUTH, p, labels=labels), rel=1e-10
    )
    two = certain([0.9, 0.2, 0.6])
    first = brier_score_loss([1, 0, 0], [0.9, 0.2, 0.6], pos_label=1)
    assert metrics.brier(two, torch.tensor([0, 1, 1])) == pytest.approx(2 * first, rel=1e-12)
    onehot = np.eye(4)[TRUTH.numpy()]
    assert metrics.brier(DRAWS, TRUTH) == pytest.approx(((p - onehot) ** 2).sum(1).mean())


def test_calibration_error_by_hand() -> None:
    """Mutants: bins of equal counts; a bin's middle for its mean; unweighted bins; lower ends."""
    draws = certain([0.95, 0.85, 0.8, 0.4])  # said: first, first, first, second with 0.6
    truth = torch.tensor([0, 0, 1, 0])
    bins = metrics.reliability(draws, truth, bins=5)
    assert bins.rows.tolist() == [1, 1, 2]  # (0.4, 0.6], (0.6, 0.8], (0.8, 1.0]
    assert bins.observed.tolist() == [0, 0, 1]
    expected = (0.6 + 0.8 + abs(0.95 + 0.85 - 2)) / 4
    assert metrics.expected_calibration_error(draws, truth, bins=5) == pytest.approx(expected)


def test_certain_and_right_is_perfect() -> None:
    draws, truth = certain([1.0, 0.0, 1.0]), torch.tensor([0, 1, 0])
    assert metrics.expected_calibration_error(draws, truth) == 0
    assert metrics.brier(draws, truth) == metrics.negative_log_likelihood(draws, truth) == 0
    assert metrics.aurc(draws, truth) == 0
    with pytest.raises(SettingError, match="some row with an error; got none"):
        metrics.ause(draws, truth)


def test_a_calibrated_model_has_the_error_that_its_page_says() -> None:
    """Mutant: the square root of the mean square, which is above it. A bent model has more."""
    rows, found = 3000, []
    for seed in range(40):
        p = (1.5 * noise(rows, 3, seed=seed)).softmax(-1)
        draws = Draws.of(p.unsqueeze(0), outputs="probabilities")
        truth = classes(p, seed=1000 + seed)
        found.append(metrics.expected_calibration_error(draws, truth))
    assert 0.6 < float(np.mean(found)) / (0.4 * math.sqrt(15 / rows)) < 1
    assert metrics.expected_calibration_error(draws.tempered(0.4), truth) > 3 * max(found)


# ---- the order of rows


def test_risk_over_coverage_by_hand() -> None:
    """Mutants: the most uncertain kept; the area as the last risk."""
    draws, truth = certain([0.99, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 0, 1])
    curve = metrics.risk_coverage(draws, truth)
    assert curve.share.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.loss.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.ideal.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert metrics.aurc(draws, truth) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_rows_as_uncertain_as_each_other_are_in_no_order() -> None:
    """Mutant: a sort that keeps the rows as they came: then sorted rows look perfect."""
    losses = torch.arange(50.0, dtype=torch.float64)
    draws = Draws.of(torch.zeros(2, 50))
    same = metrics.risk_coverage(draws, losses.sqrt(), by=torch.ones(50))
    assert torch.allclose(same.loss, torch.full((50,), float(losses.mean())).double())
    by = (torch.arange(50) // 10).double()
    turned = metrics.aurc(draws, losses.sqrt().flip(0), by=by.flip(0))
    assert metrics.aurc(draws, losses.sqrt(), by=by) == pytest.approx(turned, rel=1e-12)


@pytest.mark.parametrize(("draws", "truth"), [(DRAWS, TRUTH), (VALUES, TARGETS)])
def test_no_order_beats_the_ideal_one(draws: Draws, truth: Tensor) -> None:
    errors = (
        (draws.mean - truth).square()
        if draws.outputs == "values"
        else (draws.probabilities.argmax(-1) != truth).double()
    )
    for by in ("auto", "epistemic", torch.arange(len(truth)).double()):
        curve = metrics.sparsification(draws, truth, by)
        assert bool((curve.loss >= curve.ideal - 1e-12).all())
        assert float(curve.loss[-1]) == pytest.approx(1) == float(curve.ideal[-1])
        assert metrics.ause(draws, truth, by) > 0
    perfect = errors + 1e-9 * torch.arange(len(truth)) * (errors == errors.max())
    assert metrics.ause(draws, truth, perfect) == pytest.approx(0, abs=1e-9)
    assert metrics.ause(draws, truth, -errors) > metrics.ause(draws, truth)


def test_sparsification_is_of_the_root() -> None:
    curve = metrics.sparsification(Draws.of(torch.zeros(2, 2)), torch.tensor([1.0, 3.0]),
                                   by=torch.tensor([0.0, 1.0]))  # fmt: skip
    assert curve.loss.tolist() == pytest.approx([math.sqrt(1 / 5), 1]) and curve.name == "RMSE"


def test_an_uncertainty_fits_its_targets() -> None:
    with pytest.raises(SettingError, match=r"shape, \(400,\); got \(4,\)"):
        metrics.aurc(DRAWS, TRUTH, by=torch.ones(4))
    with pytest.raises(SettingError, match="got 'doubt'"):
        metrics.aurc(DRAWS, TRUTH, by="doubt")
    with pytest.raises(SettingError, match="got NaN"):
        metrics.aurc(DRAWS, TRUTH, by=torch.full((400,), math.nan))
    with pytest.raises(SettingError, match='got outputs="values"'):
        metrics.brier(VALUES, TARGETS.long())
    with pytest.raises(SettingError, match="1 or more; got 0"):
        metrics.reliability(DRAWS, TRUTH, bins=0)


# ---- intervals and CRPS


def test_intervals_hold_their_ends() -> None:
    low, high = torch.tensor([0.0, 0, 0]), torch.tensor([1.0, 1, 3])
    assert metrics.interval_coverage((low, high), torch.tensor([1.0, 2.0, 0.0])) == 2 / 3
    assert metrics.interval_width((low, high)) == pytest.approx(5 / 3)
    with pytest.raises(SettingError, match="the intervals' shape"):
        metrics.interval_coverage((low, high), torch.ones(3, 1))


def test_crps_is_its_definition_over_all_pairs() -> None:
    x = VALUES.samples
    pairs = (x.unsqueeze(0) - x.unsqueeze(1)).abs().sum((0, 1)) / (30 * 29)
    expected = ((x - TARGETS).abs().mean(0) - pairs / 2).mean()
    assert metrics.crps(VALUES, TARGETS) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(SettingError, match="two or more draws; got 1"):
        metrics.crps(Draws.of(x[:1]), TARGETS)


def test_crps_does_not_hang_on_the_number_of_draws() -> None:
    """Mutant: pairs divided by T^2: with 2 draws it is above by a quarter of E|x - x'|.

    Of a standard normal law about its own truths the score is 1 / sqrt(pi).
    """
    truth = noise(20_000, seed=5)
    found = [metrics.crps(Draws.of(noise(t, 20_000, seed=100 + t)), truth) for t in (2, 5, 40)]
    for one, two in pairwise(found):
        assert one == pytest.approx(two, abs=0.02)
    assert found[-1] == pytest.approx(1 / math.sqrt(math.pi), abs=0.015)
