"""Accelerated models: every dropout is seen, nothing else is touched, and all is given back."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import dropkit.functional as F
from dropkit.acceleration import accelerate, draw, restore
from dropkit.errors import SettingError
from dropkit.intercept import Operation, attach, attaching, detach


class Net(nn.Module):
    """Dropout in every way that a model may have it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.3)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = tf.dropout(self.drop(self.linear(x)), 0.1, self.training)
        y, _ = self.attention(x, x, x, need_weights=False)
        z, _ = self.attention(x, x, x)
        return torch.dropout(y + z, 0.1, self.training)


NET = ["dropout", "dropout", "scaled_dot_product_attention", "dropout", "dropout"]
X = torch.linspace(-2, 2, 3 * 5 * 8).view(3, 5, 8)


class Note:
    """A handler that notes what it is asked, and lets torch do it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, operation: Operation) -> Any:
        self.names.append(operation.name)
        return operation.run()


def seeded(run: Callable[[], Tensor], seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return run()


@pytest.fixture(autouse=True)
def nothing_stays_in_force() -> Iterator[None]:
    yield
    assert torch._C._len_torch_function_stack() == 0


# ---- what is seen


def test_every_dropout_of_a_model_is_seen() -> None:
    net, note = Net(), Note()
    attach(net, note)
    net(X)
    assert note.names == NET


@pytest.mark.parametrize(
    ("call", "name", "rate"),
    [
        (lambda x: tf.dropout(x), "dropout", 0.5),
        (lambda x: tf.dropout(x, 0.2, inplace=True), "dropout", 0.2),
        (lambda x: tf.dropout1d(x, 0.2), "dropout1d", 0.2),
        (lambda x: tf.dropout2d(x[None], 0.2), "dropout2d", 0.2),
        (lambda x: tf.dropout3d(x[None, None], p=0.2), "dropout3d", 0.2),
        (lambda x: tf.alpha_dropout(x, training=True), "alpha_dropout", 0.5),
        (lambda x: tf.alpha_dropout(x), "alpha_dropout", 0.0),
        (lambda x: tf.feature_alpha_dropout(x, 0.2, True), "feature_alpha_dropout", 0.2),
        (lambda x: torch.dropout(x, 0.2, train=True), "dropout", 0.2),
        (lambda x: torch.dropout_(x, p=0.2, train=False), "dropout_", 0.0),
        (lambda x: torch.feature_dropout_(x, 0.2, True), "feature_dropout_", 0.2),
        (lambda x: torch.alpha_dropout(x, 0.2, True), "alpha_dropout", 0.2),
        (
            lambda x: tf.scaled_dot_product_attention(x, x, x, None, 0.2, scale=2.0),
            "scaled_dot_product_attention",
            0.2,
        ),
    ],
)
def test_a_call_comes_with_its_arguments(
    call: Callable[[Tensor], Tensor], name: str, rate: float
) -> None:
    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return call(x)

    seen: list[Operation] = []

    def look(operation: Operation) -> Any:
        seen.append(operation)
        return operation.run()

    module = Calls()
    attach(module, look)
    got = seeded(lambda: module(X.clone()))
    assert [(each.name, each.rate) for each in seen] == [(name, rate)]
    assert torch.equal(got, seeded(lambda: call(X.clone())))
    accelerate(module)
    detach(module, look)
    assert module(X.clone()).shape == got.shape


def test_a_handler_may_change_a_rate() -> None:
    model = nn.Sequential(nn.Dropout(0.9))
    handler = lambda operation: operation.run(p=0.0)  # noqa: E731
    attach(model, handler)
    assert torch.equal(model(X), X)


def test_two_handlers_see_the_same() -> None:
    net, first, second = Net(), Note(), Note()
    attach(net, first)
    attach(net, second)
    net(X)
    assert first.names == second.names == NET
    detach(net, first)
    net(X)
    assert first.names == NET
    assert second.names == NET * 2


def test_nothing_is_seen_in_eval_or_in_what_is_frozen() -> None:
    net, note = Net(), Note()
    model = nn.ModuleDict({"frozen": net.eval(), "drop": nn.Dropout(0.5)})
    model.forward = lambda x: model["drop"](model["frozen"](x))  # type: ignore[method-assign]
    attach(model, note)
    model(X)
    assert note.names == ["dropout"]
    model.eval()(X)
    assert note.names == ["dropout"]


def test_the_fast_path_of_torch_in_eval_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    fast, calls = torch._transformer_encoder_layer_fwd, []

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        result: Tensor = fast(*args)
        return result

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    with torch.no_grad():
        expected = encoder(X)
        accelerate(encoder)
        assert torch.equal(encoder(X), expected)
        trained = nn.Sequential(encoder, nn.Dropout(0.5))
        accelerate(trained)
        assert trained.training
        assert not encoder.training
        trained(X)
    assert len(calls) == 6
    note = Note()
    attach(encoder, note)
    encoder.train()(X)
    assert len(note.names) == 2 * 4


# ---- what comes out


def test_masks_are_those_of_the_kernels_and_follow_the_seed() -> None:
    model = accelerate(nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5)))
    with F.keyed(7):
        y = model(X)
    assert torch.equal(y, F.dropout(model[0](X), 0.5, key=F.derive(7, 0)))
    net = accelerate(Net())
    assert torch.equal(seeded(lambda: net(X)), seeded(lambda: net(X)))
    assert not torch.equal(seeded(lambda: net(X)), seeded(lambda: net(X), seed=1))


def test_gradients_are_those_of_the_masks() -> None:
    net = accelerate(Net()).double()
    x = X.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: seeded(lambda: net(x)), x, fast_mode=True)


def test_the_law_of_a_model_stays() -> None:
    model = accelerate(nn.Sequential(nn.Dropout(0.3), nn.Dropout2d(0.2), nn.AlphaDropout(0.1)))
    y = seeded(lambda: model[0](torch.ones(40_000)))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert abs((y == 0).double().mean() - 0.3) < 5 * (0.3 * 0.7 / 40_000) ** 0.5
    maps = seeded(lambda: model[1](torch.ones(50, 20, 3, 3)))
    assert (maps == maps[..., :1, :1]).all()


@pytest.mark.parametrize("bad", [-0.1, 1.5])
def test_a_wrong_rate_is_refused_as_torch_does(bad: float) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return tf.dropout(x, bad)

    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
        accelerate(Wrong())(X)


# ---- what is left alone


def described(model: nn.Module) -> dict[str, dict[str, Any]]:
    """All that a model's modules are, down to the order of their hooks."""
    return {
        name: {
            key: dict(value) if key.endswith("hooks") else value for key, value in vars(m).items()
        }
        for name, m in model.named_modules()
    }


