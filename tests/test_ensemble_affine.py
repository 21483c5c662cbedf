"""Moments with no draws in them: by hand, against all networks, and as an oracle of draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit.bounds import FALSE_ALARM, mean_chance
from dropkit.ensemble import affine, exact
from dropkit.errors import SamplingError, SettingError
from made_up_draws import WIDE, noise


def made(build: Callable[[], nn.Module], dtype: torch.dtype = WIDE) -> nn.Module:
    """A model with random weights, at inference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().to(dtype).eval()


def head(rate: float, units: int) -> nn.Sequential:
    layers = nn.Linear(4, units), nn.Tanh(), nn.Dropout(rate), nn.Linear(units, 3)
    return nn.Sequential(*layers)


class Parallel(nn.Module):
    """Two sites side by side, each before a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Dropout(0.2), nn.Dropout(0.7)
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(self.one(x)) + self.right(self.other(x.sin()))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


AFFINE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "a layer": (lambda: head(0.3, 6), (3, 4)),
    "two linear maps": (lambda: nn.Sequential(head(0.3, 6), nn.Linear(3, 2)), (3, 4)),
    "side by side": (Parallel, (3, 4)),
    "attention": (Attending, (2, 2, 4)),
    "alpha": (lambda: nn.Sequential(nn.AlphaDropout(0.3), nn.Linear(4, 2)), (3, 4)),
    "channels": (lambda: nn.Sequential(nn.Dropout2d(0.3), nn.Conv2d(3, 2, 2)), (2, 3, 3, 3)),
    "batch norm": (lambda: nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(4)), (3, 4)),
}


def close(one: Tensor, two: Tensor, tolerance: float = 1e-12) -> bool:
    return torch.allclose(one.double(), two.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, WIDE], ids=str)
def test_a_layer_by_its_formula(rate: float, dtype: torch.dtype) -> None:
    """Mutants: p (1 - p) without the scale; the bias among what varies."""
    model, x = made(lambda: head(rate, 200), dtype), noise(5, 4).to(dtype)
    known = affine(model, x)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    with torch.no_grad():
        terms = model[3].weight.double() * model[:2](x).double()[:, None]
        odds = rate / (1 - rate)
        assert known.bits == 200
        assert close(known.mean, model(x), tolerance)
        assert close(known.var, odds * terms.square().sum(-1), tolerance)
        assert close(known.std.square(), known.var)
        both = odds * torch.einsum("bci,bdi->bcd", terms, terms)
        assert close(known.covariance(), both, tolerance)


@pytest.mark.parametrize("name", AFFINE)
def test_all_networks_have_these_moments(name: str) -> None:
    build, shape = AFFINE[name]
    model, x = made(build), noise(*shape)
    known, whole = affine(model, x), exact(model, x)
    assert known.masks == whole.masks
    assert close(known.mean, whole.mean)
    assert close(known.var, whole.var)
    assert torch.equal(known.scaled, whole.scaled)
    shares, off = whole.log_probabilities.exp(), whole.samples - whole.mean
    assert close(known.covariance(), torch.einsum("n,n...c,n...d->...cd", shares, off, off))


def test_what_is_drawn_has_these_moments() -> None:
    """An oracle of `sample` where 2^64 networks cannot be run.

    Hoeffding's bound, which is exact; 18 comparisons alarm in fewer than one of 5e6 runs.
    """
    model, x = made(lambda: head(0.5, 64)), noise(3, 4)
    known = affine(model, x)
    draws = dropkit.sample(model, x, draws=20_000, key=5).samples
    with torch.no_grad():
        reach = (model[3].weight * model[:2](x)[:, None]).abs().sum(-1)  # |f - mean| at most
    off = (draws - known.mean) / reach
    seen = torch.stack([(1 + off) / 2, off.square()]).mean(1).flatten().tolist()
    told = torch.stack([torch.full_like(reach, 0.5), known.var / reach**2]).flatten().tolist()
    chances = [mean_chance(a, 20_000, b) for a, b in zip(seen, told, strict=True)]
    assert len(chances) == 18 and min(chances) > FALSE_ALARM


def test_outputs_may_be_a_tree() -> None:
    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head(0.3, 6)

        def forward(self, x: Tensor) -> Any:
            return {"values": self.head(x), "name": "tree", "row": x}

    known = affine(made(Tree), noise(3, 4))
    assert known.mean["name"] == "tree" and not known.var["row"].any()
    assert close(known["values"].var, affine(made(lambda: head(0.3, 6)), noise(3, 4)).var)


def test_sites_that_are_left_out_do_not_drop() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Tanh(), head(0.3, 6)))
    x = noise(3, 4)
    inner = nn.Sequential(model[0], model[2], model[3]).eval()
    assert close(affine(model, x, sites=["3.2"]).var, affine(inner, x).var)


# ---- what is refused


class Product(nn.Module):
    """One pair among 300 elements is multiplied."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(x, 0.5, self.training)
        return h.sum(-1, keepdim=True) + h[..., 17:18] * h[..., 230:231]


NOT_AFFINE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "a ReLU follows": (lambda: nn.Sequential(head(0.3, 60), nn.ReLU(), nn.Linear(3, 1)), (3, 4)),
    "a softmax follows": (lambda: nn.Sequential(head(0.3, 6), nn.Softmax(-1)), (3, 4)),
    "a layer norm follows": (lambda: nn.Sequential(head(0.3, 60), nn.LayerNorm(3)), (3, 4)),
    "another site follows": (lambda: nn.Sequential(head(0.3, 6), nn.Dropout(0.5)), (3, 4)),
    "one product": (Product, (1, 300)),
}


@pytest.mark.parametrize("dtype", [torch.float32, WIDE], ids=str)
@pytest.mark.parametrize("name", NOT_AFFINE)
def test_what_is_not_affine_is_refused(name: str, dtype: torch.dtype) -> None:
    """Mutants: no check; one by elements alone, which superpose with themselves."""
    build, shape = NOT_AFFINE[name]
    with pytest.raises(SamplingError, match=r"affine in the masks.*dropkit\.ensemble\.exact"):
        affine(made(build, dtype), (1 + noise(*shape).abs()).to(dtype))


def test_half_precision_is_refused() -> None:
    model = made(lambda: head(0.3, 6), torch.bfloat16)
    with pytest.raises(SettingError, match=r"float32 or float64.*got torch\.bfloat16"):
        affine(model, noise(3, 4).bfloat16())


def test_too_many_networks_are_counted() -> None:
    model, x = made(lambda: head(0.3, 6)), noise(3, 4)
    with pytest.raises(SettingError, match=r"at most 39 networks.*6 bits, which takes 40"):
        affine(model, x, most=39)
    assert affine(model, x, most=40).bits == 6
    for most in (0, True, 2.5):
        with pytest.raises(SettingError, match="most: expected a number of networks"):
            affine(model, x, most=most)  # type: ignore[arg-type]


def test_a_covariance_needs_an_axis() -> None:
    known = affine(Summing().eval(), torch.ones(1, 3))
    assert close(known.var, torch.tensor(3.0))
    with pytest.raises(SettingError, match="expected outputs with an axis"):
        known.covariance()


class Summing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training).sum()
