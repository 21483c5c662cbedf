"""The map finds every way to drop, says what was seen, and leaves no trace."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropkit
from dropkit.errors import SettingError
from dropkit.intercept import untouched, watching
from dropkit.records import Site
from map_models import Everything, Shared, Steps, Writes

X = torch.linspace(-1, 1, 2 * 5 * 8).view(2, 5, 8)


def by_line(found: tuple[Site, ...] | list[Site]) -> list[tuple[object, ...]]:
    return [(s.path, s.kind, s.role, s.rate, s.fired_in_train, s.fired_in_eval) for s in found]


EXPECTED = [
    ("drop", "dropout", "hidden", 0.3, True, False),
    ("path", "path", "path", 0.25, True, False),
    ("attention", "dropout", "attention", 0.1, True, False),
    ("lstm", "recurrent", "recurrent", 0.2, True, False),
    ("", "path", "path", 0.15, True, False),
    ("", "mask", "recurrent", 0.25, True, False),
    ("", "dropout", "recurrent", 0.4, True, False),
    ("", "attention", "attention", 0.05, True, True),
    ("idle", "dropout", "hidden", 0.6, False, False),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_way_to_drop_is_a_site(device: str) -> None:
    model = Everything().to(device)
    found = dropkit.sites(model, X)
    assert by_line(list(found)) == EXPECTED
    assert [site.holder for site in found] == [
        "drop.p",
        "",
        "attention.dropout",
        "lstm.dropout",
        "layerdrop",
        "",
        "dropout",
        "",
        "idle.p",
    ]
    assert found.meta is (device == "meta")
    assert found.unseen == ()


def test_a_site_knows_its_line_and_its_neighbours() -> None:
    found = dropkit.sites(Everything(), X)
    functional = next(site for site in found if site.rate == 0.4)
    file, line = functional.source or ("", 0)
    assert file.endswith("map_models.py")
    with open(file, encoding="utf-8") as source:
        assert "F.dropout" in source.readlines()[line - 1]
    drop = found[0]
    assert [near.step for near in drop.fed_by] == ["activation", "linear", "input"]
    assert {"dropout", "residual_add", "linear", "softmax"} < {near.step for near in drop.feeds}
    assert drop.shape == (2, 5, 8) and drop.calls == 1


def test_masks_are_measured_where_there_are_values() -> None:
    many = X.repeat(16, 1, 1)  # so many paths that some are kept, in a single pass too
    path, mask = (dropkit.sites(Everything(), many)[at] for at in (1, 5))
    assert path.measured is not None and path.shared == (1, 2)
    assert path.measured.scale == pytest.approx(1 / 0.75)
    assert mask.measured is not None and mask.measured.scale == pytest.approx(1 / 0.75)
    share = mask.measured.dropped / mask.measured.drawn
    assert abs(share - 0.25) < 6 * (0.25 * 0.75 / mask.measured.drawn) ** 0.5
    assert all(site.measured is None for site in dropkit.sites(Everything().to("meta"), X))


def test_calls_are_told_apart_where_code_stands_in_no_file() -> None:
    names: dict[str, Any] = {}
    exec(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        x = torch.nn.functional.dropout(x, 0.1, self.training)\n"
        "        return torch.nn.functional.dropout(x + 1, 0.2, self.training)\n",
        names,
    )
    found = dropkit.sites(names["Net"](), X)
    assert [(site.rate, site.place) for site in found] == [(0.1, None), (0.2, None)]


@pytest.mark.parametrize(("locked", "in_step"), [(False, [False, True]), (True, [False])])
def test_steps_of_a_recurrence(locked: bool, in_step: list[bool]) -> None:
    found = dropkit.sites(Steps(locked), torch.ones(2, 7, 4))
    assert [site.in_step for site in found] == in_step
    assert found[-1].calls == (1 if locked else 7)


def test_depth_is_no_time() -> None:
    (site,) = dropkit.sites(Shared(), X[:, :4])
    assert site.calls == 4 and not site.in_step


def test_heads_are_no_time() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(4):
                x = x + self.drop(self.attention(x, x, x)[0])
            return x

    site = dropkit.sites(Attends(), X[:, :4])[-1]
    assert site.calls == 4 and not site.in_step


def test_fused_paths_are_seen() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = dropkit.sites(layer, X)
    assert [site.path for site in found] == ["self_attn", "dropout1", "dropout", "dropout2"]
    assert all(site.bypassed and site.fired_in_train and not site.fired_in_eval for site in found)
    slow = dropkit.sites(nn.TransformerEncoderLayer(8, 2, 16), X)
    assert len(slow) == 4


def test_our_own_layers_are_sites() -> None:
    model = nn.Sequential(
        nn.Conv1d(8, 8, 1), dropkit.nn.Dropout1d(0.2), dropkit.nn.DropPath(0.3), nn.Flatten()
    )
    found = dropkit.sites(model, X.transpose(1, 2))
    assert [(site.kind, site.rate, site.shared) for site in found] == [
        ("feature_dropout", 0.2, (2,)),
        ("path", 0.3, (1, 2)),
    ]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, of scripting
def test_scripted_and_compiled_models_are_seen() -> None:
    inner = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    (compiled,) = dropkit.sites(torch.compile(inner), X)  # type: ignore[arg-type]
    assert (compiled.path, compiled.rate) == ("1", 0.5)
    (scripted,) = dropkit.sites(torch.jit.script(inner), X)
    assert scripted.fired_in_train and not scripted.fired_in_eval and scripted.rate == 0.5


def bits(x: Tensor) -> Tensor:
    return x.detach().reshape(-1).view(torch.uint8)


class State:
    """All of a model, and the random state, to the bit."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors = {
            name: (id(x), x.clone(), x.grad) for name, x in model.state_dict(keep_vars=True).items()
        }
        self.modes = [module.training for module in model.modules()]
        self.dicts = [
            {k: v.copy() if isinstance(v, list | dict | set) else v for k, v in vars(m).items()}
            for m in model.modules()
        ]
        self.random = torch.get_rng_state(), random.getstate(), str(np.random.get_state())

    def assert_same(self, other: State) -> None:
        assert self.tensors.keys() == other.tensors.keys()
        for name, (number, value, grad) in self.tensors.items():
            assert other.tensors[name][0] == number and other.tensors[name][2] is grad
            assert torch.equal(bits(value), bits(other.tensors[name][1]))
        assert self.modes == other.modes and self.random[1:] == other.random[1:]
        assert torch.equal(self.random[0], other.random[0])
        assert [list(d) for d in self.dicts] == [list(d) for d in other.dicts]
        for mine, theirs in zip(self.dicts, other.dicts, strict=True):
            for name in mine:
                assert mine[name] is theirs[name] or mine[name] == theirs[name], name


