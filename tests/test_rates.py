"""Plans of rates: what moves a rate is found, what is asked is dropped, all is given back."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
import dropkit.nn
from dropkit.errors import DropkitWarning, PlanError, SettingError
from dropkit.inspection.names import is_within
from dropkit.planning.plan import Plan
from dropkit.planning.showing import labelled
from planned_models import Block, Config, Literal, Model, X, planned, state

# ---- what moves a rate


def test_what_a_rate_hangs_on_is_seen() -> None:
    """Caught: by the nearest attribute of the same value (0.3 is also 1 - keep_prob), by name."""
    ways = {
        name: (lever.site.holder, lever.sign)
        for name, lever in labelled(planned(Block(Config())).levers)
    }
    line = next(name for name in ways if name.startswith("@"))
    assert ways == {
        line: ("", 1),
        "keep_prob": ("keep_prob", -1),
        "zero": ("zero", 1),
        "config.rate": ("config.rate", 1),
        "drop_prob": ("drop_prob", 1),
        "drop.p": ("drop.p", 1),
        "rnn.dropout": ("rnn.dropout", 1),
        "encoder.self_attn.dropout": ("encoder.self_attn.dropout", 1),
        "encoder.dropout.p": ("encoder.dropout.p", 1),
        "encoder.dropout1.p": ("encoder.dropout1.p", 1),
        "encoder.dropout2.p": ("encoder.dropout2.p", 1),
    }


def test_to_read_a_plan_changes_nothing() -> None:
    """Caught: numbers that stay nudged, a mode that stays training, random state."""
    model = Model().eval()
    before, bits, seed = (
        state(model),
        [p.clone() for p in model.parameters()],
        torch.get_rng_state(),
    )
    planned(model)
    assert state(model) == before
    assert all(map(torch.equal, bits, model.parameters()))
    assert torch.equal(seed, torch.get_rng_state())


def test_numbers_that_are_no_rates_are_left() -> None:
    model = Model()
    plan = planned(model)
    plan["blocks"] = 0.4
    plan.apply()
    assert all(block.eps == 1e-6 for block in model.blocks)


# ---- what is asked is what is dropped


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.6, 1.0])
def test_every_site_is_moved_and_counted(rate: float) -> None:
    model = Model()
    before = state(model)
    plan = planned(model)
    plan["blocks"] = rate
    plan["path"] = min(rate, 0.9)  # of 1 this one divides by 0
    done = plan.apply()
    assert done.proof is not None and done.proof.holds, done.proof
    assert [row.asked for row in done.proof.rows].count(rate) >= 30
    plan.restore()
    assert state(model) == before


def test_a_wrong_rate_is_found() -> None:
    """Caught: a proof that looks at attributes, and not at what is dropped."""

    class Stubborn(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, max(self.p, 0.3), self.training)

    model = nn.Sequential(nn.Linear(8, 8), Stubborn(0.5), nn.Linear(8, 8))
    plan = planned(model)
    plan["1"] = 0.2
    with pytest.raises(PlanError, match=r"1 \(dropout\): asked 0\.2, dropped 0\.[23]"):
        plan.apply()
    assert model[1].p == 0.5
    plan["1"] = 0.4
    assert plan.apply().proof is not None


def test_sites_of_one_number_can_be_told_apart() -> None:
    """Caught: the number is written for the last that asked."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p, self.layer = 0.5, nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(F.dropout(x, self.p, self.training))
            return self.layer(F.dropout(x, self.p, self.training))

    plan = planned(Two())
    first, second = (lever.site.place.line for lever in plan if lever.site.place)
    plan[f"p@{first}"] = 0.1
    assert set(plan.rates.values()) == {0.1, 0.5}
    done = plan.apply()
    assert done.proof is not None and [row.asked for row in done.proof.rows] == [0.1, 0.5]
    assert plan.model.p == 0.5
    plan[f"p@{second}"] = 0.1
    plan.apply()
    assert plan.model.p == 0.1
    assert not plan.model._forward_pre_hooks


def test_parts_with_the_same_rate_in_the_source_are_left() -> None:
    """Caught: a handler that takes every call at this rate for the one of its module."""

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.25, self.training)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(F.dropout(x, 0.25, self.training))

    plan = planned(Outer())
    outer = next(lever for lever in plan if not lever.path)
    plan[f"@{outer.site.place.line}"] = 0.9  # type: ignore[union-attr]
    done = plan.apply()
    assert done.proof is not None
    assert sorted(row.asked for row in done.proof.rows) == [0.25, 0.9]


def test_layers_that_hang_on_one_number_alone_cannot_be_asked_for_two_rates() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop_prob = 0.2

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                if self.training:
                    mask = x.new_empty(x.shape[0], 1, 1).bernoulli_(1 - self.drop_prob)
                    x = x * mask / (1 - self.drop_prob)
            return x

    plan = planned(Twice())
    plan["path"] = 0.3
    assert plan.apply().proof is not None


