"""Dropout of weights: the parameters themselves stay as they are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.nn import (
    DropConnectConv1d,
    DropConnectConv2d,
    DropConnectConv3d,
    DropConnectLinear,
    WeightDrop,
    weight_drop,
)

LAYERS = [
    (DropConnectLinear, nn.Linear, (6, 5), (4, 6)),
    (DropConnectConv1d, nn.Conv1d, (2, 3, 3), (4, 2, 8)),
    (DropConnectConv2d, nn.Conv2d, (2, 3, 3), (4, 2, 5, 5)),
    (DropConnectConv3d, nn.Conv3d, (2, 3, 2), (4, 2, 3, 3, 3)),
]
EACH = pytest.mark.parametrize(("kind", "torchs", "sizes", "shape"), LAYERS)


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@EACH
def test_a_layer_is_torchs_with_other_weights(
    kind: Any, torchs: Any, sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    layer, plain, x = kind(*sizes, p=0.5), torchs(*sizes), numbers(*shape)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(copy.deepcopy(layer).eval()(x), plain(x))
    weight = F.dropout(layer.weight, 0.5, key=3)
    other = torch.func.functional_call(plain, {"weight": weight}, (x,))
    assert torch.equal(layer(x, key=3), other)
    layer.drop_bias = True
    bias = F.dropout(layer.bias, 0.5, key=3, offset=weight.numel())
    other = torch.func.functional_call(plain, {"weight": weight, "bias": bias}, (x,))
    assert torch.equal(layer(x, key=3), other)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x, key=3), other)
    assert repr(layer).endswith("p=0.5)")


@EACH
def test_training_leaves_the_parameters_and_drops_their_gradients(
    kind: Any, torchs: Any, sizes: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    layer = kind(*sizes, p=0.5)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(numbers(*shape), key=3).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    dropped = F.dropout(torch.ones_like(layer.weight), 0.5, key=3) == 0
    assert not layer.weight.grad[dropped].any()
    assert layer.weight.grad[~dropped].all()


def test_the_mean_output_is_that_of_all_weights() -> None:
    x, weight = numbers(1, 20), numbers(5, 20)
    draws = torch.stack([F.drop_connect(x, weight, p=0.3, key=key)[0] for key in range(300)])
    expected = torch.nn.functional.linear(x, weight)[0]
    error = ((x * weight).square().sum(1) * 0.3 / 0.7 / 300).sqrt()
    assert bool(((draws.mean(0) - expected).abs() < 4.5 * error).all())  # 1 in 30,000 runs


def test_gradients() -> None:
    tensors = [numbers(*s, dtype=torch.float64).requires_grad_() for s in ((3, 4), (2, 4), (2,))]
    run = lambda *t: F.drop_connect(*t, p=0.4, drop_bias=True, key=1)  # noqa: E731
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_at_the_ends(p: float) -> None:
    layer, x = DropConnectLinear(6, 5, p=p), numbers(4, 6)
    expected = layer.bias.expand(4, 5) if p else nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), expected)


def test_compiled_and_in_autocast() -> None:
    layer, x = DropConnectLinear(6, 5), numbers(4, 6)
    run = torch.compile(lambda x, key: layer(x, key=key), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(x, torch.tensor(3)), layer(x, key=3))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x, key=3).dtype == torch.bfloat16


# ---- any module


def test_any_modules_parameters_are_dropped_for_the_call_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    dropped, x = WeightDrop(model, ["0.weight", "2.weight"], 0.5), numbers(4, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: id(value) for name, value in model.named_parameters()}
    with F.keyed(5):
        y = dropped(x)
    key = F.derive(5, 0)
    first = F.dropout(model[0].weight, 0.5, key=key)
    last = F.dropout(model[2].weight, 0.5, key=key, offset=first.numel())
    expected = torch.func.functional_call(model, {"0.weight": first, "2.weight": last}, (x,))
    assert torch.equal(y, expected)
    y.sum().backward()
    assert model[0].weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: id(value) for name, value in model.named_parameters()} == places
    assert torch.equal(dropped.eval()(x), model(x))


@pytest.mark.parametrize("names", [["0.weight"], ["0.weight", "1.weight"]])
def test_a_tied_weight_is_dropped_in_all_its_places(names: list[str]) -> None:
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    model[1].weight = model[0].weight
    drop = WeightDrop(model, names, 0.5)
    with F.keyed(5):
        y = drop(torch.eye(5))
    weight = F.dropout(model[0].weight, 0.5, key=F.derive(5, 0))
    assert torch.allclose(y, weight.T @ weight.T)


def test_an_error_within_leaves_no_trace() -> None:
    model = nn.Linear(6, 8)
    weight = model.weight
    with pytest.raises(RuntimeError):
        WeightDrop(model, "weight", 0.5)(torch.ones(2, 5))
    assert model.weight is weight


def test_a_state_dict_comes_back() -> None:
    one, other = (weight_drop(nn.Linear(6, 8), "weight", 0.5) for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.eval()(torch.ones(6)), one.eval()(torch.ones(6)))
    assert list(one.state_dict()) == ["module.weight", "module.bias"]
    assert [id(p) for p in one.parameters()] == [id(p) for p in one.module.parameters()]
    assert repr(copy.deepcopy(one)).startswith("WeightDrop(\n  names=['weight'], p=0.5\n")


def test_an_lstm_within() -> None:
    lstm = nn.LSTM(6, 8)
    dropped, x = WeightDrop(lstm, "weight_hh_l0", 0.5), numbers(5, 4, 6)
    whole, _ = lstm(x)
    for _ in range(3):
        y, _ = dropped(x)
        assert not torch.equal(y, whole)
        assert torch.equal(lstm(x)[0], whole)
    y.sum().backward()
    assert lstm.weight_hh_l0.grad is not None


def test_a_module_of_dropped_weights_compiles() -> None:
    dropped = WeightDrop(nn.Linear(6, 8), "weight", 0.5)
    run = torch.compile(dropped, fullgraph=True, backend="aot_eager")
    y = run(torch.ones(2, 6))
    torch.testing.assert_close(y[0], y[1])
    assert not torch.equal(run(torch.ones(2, 6)), y)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.drop_connect(torch.ones(2), torch.ones(3, 2), p=1.5), "between 0 and 1"),
        (lambda: F.drop_connect(torch.ones(2), torch.ones(3, 2), p=torch.ones(2)), "a number"),
        (lambda: DropConnectLinear(2, 3, p=-1), "between 0 and 1"),
        (lambda: DropConnectConv2d(2, 3, 1, p=-1), "between 0 and 1"),
        (lambda: WeightDrop(nn.Linear(2, 3), ["wieght"]), "weight, bias; got 'wieght'"),
        (lambda: WeightDrop(nn.Linear(2, 3), ["weight"], 2.0), "between 0 and 1"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        call()


def test_a_rate_is_looked_at_when_it_is_used() -> None:
    layer = WeightDrop(nn.Linear(2, 2), ["weight"], p=0.5)
    layer.p = 1.5
    with pytest.raises(SettingError, match="between 0 and 1"):
        layer(torch.ones(1, 2))
