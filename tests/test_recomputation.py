"""What is computed again for backward draws the same masks again, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import dropkit.functional as F
import dropkit.nn as dnn
from dropkit.acceleration import accelerate
from dropkit.errors import SettingError
from dropkit.intercept import attach
from test_accelerate import Note, X, seeded

ONES = torch.ones(64)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    torch._dynamo.reset()
    assert torch._C._len_torch_function_stack() == 0


def assert_right(model: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The gradient of a seeded run is the rise of that run along a line."""
    x = x.double().requires_grad_()
    seeded(lambda: model(x)).sum().backward()
    step, along = 1e-6, x.detach().cos()
    places = [(x + sign * step * along).detach().requires_grad_() for sign in (1, -1)]
    rise = [seeded(lambda place=place: model(place)).sum() for place in places]
    assert x.grad is not None
    assert torch.isclose((x.grad * along).sum(), (rise[0] - rise[1]) / (2 * step), rtol=1e-5)
    assert not torch.equal(seeded(lambda: model(x)), seeded(lambda: model(x), seed=1))


class Stashing(Function):
    """A checkpoint as many have written it: it stashes the state of torch's generator."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.run, ctx.state = run, torch.get_rng_state()
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_rng_state(ctx.state)
            return None, *torch.autograd.grad(ctx.run(x), x, grad)


WAYS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "plain": lambda run, x: run(x),
    "new": lambda run, x: checkpoint(run, x, use_reentrant=False),
    "reentrant": lambda run, x: checkpoint(run, x, use_reentrant=True),
    "own": lambda run, x: Stashing.apply(run, x),  # type: ignore[no-untyped-call]
}


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = tf.dropout(self.drop(self.linear(x)), 0.1, self.training)
        return tf.scaled_dot_product_attention(y, y, y, dropout_p=0.2)


class Steps(nn.Module):
    """Dropouts in a part, in a module, and in functions; all of it recomputed."""

    def __init__(self, way: str, layer: nn.Module) -> None:
        super().__init__()
        self.way = way
        self.part = Part()
        self.linear = nn.Linear(8, 8)
        self.layer = layer
        self.double()

    def step(self, x: Tensor) -> Tensor:
        x = tf.dropout(self.layer(self.linear(x)), 0.2, self.training)
        return torch.sin(self.part(tf.dropout(x, 0.1, self.training)))

    def forward(self, x: Tensor) -> Tensor:
        return tf.dropout(WAYS[self.way](self.step, x), 0.1, self.training)


def compiles_functions(test: Any) -> Any:
    """Torch's compiler warns of what it does itself, where it comes by a Function."""
    for warning in (".*Function'> should not be instantiated", "The .grad attribute of a Tensor"):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return test


@compiles_functions
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_an_accelerated_model_are_those_of_its_masks(way: str, compiled: bool) -> None:
    """Mutants: dropouts in a checkpoint that the recomputation does not bring before the handler.

    Compiled, torch breaks its graph at the checkpoint, or makes one program of it all.
    """
    model: Any = accelerate(Steps(way, nn.Dropout(0.3)))
    assert_right(torch.compile(model, backend="aot_eager") if compiled else model, X)
    outer = Steps("new", nn.Dropout(0.3))
    outer.part = model  # type: ignore[assignment]
    assert_right(accelerate(outer), X)


@compiles_functions
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_our_layers_are_those_of_their_masks(way: str, compiled: bool) -> None:
    model: Any = Steps(way, dnn.Dropout(0.3))
    assert_right(torch.compile(model, backend="aot_eager") if compiled else model, X)


def test_a_function_is_compiled_with_its_checkpoint() -> None:
    model = accelerate(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).double())

    def run(x: Tensor) -> Tensor:
        return checkpoint(model, x, use_reentrant=False).sin()

    assert_right(torch.compile(run, backend="aot_eager", fullgraph=True), X)


@compiles_functions
@pytest.mark.parametrize("way", ["plain", "new"])
def test_a_part_of_a_model_may_be_compiled(way: str) -> None:
    model = accelerate(Steps(way, nn.Dropout(0.3)))
    model.part.compile(backend="aot_eager", fullgraph=True)
    assert_right(model, X)


def test_what_is_not_seen_again_is_not_seen_at_all() -> None:
    def seen(way: str) -> int:
        model, note = Steps(way, nn.Dropout(0.3)), Note()
        attach(model, note)
        model(X.double().requires_grad_()).sum().backward()
        return len(note.names)

    assert seen("plain") == 3 + 3 + 1
    assert {seen(way) for way in ("new", "reentrant", "own")} == {2 * (3 + 1) + 1}