def test_nothing_is_left_of_it() -> None:
    model, x = Everything().eval(), X.clone()
    model.drop.train()
    before = State(model)
    dropkit.audit(model, x)
    before.assert_same(State(model))
    assert torch.equal(x, X)
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_nothing_is_left_where_a_model_writes_and_raises() -> None:
    model, x = Writes(), torch.ones(3, 4)
    before = State(model)
    found = dropkit.sites(model, x)
    assert any("RuntimeError: enough" in line for line in found.unseen)
    before.assert_same(State(model))
    assert torch.equal(x, torch.ones(3, 4))
    assert model.drop.p == 0.5 and model.calls == 0 and model.log == []


def test_nothing_is_left_of_an_interrupted_look() -> None:
    class Interrupted(Writes):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise KeyboardInterrupt

    model = Interrupted()
    before = State(model)
    with pytest.raises(KeyboardInterrupt):
        dropkit.sites(model, torch.ones(3, 4))
    before.assert_same(State(model))
    assert not torch.nn.modules.module._global_forward_hooks


def test_mutant_a_trace_would_be_seen() -> None:
    model = Writes()
    before = State(model)
    model(torch.ones(3, 4))
    with pytest.raises(AssertionError):
        before.assert_same(State(model))


def test_a_gradient_is_left_as_it_was() -> None:
    model = nn.Linear(3, 3)
    model(torch.ones(1, 3)).sum().backward()
    grad = model.weight.grad
    assert grad is not None
    was = grad.clone()
    with untouched(model):
        grad.zero_()
        model.weight.grad = None
    assert model.weight.grad is grad and torch.equal(grad, was)


def test_other_threads_and_other_models_are_not_seen() -> None:
    model, other = nn.Dropout(0.5), nn.Dropout(0.5)
    with watching(model) as watch:
        other(X)
        model(X)
    assert [call.where.path for call in watch.trace.calls] == ["Dropout", ""]
    assert [where.path for where in watch.trace.built] == ["Dropout"]


def test_a_model_that_looks_at_values_runs_on_made_up_ones() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            return F.dropout(x, 0.2, self.training) if x.sum() > -1e9 else x

    (site,) = dropkit.sites(Looks().to("meta"), X)
    assert (site.rate, site.fired_in_train) == (0.2, True)


