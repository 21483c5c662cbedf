"""What is put into a model drops where and as it should, and nothing else of the model changes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import dropkit
from dropkit.errors import PlanError, SettingError
from dropkit.planning.insertion import Inserted, insert

NAME = "dropkit_dropout"


class Calls(nn.Module):
    """Parts by name, and a function of them."""

    def __init__(self, function: Callable[[Any, Any], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3)
    )


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 3),
    )  # fmt: skip


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 1 * 1, 16), nn.ReLU(), nn.Linear(16, 3),
    )  # fmt: skip


def residual() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    convolutions = {name: nn.Conv2d(8, 8, 3, padding=1) for name in ("first", "second")}
    return Calls(run, stem=nn.Conv2d(3, 8, 3), **convolutions, head=nn.Linear(8, 3))


def recurrent(*, batch_first: bool = True, last: bool = False) -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        states = self.lstm(self.embed(x))[0]
        return self.head(states[:, -1] if last else states)  # type: ignore[no-any-return]

    lstm = nn.LSTM(8, 16, batch_first=batch_first)
    return Calls(run, embed=nn.Embedding(20, 8), lstm=lstm, head=nn.Linear(16, 5))


def gated() -> nn.Module:
    """A block as Llama's: attention, and a gate whose product is what the last layer is fed."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = self.embed(x)
        n = self.norm(x)
        heads = (layer(n) for layer in (self.q, self.k, self.v))
        x = x + self.o(nn.functional.scaled_dot_product_attention(*heads))
        x = x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return self.head(x)  # type: ignore[no-any-return]

    flat = {name: nn.Linear(16, 16) for name in ("q", "k", "v", "o")}
    wide = {"gate": nn.Linear(16, 32), "up": nn.Linear(16, 32), "down": nn.Linear(32, 16)}
    rest = {"embed": nn.Embedding(20, 16), "norm": nn.LayerNorm(16), "head": nn.Linear(16, 20)}
    return Calls(run, **flat, **wide, **rest)


def loop() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 8)
        for step in range(x.shape[1]):
            state = torch.tanh(self.given(x[:, step]) + self.kept(state))
        return self.head(state)  # type: ignore[no-any-return]

    return Calls(run, given=nn.Linear(4, 8), kept=nn.Linear(8, 8), head=nn.Linear(8, 2))


ROWS, MAPS, WORDS = torch.ones(6, 4), torch.ones(2, 3, 8, 8), torch.ones(3, 5, dtype=torch.long)
MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, str]]] = {
    "mlp": (mlp, ROWS, {"2": "Dropout", "4": "Dropout"}),
    "behind the last batch norm alone": (normed, ROWS, {"5": "Dropout"}),
    "maps": (vgg, MAPS, {"3": "Dropout2d", "6": "Dropout", "8": "Dropout"}),
    "within branches alone": (residual, MAPS, {"second": "Dropout2d", "head": "Dropout"}),
    "sequences": (recurrent, WORDS, {"lstm": "LockedDropout", "head": "LockedDropout"}),
    "last state": (
        lambda: recurrent(last=True), WORDS, {"lstm": "LockedDropout", "head": "Dropout"}
    ),
    "gate": (gated, WORDS, {"down": "Dropout"}),
    "not in steps": (loop, torch.ones(3, 5, 4), {"head": "Dropout"}),
}  # fmt: skip
each_model = pytest.mark.parametrize(("make", "x", "where"), MODELS.values(), ids=MODELS)


@each_model
def test_it_stands_where_it_should(
    make: Callable[[], nn.Module], x: Tensor, where: dict[str, str]
) -> None:
    """Catches one before a batch norm, on a trunk, in each step of a loop, of single pixels."""
    model = make()
    done = insert(model, 0.25, x)
    assert done.rates == {f"{path}.{NAME}": 0.25 for path in where}
    kinds = {path: type(model.get_submodule(f"{path}.{NAME}")).__name__ for path in where}
    assert kinds == where
    sites = {site.path: site for site in dropkit.sites(model, x)}
    for path in done:
        assert (sites[path].rate, sites[path].fired_in_train) == (0.25, True)
        assert not sites[path].fired_in_eval


@each_model
def test_the_proof_counts_every_one_of_them(
    make: Callable[[], nn.Module], x: Tensor, where: dict[str, str]
) -> None:
    proven = insert(make(), 0.25, x).proof
    assert proven is not None
    assert proven.holds
    assert len(proven.rows) == len(where)
    for row in proven.rows:
        assert row.drawn >= 1 << 16
        assert row.realized == pytest.approx(0.25, abs=0.012)