def test_it_is_given_back_as_it_was() -> None:
    net = Net()
    ran: list[str] = []
    net.register_forward_pre_hook(lambda *_: ran.append("first"))
    net.register_forward_hook(lambda *_: ran.append("last"))
    before, state = described(net), copy.deepcopy(net.state_dict())
    assert accelerate(accelerate(net)) is net
    assert len(net._forward_pre_hooks) == 2
    assert type(net) is Net
    assert state.keys() == net.state_dict().keys()
    net(X)
    assert ran == ["first", "last"]
    assert restore(net) is net
    assert described(net) == before
    assert restore(net) is net


def test_copies_and_pickles_are_accelerated_on_their_own() -> None:
    net = accelerate(Net())
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.copy(net)]
    copies.append(torch.load(buffer, weights_only=False))
    expected = seeded(lambda: net(X))
    for each in copies[:2] + copies[3:]:
        assert torch.equal(seeded(lambda each=each: each(X)), expected)
        assert described(restore(each)).keys() == described(net).keys()
        assert not torch.equal(seeded(lambda each=each: each(X)), expected)
    assert torch.equal(seeded(lambda: net(X)), expected)


def test_parts_may_be_accelerated_and_restored() -> None:
    model = nn.Sequential(Net(), Net())
    accelerate(model[0])
    accelerate(model)
    restore(model)
    assert described(model) == described(nn.Sequential(*model))
    accelerate(model)
    restore(model[1])
    assert model[0]._forward_hooks
    assert not model[1]._forward_hooks


class Fails(nn.Module):
    """Raises within its part, if it is to."""

    def __init__(self, fault: type[BaseException]) -> None:
        super().__init__()
        self.inner, self.fault = Net(), fault
        self.fails = True

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        if self.fails:
            raise self.fault
        return y