@pytest.mark.parametrize(
    ("model", "x", "said"),
    [
        (nn.Linear(3, 3), torch.ones(2, 4), r"given \(2, 4\).*mat1 and mat2 shapes"),
        ("model", torch.ones(2), "expected a torch.nn.Module; got str"),
        (nn.LSTM(3, 3), "text", "given no tensor"),
    ],
)
def test_what_cannot_be_run_is_told(model: nn.Module, x: Tensor, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        dropkit.sites(model, x)


def test_a_copy_of_a_map_is_a_value() -> None:
    found = dropkit.sites(nn.Dropout(0.5), X)
    assert copy.copy(found) == found and found[""] == found.sites and len(found) == 1


@pytest.mark.parametrize("training", [True, False])
def test_an_exported_program_is_read(training: bool) -> None:
    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(8, 8)
            self.drop = nn.Dropout(0.3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.drop(torch.relu(self.up(x)))
            x = x * (torch.rand_like(x) > 0.2)
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)

    program = torch.export.export(Exported().train(training), (X,))
    drop, mask, attention = dropkit.sites(program)
    assert (drop.path, drop.owner, drop.kind) == ("drop", "Dropout", "dropout")
    assert drop.fired_in_train is drop.fired_in_eval is training
    assert [near.step for near in drop.fed_by] == ["activation", "linear", "input"]
    assert drop.place is not None and drop.place.file == __file__
    assert (mask.kind, mask.rate, mask.fired_in_eval) == ("mask", 0.2, True)
    assert (attention.kind, attention.rate, attention.role) == ("attention", 0.1, "attention")
    found = dropkit.audit(program, select=["DK1"])
    paths = ["", "", "drop"] if training else ["", ""]
    assert sorted(finding.path for finding in found.findings) == paths
    assert {finding.rule for finding in found.findings} == {"left-in-train-mode"}
    assert dict(found.not_applicable)["always-on-dropout"].startswith("needs modules with modes")


def test_a_map_can_be_read() -> None:
    found = dropkit.sites(Everything(), X)
    shown = str(found)
    assert shown.startswith("Everything: 9 sites") and "map_models.py:" in shown
    assert "<table>" in found._repr_html_() and "attention.dropout" not in shown


class Helper(nn.Module):
    """Two rates in one line; a mask kept for later; tensors and modules that stand in no tree."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Tensor | None = None
        self.norms = [nn.BatchNorm1d(8)]
        self.ema = torch.zeros(8)
        self.register_buffer("queue", torch.zeros(1, 8))
        self.generator = torch.Generator()

    def drop(self, x: Tensor, rate: float) -> Tensor:
        return F.dropout(x, rate, True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.drop(x, 0.2) if self.training else x)
        if self.mask is None:
            self.mask = (torch.rand_like(x) > 0.3).float()
        self.queue.data = torch.cat([self.queue, x])
        self.ema.mul_(0.9).add_(x.mean(0), alpha=0.1)
        x = x + torch.randn(8, generator=self.generator)
        return self.drop(x * self.mask, 0.7)


def test_a_helper_with_two_rates_is_two_sites_and_a_mask_is_drawn_in_each_pass() -> None:
    found = dropkit.sites(Helper(), X[0])
    rates = {s.rate: s.fired_in_eval for s in found if s.kind in ("dropout", "mask")}
    assert rates == {0.2: False, 0.3: True, 0.7: True}


def test_what_a_model_holds_outside_of_its_tree_is_given_back() -> None:
    model = Helper()
    norm, state = model.norms[0], model.generator.get_state()
    dropkit.sites(model, X[0])
    assert norm.running_mean is not None and norm.running_mean.count_nonzero() == 0
    assert not model.norms[0].num_batches_tracked and model.ema.count_nonzero() == 0
    assert model.queue.shape == (1, 8) and model.mask is None
    assert torch.equal(model.generator.get_state(), state)


def test_a_graph_from_before_still_has_its_backward() -> None:
    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))
            self.register_buffer("mean", torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            y = x * self.weight * self.mean
            if self.training:
                self.mean.mul_(0.9)  # type: ignore[operator]
            return y

    model = Averages().eval()
    loss = model(X).sum()
    dropkit.sites(model, X)
    loss.backward()
    assert model.weight.grad is not None


def test_what_is_given_is_copied() -> None:
    class Grows(nn.Module):
        def forward(self, x: Tensor, cache: dict[str, list[Tensor]], same: Tensor) -> Tensor:
            assert x is same
            cache["seen"].append(x.mul_(2))
            return F.dropout(x, 0.5, self.training)

    cache: dict[str, list[Tensor]] = {"seen": []}
    x = X.clone()
    assert len(dropkit.sites(Grows(), x, cache, x)) == 1
    assert cache == {"seen": []} and torch.equal(x, X)


def test_a_choice_between_two_values_drops_none() -> None:
    class Chooses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.rand_like(x) < 0.2
            x = torch.where(mask, torch.roll(x, 1, 0), torch.tanh(x)) if self.training else x
            return torch.where(mask, 0.0, x)

    between, mask = dropkit.sites(Chooses(), X)
    assert (between.kind, between.rate) == ("noise", None)
    assert (mask.kind, mask.rate, mask.fired_in_eval) == ("mask", 0.2, True)
