"""Selection never does worse on its rows; a temperature finds what was distorted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dropkit.training.ensemble import blend, select, temper, temperature
from dropkit.training.metrics import Judge


def values(count: int, rows: int = 100) -> tuple[Judge, list[Tensor]]:
    """Predictions that are ever noisier."""
    source = torch.Generator().manual_seed(count)
    truth = torch.randn(rows, dtype=torch.float64, generator=source)
    noise = torch.randn(count, rows, dtype=torch.float64, generator=source)
    return Judge("rmse", truth, 0), list(truth + noise * torch.arange(1, count + 1).view(-1, 1) / 4)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_weights_are_shares_and_never_worse_than_the_best(count: int) -> None:
    """Mutants: weights that are counts; a step that is taken although it does harm."""
    judge, predictions = values(count)
    weights = select(judge, predictions)
    assert sum(share for _, share in weights) == pytest.approx(1.0)
    assert all(share > 0 for _, share in weights)
    assert len({index for index, _ in weights}) == len(weights)
    assert [share for _, share in weights] == sorted((s for _, s in weights), reverse=True)
    best = min(judge.loss(prediction) for prediction in predictions)
    assert judge.loss(blend(predictions, weights)) <= best * (1 + 1e-12)


def test_opposite_errors_are_chosen_together() -> None:
    """Mutant: the best single trial, always."""
    judge, _ = values(1)
    error = judge.truth.flip(0)
    predictions = [judge.truth + 3 * error, judge.truth + error, judge.truth - error]
    assert sorted(select(judge, predictions)) == [(1, 0.5), (2, 0.5)]


def test_a_perfect_trial_stands_alone() -> None:
    judge, predictions = values(3)
    assert select(judge, [*predictions, judge.truth.clone()]) == [(3, 1.0)]


def test_selection_leaves_the_predictions_as_they_are() -> None:
    """Mutant: a running total that is the best trial's own tensor."""
    judge, predictions = values(4)
    before = [prediction.clone() for prediction in predictions]
    select(judge, predictions)
    assert all(torch.equal(one, two) for one, two in zip(before, predictions, strict=True))


def test_a_blend_is_the_weighted_mean() -> None:
    _, predictions = values(3)
    expected = 0.75 * predictions[2] + 0.25 * predictions[0]
    assert torch.allclose(blend(predictions, [(2, 0.75), (0, 0.25)]), expected)


def honest(rows: int = 20_000) -> tuple[Tensor, Tensor]:
    """Probabilities, and classes that were drawn by them."""
    source = torch.Generator().manual_seed(0)
    shares = torch.randn(rows, 3, dtype=torch.float64, generator=source).mul(1.5).softmax(1)
    return shares, shares.multinomial(1, generator=source)[:, 0]


@pytest.mark.parametrize("distortion", [0.6, 1.0, 1.7])
def test_a_temperature_undoes_a_distortion(distortion: float) -> None:
    """Mutants: the inverse temperature; the one of most log-loss."""
    shares, truth = honest()
    assert temperature(temper(shares, 1 / distortion), truth) == pytest.approx(distortion, rel=0.06)


def test_a_temperature_is_bounded_and_never_worse_than_none() -> None:
    truth = torch.tensor([0, 1, 0, 1])
    right = torch.eye(2, dtype=torch.float64)[truth] * 0.2 + 0.4
    assert temperature(right, truth) == 0.5
    assert temperature(right, 1 - truth) == 2.0


def test_tempering_keeps_the_order_and_the_sum() -> None:
    shares, _ = honest(50)
    assert torch.allclose(temper(shares, 1.0), shares, atol=1e-12)
    for warmth in (0.5, 2.0):
        tempered = temper(shares, warmth)
        assert torch.allclose(tempered.sum(1), torch.ones(50, dtype=torch.float64))
        assert torch.equal(tempered.argsort(1), shares.argsort(1))
    assert (temper(shares, 0.5).amax(1) > shares.amax(1)).all()
    certain = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert temper(certain, 2.0).isfinite().all()
