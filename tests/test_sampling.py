"""Monte Carlo dropout: that each site acts, by its law, and that nothing else does or stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit import SettingError
from sampled_models import MODELS, DropPath, Residual, made, two, unchanged

KEY = 3


# ---- every kind of site


@pytest.mark.parametrize("kind", MODELS)
def test_every_site_acts_and_the_model_stays(kind: str) -> None:
    model, inputs = made(kind)
    with unchanged(model):
        draws = dropkit.sample(model, *inputs, draws=6, key=KEY)
    assert draws.sites and all(site.acted for site in draws.sites)
    assert bool((draws.std > 0).any())
    with unchanged(model):  # what was learned of it the first time leaves no trace either
        again = dropkit.sample(model, *inputs, draws=6, key=KEY)
    torch.testing.assert_close(again.samples, draws.samples)


@pytest.mark.parametrize("kind", MODELS)
def test_all_ways_give_the_same_draws(kind: str) -> None:
    """Mutants: a constant kept by reference, and written into later; a view taken for its base."""
    model, inputs = made(kind)
    loop = dropkit.sample(model, *inputs, draws=7, key=KEY, strategy="loop").samples
    for strategy in ("prefix", "fold", "auto"):
        other = dropkit.sample(model, *inputs, draws=7, key=KEY, strategy=strategy).samples
        torch.testing.assert_close(other, loop)


@pytest.mark.parametrize("kind", MODELS)
def test_a_draw_is_the_same_alone(kind: str) -> None:
    model, inputs = made(kind)
    few = dropkit.sample(model, *inputs, draws=2, key=KEY).samples
    many = dropkit.sample(model, *inputs, draws=30, key=KEY, strategy="fold").samples
    torch.testing.assert_close(few, many[:2])
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize("kind", sorted(MODELS.keys() - {"ours"}))
def test_the_law_is_that_of_training(kind: str) -> None:
    """Mean and variance of the outputs, against the model's own dropout in torch's draws.

    A difference of 5 standard errors in any of the first 60 numbers is an alarm: by chance it comes
    once in 14,000 runs; keys and seeds are fixed.
    """
    model, inputs = made(kind)
    count = 400
    ours = dropkit.sample(model, *inputs, draws=count, key=KEY).samples.flatten(1)[:, :60].double()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        model.train()
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        theirs = torch.stack([model(*inputs).flatten()[:60] for _ in range(count)]).double()
    error = ((ours.var(0) + theirs.var(0)) / count).sqrt()
    assert bool(((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + 1e-6).all())
    spread = (ours - ours.mean(0)).square(), (theirs - theirs.mean(0)).square()
    error = ((spread[0].var(0) + spread[1].var(0)) / count).sqrt()
    assert bool(((spread[0].mean(0) - spread[1].mean(0)).abs() <= 5 * error + 1e-6).all())


def test_masks_are_exact() -> None:
    """Zeros among n elements of all draws: within 5 deviations of the binomial law."""
    x = torch.ones(100, 100)
    samples = dropkit.sample(nn.Dropout(0.3).eval(), x, draws=50, key=KEY).samples
    zeros, n = int((samples == 0).sum()), samples.numel()
    assert abs(zeros - 0.3 * n) < 5 * (0.21 * n) ** 0.5
    assert set(samples.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    kept = samples.flatten(1).ne(0).double() - 0.7  # no two draws agree more than by chance
    agreement = (kept @ kept.T / 1e4).fill_diagonal_(0).abs().max()
    assert float(agreement) < 5.5 * 0.21 / 100  # 1225 pairs


def test_batch_norm_stays_in_evaluation_mode() -> None:
    """Also where its module has to be opened: functional batch norm beside a stochastic path."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.ones(8))
            self.register_buffer("var", torch.full((8,), 4.0))
            self.drop_prob = 0.5

        def forward(self, x: Tensor) -> Tensor:
            x = F.batch_norm(x, self.mean, self.var, training=self.training)
            return DropPath.forward(self, x)

    model, x = Both().eval(), torch.randn(64, 8)
    with unchanged(model):
        samples = dropkit.sample(model, x, draws=20, key=KEY).samples
    kept = samples[samples != 0]
    torch.testing.assert_close(kept.unique(), (2 * model(x)).unique())


# ---- which sites, at which rates


@pytest.mark.parametrize(
    ("choice", "paths"),
    [
        (None, ["0", "3"]), ("3", ["3"]), ("input", ["0"]), (["input", "hidden"], ["0", "3"]),
        (lambda site: site.rate == 0.5, ["3"]), ("*", ["0", "3"]),
    ],
)  # fmt: skip
def test_sites_are_chosen(choice: Any, paths: list[str]) -> None:
    draws = dropkit.sample(two(), torch.randn(4, 8), draws=2, key=KEY, sites=choice)
    assert [site.site.path for site in draws.sites if site.acted] == paths


