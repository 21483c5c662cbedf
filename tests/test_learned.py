"""Rates that are learned: noise, gradients, and the terms of the loss."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.nn import ConcreteDropout, VariationalDropout, VariationalLinear, penalty


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


# ---- concrete dropout


def test_cold_noise_is_dropout() -> None:
    """At a low temperature elements are dropped at the rate, and the others scaled."""
    logit = torch.tensor(0.3).logit()
    y = F.concrete_dropout(torch.ones(4000), logit, temperature=1e-6, key=5)
    assert abs(float((y == 0).float().mean()) - 0.3) < 0.03  # 1 in 30,000 keys
    assert float(((y == 0) | ((y - 1 / 0.7).abs() < 1e-4)).float().mean()) > 0.999


def test_the_formula() -> None:
    x, logit, t = numbers(50), torch.tensor(-1.2), 0.4
    from dropkit import kernel

    u = kernel.uniform((50,), key=5, device=x.device).double()
    z = torch.sigmoid((logit.double() + u.logit()) / t)
    expected = x * (1 - z) / (1 - torch.sigmoid(logit.double()))
    y = F.concrete_dropout(x, logit, temperature=t, key=5)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_concrete_dropout() -> None:
    x = numbers(4, 3, dtype=torch.float64).requires_grad_()
    logit = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    run = lambda x, logit: F.concrete_dropout(x, logit, temperature=0.5, key=3)  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, logit))
    assert torch.autograd.gradgradcheck(run, (x, logit))
    each = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, each))


def test_nothing_but_the_arguments_is_kept() -> None:
    kept: list[torch.Size] = []
    x, logit = torch.ones(64, 64, requires_grad=True), torch.zeros((), requires_grad=True)

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.concrete_dropout(x, logit, key=3)
    assert kept.count(x.shape) <= 1, "x may be kept, noise may not"


def test_one_draw_for_all_places_of_a_channel() -> None:
    layer = ConcreteDropout(nn.Identity(), 0.5, features=6, spatial=True)
    y = layer(torch.ones(4, 6, 5, 5), key=2)
    assert torch.equal(y, y[..., :1, :1].expand_as(y))
    assert y[:, :, 0, 0].unique().numel() > 12


def test_a_concrete_layer() -> None:
    layer, x = ConcreteDropout(nn.Linear(3, 2), 0.2), numbers(4, 3)
    assert layer.p == pytest.approx(0.2)
    assert torch.equal(copy.deepcopy(layer).eval()(x), layer.layer(x))
    y = layer(x, key=1)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x, key=1), y)
    other = ConcreteDropout(nn.Linear(3, 2), 0.7)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x, key=1), y)
    assert "p=0.2 (learned)" in repr(layer)
    run = torch.compile(lambda x, key: layer(x, key=key), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(x, torch.tensor(1)), y)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x, key=1).float(), y, atol=0.02, rtol=0.02)


def test_the_penalty_of_a_concrete_layer() -> None:
    layer = ConcreteDropout(nn.Linear(3, 2), 0.2, weight_regularizer=0.5, dropout_regularizer=2.0)
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    squares = float(layer.layer.weight.detach().square().sum())
    assert float(layer.penalty().detach()) == pytest.approx(0.5 * squares / 0.8 - 2.0 * 3 * entropy)
    alone = ConcreteDropout(p=0.2, features=3, dropout_regularizer=2.0)
    assert float(alone.penalty().detach()) == pytest.approx(-2.0 * 3 * entropy)


def trained_rate(noise: float) -> float:
    """The rate that a small regression arrives at, from 0.3."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 4, generator=generator)
    y = x.sum(1, keepdim=True) + noise * torch.randn(512, 1, generator=generator)
    linear = nn.Linear(4, 1)
    with torch.no_grad():
        linear.weight.fill_(1.0), linear.bias.zero_()
    layer = ConcreteDropout(
        linear, 0.3, weight_regularizer=1e-6, dropout_regularizer=2 * max(noise, 0.05) ** 2 / 512
    )
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        loss = (layer(x, key=step) - y).square().mean() + penalty(layer)
        loss.backward()
        optimizer.step()
    return layer.p


def test_a_rate_falls_where_the_data_say_so() -> None:
    certain, vague = trained_rate(0.0), trained_rate(8.0)
    assert certain < 0.02
    assert certain < vague < 0.3


# ---- variational dropout


def divergence(log_alpha: float) -> float:
    """E log|e| - log(alpha) / 2 for e ~ N(1, alpha), by the trapezoidal rule on a scale of log|e|;
    plus the constant that takes it to 0 for large alpha, (log 2 + Euler's) / 2."""
    spread = math.exp(log_alpha / 2)
    t = torch.linspace(-60, 12, 40_001, dtype=torch.float64)
    mean = torch.zeros((), dtype=torch.float64)
    for sign in (1, -1):
        density = torch.exp(-0.5 * ((sign * t.exp() - 1) / spread) ** 2) * t.exp()
        mean += torch.trapezoid(t * density, t) / (spread * math.sqrt(2 * math.pi))
    return float(mean) - log_alpha / 2 + (math.log(2) + 0.5772156649015329) / 2


