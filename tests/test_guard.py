"""A guarded model raises when a dropout acts in inference, and is otherwise as it was."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropkit
from dropkit.errors import DropoutInInferenceError, SettingError


class Calls(nn.Module):
    """Applies a function within a model."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


X = torch.ones(4, 8)


def attention(x: torch.Tensor) -> torch.Tensor:
    heads = x.reshape(1, 1, 4, 8)
    return functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.5)


def masked(x: torch.Tensor) -> torch.Tensor:
    return x * torch.bernoulli(torch.full_like(x, 0.5)) / 0.5


def path(x: torch.Tensor) -> torch.Tensor:
    return x / 0.5 * (torch.rand(len(x), 1) < 0.5)


ALWAYS_ON = {
    "function": lambda x: functional.dropout(x, 0.5),
    "feature": lambda x: functional.feature_alpha_dropout(x.reshape(4, 8, 1), 0.5, training=True),
    "attention": attention,
    "mask": masked,
    "path": path,
    "ours": lambda x: dropkit.functional.dropout(x, 0.5),
}


@pytest.mark.parametrize("function", ALWAYS_ON.values(), ids=ALWAYS_ON)
def test_a_dropout_in_evaluation_mode_raises(function: Callable[..., torch.Tensor]) -> None:
    model = nn.Sequential(nn.Linear(8, 8), Calls(function)).eval()
    with dropkit.guard(model), pytest.raises(DropoutInInferenceError, match=r"1 \(Calls\)"):
        model(X)


def test_the_message_says_where_and_what_to_do() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.25), nn.Linear(8, 8)).eval()
    model[1].train()
    with (
        dropkit.guard(model),
        pytest.raises(DropoutInInferenceError, match=r"1 \(Dropout\), rate 0.25.*model.eval\(\)"),
    ):
        model(X)


def test_recurrent_dropout_that_was_left_on_raises() -> None:
    model = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)
    with dropkit.guard(model), torch.no_grad(), pytest.raises(DropoutInInferenceError):
        model(X.reshape(1, 4, 8))


def test_training_is_let_be_and_prediction_in_training_mode_is_not() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    with dropkit.guard(model):
        model(X).sum().backward()
        with torch.no_grad(), pytest.raises(DropoutInInferenceError):
            model(X)
        with torch.inference_mode(), pytest.raises(DropoutInInferenceError):
            model(X)
        model.eval()(X)


SILENT = {
    "eval": nn.Dropout(0.5),
    "rate 0": Calls(lambda x: functional.dropout(x, 0.0)),
    "sampling": Calls(lambda x: torch.multinomial(x.softmax(-1), 1)),
    "variational": Calls(lambda x: x + torch.randn_like(x) * x.exp()),
    "keyed": Calls(lambda x: dropkit.functional.dropout(x, 0.5, key=7)),
}


@pytest.mark.parametrize("layer", SILENT.values(), ids=SILENT)
def test_what_drops_nothing_is_let_be(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(8, 8), layer).eval()
    with dropkit.guard(model):
        model(X)


def test_outputs_and_draws_are_those_of_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 8), SILENT["variational"]).eval()
    torch.manual_seed(3)
    expected, after = model(X), torch.rand(2)
    torch.manual_seed(3)
    with dropkit.guard(model):
        assert torch.equal(model(X), expected)
    assert torch.equal(torch.rand(2), after)


def test_removal_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Calls(ALWAYS_ON["function"])).eval()
    before = {name: copy.copy(vars(module)) for name, module in model.named_modules()}
    guard = dropkit.guard(model)
    with pytest.raises(DropoutInInferenceError):
        model(X)
    guard.remove()
    guard.remove()
    model(X)
    for name, module in model.named_modules():
        assert {k: str(v) for k, v in vars(module).items()} == {
            k: str(v) for k, v in before[name].items()
        }


def test_a_model_that_raises_itself_is_guarded_on() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        if len(x) == 1:
            raise RuntimeError("one row")
        return functional.dropout(x, 0.5)

    model = nn.Sequential(Calls(broken)).eval()
    with dropkit.guard(model):
        with pytest.raises(RuntimeError, match="one row"):
            model(X[:1])
        with pytest.raises(DropoutInInferenceError):
            model(X)


def test_copies_are_guarded_too() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    guard = dropkit.guard(model)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    guard.remove()
    with torch.no_grad():
        model(X)
        for other in copies:
            with pytest.raises(DropoutInInferenceError):
                other(X)


def test_threads_are_told_apart() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).eval()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            for _ in range(20):
                model(X)
        except BaseException as error:
            failed.append(error)

    with dropkit.guard(model):
        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            torch.rand(3)  # another draws meanwhile
        for thread in threads:
            thread.join()
    assert failed == []


def test_fused_paths_stay_fused() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)).eval()
    x = torch.rand(2, 4, 16)
    with torch.no_grad(), dropkit.guard(model), torch.autograd.profiler.profile() as profiled:
        model(x)
    assert "aten::_transformer_encoder_layer_fwd" in {e.name for e in profiled.function_events}


def test_it_costs_microseconds() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).eval()

    def quickest() -> float:
        best = 1.0
        for _ in range(300):
            began = time.perf_counter()
            model(X)
            best = min(best, time.perf_counter() - began)
        return best

    alone = quickest()
    with dropkit.guard(model):
        assert quickest() - alone < 200e-6


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(SettingError, match=r"expected a torch.nn.Module; got int"):
        dropkit.guard(3)  # type: ignore[arg-type]