def test_a_forward_that_raises_leaves_nothing_in_force() -> None:
    model, note = Fails(RuntimeError), Note()
    attach(model, note)
    with pytest.raises(RuntimeError):
        model(X)
    assert torch._C._len_torch_function_stack() == 0
    assert note.names == NET


def test_ctrl_c_leaves_nothing_that_is_asked() -> None:
    model, note = Fails(KeyboardInterrupt), Note()
    attach(model, note)
    with pytest.raises(KeyboardInterrupt):
        model(X)
    tf.dropout(X)
    assert note.names == NET
    model.fails = False
    model(X)
    assert note.names == NET * 2
    assert torch._C._len_torch_function_stack() == 0


class Quiet(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_ctrl_c_takes_no_mode_of_others_out_of_force() -> None:
    """Mutant: a mode on top of the user's, which then ends in its place."""
    model = accelerate(Fails(KeyboardInterrupt))
    with Quiet() as outer:
        with pytest.raises(KeyboardInterrupt), Quiet():
            model(X)
        assert torch.overrides._get_current_function_mode() is outer
    model.fails = False
    model(X)


def test_other_modes_stay_in_their_order() -> None:
    net, note = Net(), Note()
    attach(net, note)
    with Quiet() as mode:
        net(X)
        assert torch.overrides._get_current_function_mode() is mode
    assert note.names == NET


def test_threads_do_not_see_each_other() -> None:
    net, note = accelerate(Net()), Note()
    threads = [threading.Thread(target=net, args=(X,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attach(net, note)
    replicas = [net._replicate_for_data_parallel() for _ in range(2)]
    for replica in replicas:  # as nn.DataParallel makes and runs them
        replica.linear = net.linear
        replica(X)
    assert note.names == NET * 2


def test_autocast_stays_in_force() -> None:
    net = accelerate(Net())
    with torch.autocast("cpu", torch.bfloat16):
        assert net(X).dtype == torch.bfloat16


@pytest.mark.parametrize("x", [torch.ones(3, dtype=torch.int64), "words"])
def test_what_is_no_tensor_of_numbers_is_left_to_torch(x: Any) -> None:
    class Plain(nn.Module):
        def forward(self, x: Any) -> Any:
            return tf.dropout(x, 0.5)

    model, errors = Plain(), []
    for run in (model, accelerate(model)):
        with pytest.raises((RuntimeError, TypeError)) as caught:
            run(x)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("model", ["bert", nn.Linear, torch.ones(3)])
def test_what_is_no_module_is_refused(model: Any) -> None:
    for function in (accelerate, restore):
        with pytest.raises(SettingError, match=r"expected a torch\.nn\.Module; got"):
            function(model)


# ---- compilers


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_in_one_graph(backend: str) -> None:
    torch._dynamo.reset()
    net = accelerate(Net())
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    x = X.clone().requires_grad_()
    first, second = compiled(x), compiled(x)
    first.sum().backward()
    assert x.grad is not None
    assert not torch.equal(first, second)
    restore(net)
    torch._dynamo.reset()


def test_it_exports_with_the_kernels_as_operators() -> None:
    program = torch.export.export(accelerate(Net()), (X,))
    called = [str(node.target) for node in program.graph.nodes]
    assert called.count("dropkit.dropout.default") == len(NET)


def test_the_opened_function_is_torchs_own() -> None:
    opened = attaching.OPENED
    assert opened.__code__ is tf.multi_head_attention_forward.__code__
    assert (
        draw(Operation(tf.dropout, "dropout", {"input": X, "p": 0.0, "training": True})) is not None
    )


# ---- models that others wrote


def test_a_model_of_transformers_is_seen_throughout() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, attn_implementation="sdpa",
    )  # fmt: skip
    model, note = transformers.BertModel(config).train(), Note()
    before, ids = described(model), torch.arange(24).view(2, 12)
    attach(model, note)
    model(ids)
    per_layer = ["scaled_dot_product_attention", "dropout", "dropout"]
    assert note.names == ["dropout", *per_layer, *per_layer]
    detach(model, note)
    accelerate(model)
    first, again = (seeded(lambda: model(ids).last_hidden_state) for _ in range(2))
    assert torch.equal(first, again)
    assert described(restore(model)) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_parts_are_left_alone() -> None:
    part = torch.jit.script(nn.Linear(16, 16))
    model = nn.Sequential(nn.Dropout(0.5), part, nn.Dropout(0.5))
    assert restore(accelerate(model)) is model