def test_a_rate_that_nothing_moves_is_said_with_its_line() -> None:
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                x = x * (torch.rand_like(x) > 0.25) / 0.75
            return self.drop(x)

    plan = planned(Hand())
    assert [lever.rate for lever in plan.fixed] == [0.25]
    with pytest.warns(DropkitWarning, match=r"the rate of .* at .*test_rates\.py:\d+"):
        plan.off()
    assert plan.rates["drop.p"] == 0
    line = plan.fixed[0].site.place.line  # type: ignore[union-attr]
    with pytest.raises(SettingError, match="written in the source"):
        plan[f"@{line}"] = 0.1


class Skipping(nn.Module):
    """Its layers are left out at random, and the second expert sees what is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.layerdrop, self.layers = 0.0, nn.ModuleList(nn.Dropout(0.1) for _ in range(3))
        self.experts = nn.ModuleList(nn.Dropout(0.1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or torch.rand([]) >= self.layerdrop:
                x = layer(x)
        return self.experts[0](x) if x.sum() > 0 else self.experts[1](x)


def test_layers_that_are_left_out_at_random_are_waited_for() -> None:
    """Caught: a proof of one pass, in which half of the layers did not run."""
    plan = planned(Skipping())
    plan.update({"path": 0.5, "layers": 0.3})
    done = plan.apply()
    assert done.proof is not None
    assert not done.proof.unseen
    assert {row.drawn for row in done.proof.rows if "layers" in row.name} == {65_536}


def test_what_did_not_run_is_said() -> None:
    model = Skipping()
    plan = planned(model, X.abs())
    plan["experts"] = 0.4
    assert plan.apply().proof is not None
    plan._inputs = (-X.abs() - 1,), {}
    with pytest.warns(DropkitWarning, match=r"did not run: experts\.0 \(dropout\)"):
        plan.apply()


def test_a_model_that_cannot_run_at_these_rates_is_given_back() -> None:
    class Picky(nn.Dropout):
        def forward(self, x: Tensor) -> Tensor:
            if self.p > 0.5:
                raise TypeError("too high for me")
            return super().forward(x)

    model = nn.Sequential(Picky(0.1))
    plan = planned(model)
    plan["0"] = 0.9
    with pytest.raises(PlanError, match="it raised TypeError: too high for me"):
        plan.apply()
    assert model[0].p == 0.1


# ---- names


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a.b", ["a.b", "a.b.c"]),
        ("a.*.c", ["a.b.c"]),
        ("layer.0-5", ["layer.0", "layer.5.x"]),
        ("layer.10-11.x", ["layer.10.x"]),
        ("", [""]),
    ],
)
def test_names_of_paths(name: str, fits: list[str]) -> None:
    """Caught: a prefix of letters (layer.1 for layer.10), ranges as letters, an open end."""
    paths = ["", "a.b", "a.b.c", "layer.0", "layer.5.x", "layer.10.x", "layer.6", "a.bc"]
    assert [path for path in paths if is_within(path, name)] == fits


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda plan: plan.update({"recurent": 0.1}), "Try 'recurrent'"),
        (lambda plan: plan.__setitem__("blocks.7", 0.1), "fits none of its 33 sites"),
        (lambda plan: plan.__setitem__("hidden", 1.5), "from 0 to 1, the fraction"),
        (lambda plan: plan.__setitem__("hidden", float("nan")), "got nan"),
        (lambda plan: plan.__setitem__("hidden", True), "got True"),
        (lambda plan: plan.__setitem__(3, 0.1), "the name of a role or a path; got 3"),
        (lambda plan: plan.scale(-1), "a number from 0 on; got -1"),
        (lambda plan: plan.update({"blocks.0": 0.1, "blocks.0-1": 0.2}), None),
        (lambda plan: plan.update({"blocks.0.*": 0.1, "blocks.*.drop": 0.2}), "expected one rate"),
        (lambda plan: plan.load("rates = 3"), "expected a plan"),
        (lambda plan: plan.load("= 3"), "as TOML"),
        (
            lambda plan: plan.load('{"format": "dropkit-plan", "version": 9, "rates": {}}'),
            "version 1",
        ),
    ],
)
def test_what_cannot_be_asked(ask: Callable[[Plan], None], says: str | None) -> None:
    plan = planned()
    before = plan.rates
    if says is None:
        ask(plan)
        assert plan.rates["blocks.0.drop.p"] == 0.1
        assert plan.rates["blocks.1.drop.p"] == 0.2
        return
    with pytest.raises(SettingError, match=says):
        ask(plan)
    assert plan.rates == before


def test_a_plan_is_text_and_comes_back() -> None:
    plan = planned()
    plan["hidden"] = 0.12
    plan["blocks.1"] = 0.01
    for written in (plan.to_json(), plan.to_toml()):
        other = planned().load(written)
        assert other.rates == plan.rates
    assert json.loads(plan.to_json())["rates"]["blocks.1.drop.p"] == 0.01


def test_a_path_goes_before_a_role_whatever_their_order() -> None:
    plan = planned()
    plan.load(
        'format = "dropkit-plan"\nversion = 1\n[rates]\n"blocks.0.rnn" = 0.0\nrecurrent = 0.3'
    )
    assert plan["recurrent"] == {
        "blocks.0.rnn.dropout": 0.0,
        "blocks.1.rnn.dropout": 0.3,
        "blocks.2.rnn.dropout": 0.3,
    }


def test_scale_off_reset() -> None:
    plan = planned()
    plan.scale(0.5, "recurrent")
    assert set(plan["recurrent"].values()) == {0.05}
    plan.scale(100)
    assert max(plan.rates.values()) == 1.0
    plan.off("blocks.0")
    assert set(plan["blocks.0"].values()) == {0.0}
    plan.reset()
    assert not plan.changes


def test_a_plan_reads_as_a_table() -> None:
    plan = planned()
    plan["recurrent"] = 0.4
    lines = str(plan).splitlines()
    assert lines[0] == "Model: 33 sites, 3 at another rate than the model's"
    row = next(line for line in lines if "rnn" in line)
    assert row.split() == ["recurrent", "blocks.0-2.rnn.dropout", "0.1", "0.4", "attribute"]


# ---- a model with a plan


def test_a_plan_is_lifted_at_the_end_of_its_block_also_by_an_error() -> None:
    model = Model()
    before, plan = state(model), planned(model)
    plan.off()
    with pytest.raises(ZeroDivisionError), plan.applied():
        assert model.blocks[0].drop.p == 0
        raise ZeroDivisionError
    assert state(model) == before


def test_without_dropout_two_passes_of_training_are_one() -> None:
    model = Model()
    plan = planned(model)
    plan.off()
    plan.apply()
    assert torch.equal(model.train()(X), model(X))


def test_copies_and_states_keep_what_they_should() -> None:
    """Caught: rates in the state dictionary; a copy that asks the model it was made of."""
    model = Literal()
    keys = list(model.state_dict())
    plan = planned(model)
    plan["input"] = 1.0
    plan.apply()
    assert list(model.state_dict()) == keys
    twin, thawed = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    plan.restore()
    for kept in (twin, thawed):
        assert not (kept.train()(X) - kept.layer.bias).any()
    assert (model.train()(X) - model.layer.bias).any()
    assert not model._forward_pre_hooks


def test_a_compiled_model_takes_other_rates_without_compiling_anew() -> None:
    """Caught: rates as numbers, of which a compiler makes constants."""
    from torch._dynamo.testing import CompileCounterWithBackend

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.drop(self.layer(x)), 0.25, self.training)
            return x + self.attention(x, x, x, need_weights=False)[0]

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    model = Mixed()
    plan = planned(model)
    plan.apply(compiled=True)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    compiled(X)
    for rate in (0.1, 0.9, 1.0, 0.0):
        plan.update(dict.fromkeys(("attention", "drop"), rate))
        plan[next(name for name in plan.rates if "@" in name)] = rate
        plan.apply()
        compiled(X)
    assert counter.frame_count == 1
    assert torch.equal(compiled(X), compiled(X))
    assert model.drop.p == 0.5


def test_a_plan_of_a_model_that_has_changed_since_is_refused() -> None:
    model = Model()
    plan = planned(model)
    model.blocks[1].drop = nn.Dropout(0.5)
    plan["blocks.1.drop"] = 0.1
    with pytest.raises(SettingError, match=r"blocks\.1\.drop .* is no more in it"):
        plan.apply()


def test_a_model_on_the_meta_device_has_a_plan() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    for x in (X.to("meta"), X):
        plan = planned(model, x)
        plan["1"] = 0.25
        done = plan.apply()
        assert done.proof is not None
        assert done.proof.rows[0].drawn == 65_536
        assert model[1].p == 0.25
        plan.restore()


@pytest.mark.parametrize(
    "layer",
    [
        dropkit.nn.Dropout(0.4),
        dropkit.nn.AlphaDropout(0.4),
        dropkit.nn.DropPath(0.4),
        nn.AlphaDropout(0.4),
        nn.FeatureAlphaDropout(0.4),
        nn.Dropout1d(0.4),
    ],
    ids=lambda layer: f"{type(layer).__module__}.{type(layer).__name__}",
)
def test_layers_are_moved(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 8))
    plan = planned(model)
    plan["1"] = 0.15
    assert plan.apply().proof is not None