@pytest.mark.parametrize("log_alpha", [-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0])
def test_the_divergence_is_the_integral(log_alpha: float) -> None:
    found = float(F.log_uniform_kl(torch.tensor(log_alpha, dtype=torch.float64)))
    assert found == pytest.approx(divergence(log_alpha), abs=0.01)


def test_noise_has_the_variance_of_dropout() -> None:
    layer = VariationalDropout(1, p=0.2)
    y = layer(torch.full((20_000, 1), 3.0), key=4).detach()
    assert float(y.mean()) == pytest.approx(3.0, abs=4.5 * 1.5 / 20_000**0.5)
    assert float(y.var()) == pytest.approx(9 * 0.25, rel=0.05)
    assert torch.equal(layer.eval()(y), y)


def test_gradients_of_variational_dropout() -> None:
    x = numbers(4, 3, dtype=torch.float64).requires_grad_()
    log_alpha = numbers(3, dtype=torch.float64).requires_grad_()
    run = lambda *t: F.variational_dropout(*t, key=3)  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, log_alpha))
    assert torch.autograd.gradgradcheck(run, (x, log_alpha))
    weights = [numbers(2, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    linear = lambda *t: F.variational_linear(*t, key=3)  # noqa: E731
    assert torch.autograd.gradcheck(linear, (x, *weights))


def test_local_noise_has_the_law_of_drawn_weights() -> None:
    x, weight, log_variance = numbers(1, 6), numbers(2, 6), numbers(2, 6) - 1
    y = torch.cat(
        [F.variational_linear(x.expand(500, 6), weight, log_variance, key=k) for k in range(4)]
    )
    mean = nn.functional.linear(x, weight)[0]
    spread = nn.functional.linear(x.square(), log_variance.exp())[0].sqrt()
    assert bool(((y.mean(0) - mean).abs() < 4.5 * spread / 2000**0.5).all())
    torch.testing.assert_close(y.std(0), spread, rtol=0.1, atol=0.0)
    assert abs(float(torch.corrcoef(y.T)[0, 1])) < 0.1


def test_a_variational_layer() -> None:
    layer, plain, x = VariationalLinear(3, 2), nn.Linear(3, 2), numbers(4, 3)
    with torch.no_grad():
        layer.weight.copy_(0.1 + numbers(2, 3).abs())  # one near 0 would be left out
    plain.load_state_dict(layer.state_dict(), strict=False)
    assert torch.equal(copy.deepcopy(layer).eval()(x), plain(x))
    y = layer(x, key=1)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x, key=1), y)
    run = torch.compile(lambda x, key: layer(x, key=key), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(x, torch.tensor(1)), y)
    with torch.no_grad():
        layer.weight[0].zero_()
    assert layer.sparsity() == 0.5
    assert torch.equal(layer.eval()(x)[:, 0], layer.bias[0].expand(4))
    layer.threshold = float("inf")
    assert layer.sparsity() == 0.0


def test_noise_that_does_not_matter_grows() -> None:
    """Of two inputs, one is useless: its alpha rises, that of the other stays low."""
    x = numbers(256, 2)
    y, layer = 3 * x[:, :1], VariationalLinear(2, 1, log_variance=-6.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.1]]))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        loss = (layer(x, key=step) - y).square().mean() + penalty(layer) / 256
        loss.backward()
        optimizer.step()
    useful, useless = layer.log_alpha.detach()[0].tolist()
    assert useful < -4 and useless > 0


def test_penalties_are_collected() -> None:
    shared = VariationalDropout(3)
    model = nn.Sequential(ConcreteDropout(nn.Linear(3, 3)), shared, VariationalLinear(3, 3), shared)
    terms = [model[n].penalty() for n in range(3)]
    torch.testing.assert_close(penalty(model), sum(terms))
    penalty(model).backward()
    assert shared.log_alpha.grad is not None and model[0].logit.grad is not None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: penalty(nn.Linear(2, 3)), "found none in Linear"),
        (lambda: ConcreteDropout(nn.Linear(2, 3), 0.0), "above 0 and below 1"),
        (lambda: ConcreteDropout(nn.Linear(2, 3), temperature=0.0), "temperature"),
        (lambda: ConcreteDropout(nn.ReLU()), "features"),
        (lambda: ConcreteDropout(), "features"),
        (lambda: VariationalDropout(3, 1.0), "above 0 and below 1"),
        (lambda: F.concrete_dropout(torch.ones(2), torch.zeros(()), temperature=-1), "temperature"),
        (
            lambda: F.variational_linear(torch.ones(2), torch.ones(3, 2), torch.ones(2)),
            "weights' shape",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        call()


def test_extreme_logits_stay_finite() -> None:
    logit = torch.tensor(110.0, requires_grad=True)
    y = F.concrete_dropout(torch.ones(20), logit, key=1)
    y.sum().backward()
    assert y.isfinite().all() and logit.grad is not None and logit.grad.isfinite()


def test_parameters_do_not_widen_the_input() -> None:
    wide = torch.zeros(2, 3)
    for function in (F.concrete_dropout, F.variational_dropout):
        with pytest.raises(SettingError, match="broadcasts to x's"):
            function(torch.ones(3), wide)