@each_model
def test_nothing_of_the_state_changes_and_all_is_given_back(
    make: Callable[[], nn.Module], x: Tensor, where: dict[str, str]
) -> None:
    model = make()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [name for name, _ in model.named_modules()]
    expected = model.eval()(x)
    model.train()
    torch.manual_seed(1)
    drawn = torch.rand(2)
    torch.manual_seed(1)
    done = insert(model, 0.25, x)
    assert torch.equal(torch.rand(2), drawn)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.eval()(x), expected)
    model.load_state_dict(state, strict=True)
    make().load_state_dict(model.state_dict(), strict=True)
    done.restore()
    done.restore()
    assert [name for name, _ in model.named_modules()] == modules
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks_with_kwargs for module in model.modules())


def test_masks_are_those_of_their_law() -> None:
    """Whole channels; one mask for all steps, in either layout. Catches the wrong axis."""

    def drops(model: nn.Module, path: str, x: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[tuple[Tensor, Tensor]] = []
        insert(model, {path: 0.5}, x)
        layer: Any = model.get_submodule(f"{path}.{NAME}")
        layer.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
        model(x)
        return seen[0]

    for path, make, x, axes in (
        ("3", vgg, torch.rand(64, 3, 8, 8), (2, 3)),
        ("lstm", recurrent, torch.randint(0, 20, (90, 40)), (1,)),
        ("lstm", lambda: recurrent(batch_first=False), torch.randint(0, 20, (40, 90)), (0,)),
    ):
        came, gave = drops(make(), path, x)
        kept = torch.where(came != 0, (gave != 0).float(), torch.nan)
        share = kept.nanmean(axes, keepdim=True)
        assert torch.equal(share.nan_to_num(0), share.nan_to_num(0).round())
        assert 0.3 < float(share.nanmean()) < 0.7  # of 512 masks and more: 9 standard deviations


def test_packed_sequences_are_dropped_alike() -> None:
    lstm = nn.GRU(8, 16, batch_first=True)
    model = Calls(
        lambda self, x: self.head(
            self.lstm(
                pack_padded_sequence(self.embed(x), torch.tensor([5, 3, 2]), batch_first=True)
            )[1][-1]
        ),
        embed=nn.Embedding(20, 8), lstm=lstm, head=nn.Linear(16, 5),
    )  # fmt: skip
    done = insert(model, 0.25, WORDS)
    assert set(done.rates) == {f"lstm.{NAME}", f"head.{NAME}"}


# ---- what is done to the model afterwards


def zeros(model: nn.Module, x: Tensor) -> int:
    """How many of what comes into the last layer of the network of `mlp` are 0."""
    seen: list[Tensor] = []
    layer: Any = model.get_submodule(f"4.{NAME}")
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out))
    model(x)
    handle.remove()
    return int((seen[0] == 0).sum())


X = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_drop_by_themselves(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = mlp()
    done = insert(model, 0.5, X)
    other = copied(model)
    done.restore()
    assert zeros(other, X) > 500  # of 1,600 about half: fewer have a chance below 1e-50
    assert zeros(other.eval(), X) == 0
    done.restore(other)
    assert [name for name, _ in other.named_modules()] == [n for n, _ in model.named_modules()]


def test_rates_of_what_was_put_in_are_levers_of_a_plan() -> None:
    model = mlp()
    insert(model, 0.5, X)
    plan = dropkit.rates(model, X)
    assert plan.rates == {f"2.{NAME}.p": 0.5, f"4.{NAME}.p": 0.5}
    plan["hidden"] = 0.1
    assert plan.apply().proof.holds  # type: ignore[union-attr]
    assert 50 < zeros(model, X) < 320  # 160 expected; outside of it less than 1 in 1e20


def test_a_compiled_model_drops_and_knows_its_mode() -> None:
    model = mlp()
    insert(model, 0.5, X)
    compiled = torch.compile(model, backend="eager")
    assert not torch.equal(compiled(X), compiled(X))
    model.eval()
    assert torch.equal(compiled(X), compiled(X))
    assert torch.equal(compiled(X), model(X))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_a_wrapped_model_drops_and_keeps_its_keys() -> None:
    model = mlp()
    keys = list(model.state_dict())
    insert(model, 0.5, X)
    torch.distributed.init_process_group(
        "gloo",
        store=torch.distributed.HashStore(),  # type: ignore[attr-defined]
        rank=0,
        world_size=1,
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert list(wrapped.module.state_dict()) == keys
        wrapped(X).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert zeros(model, X) > 500
        assert not torch.equal(wrapped(X), wrapped(X))
    finally:
        torch.distributed.destroy_process_group()


def test_gradients_come_through_what_was_kept() -> None:
    model = mlp()
    insert(model, {"4": 0.5}, X)
    model(X).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_block_takes_it_out_again() -> None:
    model = mlp()
    with insert(model, 0.5, X) as done:
        assert len(done) == 2
        assert "2 dropouts put in" in str(done)
    assert len(dropkit.sites(model, X)) == 0


def test_a_layer_that_is_fed_nothing_at_first_is_proven_by_its_law() -> None:
    """As experts are, and parts for sounds that a batch has none of."""
    model = Calls(
        lambda self, x: self.last(self.first(x[:0]).relu()),
        first=nn.Linear(4, 32), last=nn.Linear(32, 2),
    )  # fmt: skip
    proven = insert(model, 0.25, X).proof
    assert proven is not None
    assert proven.rows[0].realized == pytest.approx(0.25, abs=0.012)


def test_a_model_without_values_is_proven_alike() -> None:
    with torch.device("meta"):
        model = vgg()
    proven = insert(model, 0.25, MAPS).proof
    assert proven is not None
    assert [row.drawn for row in proven.rows] == [1 << 16] * 3


def test_layers_that_are_called_by_name_are_fed_alike() -> None:
    model = Calls(
        lambda self, x: self.last(input=self.first(input=x).relu()),
        first=nn.Linear(4, 32), last=nn.Linear(32, 2),
    )  # fmt: skip
    done = insert(model, 0.5, X)
    assert set(done.rates) == {f"last.{NAME}"}


# ---- what is asked


def test_rates_go_by_role_and_by_path() -> None:
    done = insert(vgg(), {"conv": 0.1, "hidden": 0.4, "8": 0.3}, MAPS, prove=False)
    assert done.rates == {f"3.{NAME}": 0.1, f"6.{NAME}": 0.4, f"8.{NAME}": 0.3}
    assert done.proof is None
    done = insert(mlp(), {"hidden": 0.4, "2": 0.2}, ROWS)
    assert done.rates == {f"2.{NAME}": 0.2, f"4.{NAME}": 0.4}


def test_the_input_is_dropped_only_where_it_is_named() -> None:
    assert f"0.{NAME}" not in insert(mlp(), 0.2, ROWS).rates
    assert insert(mlp(), {"input": 0.2}, ROWS).rates == {f"0.{NAME}": 0.2}
    assert insert(mlp(), {"0": 0.2}, ROWS).rates == {f"0.{NAME}": 0.2}


def test_what_a_recommendation_says_is_put_in() -> None:
    model = vgg()
    said = dropkit.recommend(model, MAPS, rows=500)
    assert insert(model, said, MAPS).rates == {
        f"{path}.{NAME}": rate for path, rate in said.inserts.items()
    }


def dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 2))