def test_recomputation_needs_no_stashed_state() -> None:
    x = torch.linspace(-1, 1, 66, dtype=torch.float64)
    assert_right(
        lambda x: checkpoint(
            lambda x: F.dropout(F.dropout(x).sin(), shared=(0,)).exp(), x,
            use_reentrant=False, preserve_rng_state=False, context_fn=F.replayed_keys,
        ),
        x,
    )  # fmt: skip


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": F.dropout,
    "rates": lambda x: F.dropout(x, torch.full((8,), 0.4)),
    "block": lambda x: F.drop_block(x[None], 0.3, 3),
    "noise": lambda x: F.gaussian_dropout(x, 0.4),
    "relu": lambda x: F.activation_dropout(x, "relu", 0.4),
    "gelu": lambda x: F.activation_dropout(x, "gelu", 0.4),
    "add": lambda x: F.dropout_add(x, x, 0.4, bias=x[0, 0]),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.4),
    "concrete": lambda x: F.concrete_dropout(x, x[0, 0, 0]),
    "accelerated": accelerate(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Linear(8, 8))),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_mode_may_be_in_force_in_one_of_both_times(function: str) -> None:
    """Mutant: a relu of which the derivative expects what its short way kept."""
    grads = []
    for forward, backward in ((False, False), (True, False), (False, True)):
        x = X.clone().requires_grad_()
        with FlopCounterMode(display=False) if forward else nullcontext():
            torch.manual_seed(0)
            y = checkpoint(FUNCTIONS[function], x, use_reentrant=False)
        with FlopCounterMode(display=False) if backward else nullcontext():
            y.square().sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


# ---- keys that are counted


def counts(x: Tensor) -> Tensor:
    return F.dropout(x).square()


generator = torch.Generator()
SOURCES: dict[str, Callable[[Callable[[Tensor], Tensor]], Tensor]] = {
    "keyed": lambda run: in_scope(run),
    "generator": lambda run: run(lambda x: F.dropout(x, generator=generator).square()),
}


def in_scope(run: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
    with F.keyed(4):
        return run(counts)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("way", ["new", "reentrant", "own"])
def test_a_source_outside_of_a_checkpoint_is_refused(source: str, way: str) -> None:
    """Before anything is wrong: its backward may run when the block is long over.

    Mutant: checkpoints that are known by torch's name alone.
    """
    x = ONES.clone().requires_grad_()
    with pytest.raises(SettingError, match="replayed_keys"):
        SOURCES[source](lambda run: WAYS[way](run, x))


@pytest.mark.parametrize("source", SOURCES)
def test_its_keys_are_replayed(source: str) -> None:
    x = ONES.clone().requires_grad_()
    y = SOURCES[source](
        lambda run: checkpoint(run, x, use_reentrant=False, context_fn=F.replayed_keys)
    )
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y / x.detach())
    assert 0 < int((y == 0).sum()) < y.numel()


def test_each_of_nested_checkpoints_needs_to_replay() -> None:
    x = ONES.clone().requires_grad_()

    def nested(inner: dict[str, Any]) -> Tensor:
        with F.keyed(4):
            return checkpoint(
                lambda x: checkpoint(counts, x, use_reentrant=False, **inner), x,
                use_reentrant=False, context_fn=F.replayed_keys,
            )  # fmt: skip

    with pytest.raises(SettingError, match="replayed_keys"):
        nested({})
    y = nested({"context_fn": F.replayed_keys})
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y)


@pytest.mark.parametrize("way", ["new", "reentrant", "own"])
def test_a_scope_within_a_checkpoint_is_as_good_as_keys(way: str) -> None:
    x = ONES.clone().requires_grad_()

    def run(x: Tensor) -> Tensor:
        with F.keyed(4):
            return counts(x)

    y = WAYS[way](run, x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y)


@compiles_functions
def test_a_compiled_function_is_no_checkpoint() -> None:
    compiled: Any = torch.compile(counts, backend="aot_eager")
    x = ONES.clone().requires_grad_()
    with F.keyed(4):
        y = compiled(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y)
    assert torch.equal(y, F.dropout(ONES, key=F.derive(4, 0)).square())


def test_a_scope_is_refused_in_a_backward_pass() -> None:
    x = ONES.clone().requires_grad_()
    with F.keyed(4):
        y = F.dropout(x)
        y.register_hook(lambda grad: F.dropout(grad))
        with pytest.raises(SettingError, match="replayed_keys"):
            y.sum().backward()


# ---- scopes of keys


def test_tasks_have_scopes_of_their_own() -> None:
    """Mutant: scopes that belong to a thread, whose tasks then draw from each other's."""

    async def draws(seed: int) -> list[Tensor]:
        drawn = []
        with F.keyed(seed):
            for _ in range(3):
                drawn.append(F.dropout(ONES))
                await asyncio.sleep(0)
        return drawn

    async def both() -> list[list[Tensor]]:
        return list(await asyncio.gather(draws(1), draws(2)))

    for seed, drawn in enumerate(asyncio.run(both()), 1):
        expected = [F.dropout(ONES, key=F.derive(seed, n)) for n in range(3)]
        assert all(torch.equal(*pair) for pair in zip(drawn, expected, strict=True))


def test_a_scope_ends_itself_and_no_other() -> None:
    def suspended(seed: int) -> Iterator[None]:
        with F.keyed(seed):
            yield

    first, second = suspended(1), suspended(2)
    next(first), next(second)
    next(first, None)
    assert torch.equal(F.dropout(ONES), F.dropout(ONES, key=F.derive(2, 0)))
    next(second, None)
    assert not torch.equal(F.dropout(ONES), F.dropout(ONES, key=F.derive(2, 1)))