def test_what_is_not_chosen_does_not_act_because_its_module_was_opened() -> None:
    class Block(nn.Module):
        drop_prob = 0.3

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.inner(x), 0.5, self.training)
            return DropPath.forward(self, x)  # its mask makes whole rows 0, and no elements

    model, x = Block().eval(), torch.randn(64, 8)
    samples = dropkit.sample(model, x, draws=9, key=KEY, sites=lambda s: s.kind == "path").samples
    zero = samples == 0
    assert bool(zero.any()) and torch.equal(zero.any(-1), zero.all(-1))


def test_rates_are_moved_and_given_back() -> None:
    x = torch.ones(100, 100)
    for model in (nn.Dropout(0.3), DropPath(0.3), dropkit.nn.Dropout(0.3)):
        with unchanged(model.eval()):
            samples = dropkit.sample(model, x, draws=40, key=KEY, rates=0.8).samples
        rows = samples[..., 0] == 0
        assert abs(float(rows.double().mean()) - 0.8) < 5 * 0.4 / rows.numel() ** 0.5
        torch.testing.assert_close(samples.max(), torch.tensor(5.0))


def test_a_rate_that_nobody_holds_is_not_moved_in_silence() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (torch.rand_like(x) > 0.5) * 2 if self.training else x

    with pytest.raises(SettingError, match="no attribute holds its rate"):
        dropkit.sample(Fixed().eval(), torch.ones(40, 40), rates=0.1)


def test_what_acts_by_itself_goes_on_as_it_does() -> None:
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(F.dropout(x, 0.25), 0.5, self.training)

    x = torch.ones(100, 100)
    draws = dropkit.sample(Always().eval(), x, draws=20, key=KEY, sites=lambda s: s.rate == 0.5)
    share = float((draws.samples == 0).double().mean())
    assert abs(share - (1 - 0.75 * 0.5)) < 0.01
    assert [site.rate for site in draws.sites] == [0.5]


# ---- what masks are shared along


@pytest.mark.parametrize("kind", ["module", "functional", "lstm", "encoder_layer", "dropout2d"])
def test_a_network_is_thinned_for_all_rows(kind: str) -> None:
    model, (x,) = made(kind)
    axis = 1 if kind == "lstm" else 0
    same = x.select(axis, 0).unsqueeze(axis).expand_as(x).contiguous()
    options: dict[str, Any] = {"draws": 5, "key": KEY, "batch_axis": axis}
    rows = dropkit.sample(model, same, mask_scope="batch", **options).samples
    first = rows.select(axis + 1, 0).unsqueeze(axis + 1).expand_as(rows)
    torch.testing.assert_close(rows, first)
    rows = dropkit.sample(model, same, mask_scope="element", **options).samples
    assert not torch.equal(rows, rows.select(axis + 1, 0).unsqueeze(axis + 1).expand_as(rows))


def test_a_fixed_network_is_the_same_in_all_calls_whatever_the_batch() -> None:
    model, (x,) = made("module")
    whole = dropkit.sample(model, x, draws=5, mask_scope="fixed").samples
    parts = [
        dropkit.sample(model, part, draws=5, mask_scope="fixed").samples for part in x.split([1, 3])
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_mask_that_the_model_draws_itself_is_not_shared_in_silence() -> None:
    with pytest.raises(SettingError, match=r"path .DropPath. draws its own"):
        dropkit.sample(Residual().eval(), torch.randn(4, 8), mask_scope="batch")


# ---- models without dropout


@pytest.mark.parametrize(
    ("rates", "acted"),
    [
        (0.2, [("2", "hidden"), ("4", "head")]), ({"head": 0.2}, [("4", "head")]),
        ({"0": 0.1, "hidden": 0.3}, [("0", "input"), ("2", "hidden")]),
    ],
)  # fmt: skip
def test_dropout_is_put_in_for_a_while(rates: Any, acted: list[tuple[str, str]]) -> None:
    layers = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    model, x = nn.Sequential(*layers).eval(), torch.randn(4, 8)
    with unchanged(model):
        draws = dropkit.sample(model, x, draws=5, key=KEY, insert=rates)
    assert [(one.site.path, one.site.role) for one in draws.sites if one.acted] == acted


def test_what_is_put_in_is_what_a_module_there_would_be() -> None:
    first, last, x = nn.Linear(8, 8), nn.Linear(8, 3), torch.randn(4, 8)
    with_module = nn.Sequential(first, nn.Dropout(0.5), last).eval()
    without = nn.Sequential(first, last).eval()
    a = dropkit.sample(with_module, x, draws=2000, key=1)
    b = dropkit.sample(without, x, draws=2000, key=2, insert={"head": 0.5})
    error = (a.error("mean") ** 2 + b.error("mean") ** 2).sqrt()
    assert bool(((a.mean - b.mean).abs() < 5 * error).all())
    error = (a.error("var") ** 2 + b.error("var") ** 2).sqrt()
    assert bool(((a.var - b.var).abs() < 5 * error).all())