BAD: dict[str, tuple[Callable[[], Inserted], str]] = {
    "no module": (lambda: insert(3, 0.1), "expected a module of torch"),  # type: ignore[arg-type]
    "scripted": (lambda: insert(torch.jit.script(mlp()), 0.1, ROWS), "runs as Python"),
    "compiled": (
        lambda: insert(torch.compile(mlp(), backend="eager"), 0.1, ROWS),  # type: ignore[arg-type]
        "not compiled yet",
    ),
    "rate": (lambda: insert(mlp(), 1.0, ROWS), "rates: expected a rate between 0 and 1; got 1.0"),
    "rate of a name": (lambda: insert(mlp(), {"hidden": -0.1}, ROWS), "hidden: expected a rate"),
    "no rate": (lambda: insert(mlp(), "0.1", ROWS), "got '0.1'"),  # type: ignore[arg-type]
    "no such name": (lambda: insert(mlp(), {"3": 0.1}, ROWS), "'3' fits none. It has 'input'"),
    "no such role": (lambda: insert(mlp(), {"conv": 0.1}, ROWS), "'conv' fits none"),
    "batch norm": (
        lambda: insert(normed(), {"2": 0.1}, ROWS), "before 2: the batch norm 3 comes after it"
    ),
    "trunk": (
        lambda: insert(residual(), {"first": 0.1}, MAPS), "goes to .* as well, undropped"
    ),
    "steps": (lambda: insert(loop(), {"kept": 0.1}, torch.ones(3, 5, 4)), "it runs in steps"),
    "there": (lambda: insert(dropped(), 0.1, ROWS), "a dropout stands there already"),
    "nothing to put it before": (lambda: insert(nn.ReLU(), 0.1, ROWS), "calls no layer of torch"),
    "other inputs": (lambda: insert(mlp(), 0.1, torch.ones(2, 9)), "expected inputs"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of making what is refused
@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        call()


def test_twice_is_refused_and_changes_nothing() -> None:
    model = mlp()
    insert(model, {"2": 0.5}, ROWS)
    with pytest.raises(SettingError, match="a dropout stands there already"):
        insert(model, {"2": 0.1, "4": 0.1}, ROWS)
    assert list(dropkit.rates(model, ROWS).rates.values()) == [0.5]


def test_what_does_not_drop_as_asked_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer refuses its mode: it drops in evaluation as well."""

    class Stubborn(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, self.p, True)

    monkeypatch.setattr(nn, "Dropout", Stubborn)
    model = mlp()
    with pytest.raises(PlanError, match="expected to drop nothing in evaluation mode"):
        insert(model, 0.5, ROWS)
    assert not any(NAME in name for name, _ in model.named_modules())
