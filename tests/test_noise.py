"""Gaussian noise: its law, its ends, and the gradient of a learned spread."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

import dropkit.functional as F
from dropkit import nn
from dropkit.errors import SettingError
from workbench import ALARM

P = 0.2  # a standard deviation of exactly 1 / 2


def test_multiplied_noise_is_normal() -> None:
    """Mutants: the variance p, or (1 - p) / p, in place of p / (1 - p)."""
    y = F.gaussian_dropout(torch.full((40_000,), 3.0), P, key=1)
    assert stats.kstest((y / 3).numpy(), stats.norm(1, 0.5).cdf).pvalue > ALARM


def test_added_noise_is_normal() -> None:
    y = F.gaussian_noise(torch.full((40_000,), 3.0), 0.5, key=1)
    assert stats.kstest(y.numpy(), stats.norm(3, 0.5).cdf).pvalue > ALARM


def test_rates_of_a_tensor_have_spreads_of_their_own() -> None:
    y = F.gaussian_dropout(torch.ones(20_000, 2), torch.tensor([0.0, P]), key=1)
    assert bool((y[:, 0] == 1).all())
    assert stats.kstest(y[:, 1].numpy(), stats.norm(1, 0.5).cdf).pvalue > ALARM


@pytest.mark.parametrize("shared", [(0,), (-1,), (0, 1)])
def test_axes_share_a_draw(shared: tuple[int, ...]) -> None:
    for layer in (nn.GaussianDropout(0.3, shared=shared), nn.GaussianNoise(0.3, shared=shared)):
        y = layer(torch.ones(4, 5))
        assert all(torch.equal(y, y.select(n, 0).unsqueeze(n).expand_as(y)) for n in shared)


def test_a_spread_is_learned() -> None:
    std = torch.tensor(0.5, requires_grad=True)
    x = torch.zeros(100)
    y = F.gaussian_noise(x, std, key=1)
    y.sum().backward()
    assert float(std.grad) == pytest.approx(float(y.detach().sum()) / 0.5, rel=1e-4)


def test_the_ends() -> None:
    x = torch.ones(3)
    assert F.gaussian_dropout(x, 0.0) is x
    assert F.gaussian_noise(x, 0.0) is x
    with pytest.raises(SettingError, match="p: expected a rate below 1"):
        nn.GaussianDropout(1.0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="std: expected a finite standard deviation"):
            nn.GaussianNoise(wrong)
    with pytest.raises(RuntimeError, match="floating-point"):
        F.gaussian_noise(x.long())
    with pytest.raises(RuntimeError, match="floating-point"):
        F.gaussian_noise(x.to(torch.complex64))


def test_a_rate_of_one_has_no_noise() -> None:
    for p in (1.0, torch.tensor([0.5, 1.0])):
        with pytest.raises(SettingError, match="below 1"):
            F.gaussian_dropout(torch.ones(2), p)


def test_a_deviation_does_not_widen_the_input() -> None:
    with pytest.raises(SettingError, match="broadcasts to x's"):
        F.gaussian_noise(torch.ones(3), torch.ones(2, 3))
