"""Plans of rates: what moves a rate is found, what is asked is dropped, all is given back."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit
import dropkit.nn
from dropkit.errors import DropkitWarning, PlanError, SettingError
from dropkit.inspection.names import is_within
from dropkit.planning.plan import Plan
from dropkit.planning.showing import labelled

X = torch.linspace(-1, 1, 4 * 8 * 8).reshape(4, 8, 8)


class Config:
    def __init__(self) -> None:
        self.rate = 0.3


class Block(nn.Module):
    """Each way in which people write a rate down."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.keep_prob, self.zero, self.drop_prob, self.eps = 0.7, 0.0, 0.2, 1e-6
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.LSTM(8, 8, 2, dropout=0.1)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.15)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.25, self.training)
        x = F.dropout(x, 1 - self.keep_prob, self.training)
        if self.zero > 0:
            x = F.dropout(x, self.zero, self.training)
        x = F.dropout(x, self.config.rate, self.training)
        if self.training and self.drop_prob > 0:
            keep = 1 - self.drop_prob
            x = x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep).div(keep)
        return self.encoder(self.rnn(self.drop(x))[0])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = Config()
        self.blocks = nn.ModuleList(Block(config) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def planned(model: nn.Module | None = None, *inputs: Tensor) -> Plan:
    return dropkit.rates(model or Model(), *(inputs or (X,)))


def state(model: nn.Module) -> list[Any]:
    """Everything of a model that a plan may change."""
    return [
        (
            path,
            module.training,
            sorted((k, str(v)) for k, v in vars(module).items() if k != "config"),
        )
        for path, module in model.named_modules()
    ] + [vars(module.config) for module in model.modules() if hasattr(module, "config")]


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


class Literal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.dropout(x.relu(), 0.25, self.training))


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


class Computed(nn.Module):
    """One number, and what is computed of it, on one line or in a part."""

    def __init__(self, parts: int = 2) -> None:
        super().__init__()
        self.p, self.parts = 0.4, parts

    def forward(self, x: Tensor) -> Tensor:
        rates = [self.p * (i + 1) / self.parts for i in range(self.parts)]
        return torch.stack([F.dropout(x, rate, self.training) for rate in rates])


ONES = torch.ones(64, 1024)


def fractions(values: Tensor) -> list[float]:
    """What was dropped; off by .01 once in 10^8 times and more."""
    return [float((value == 0).float().mean()) for value in values]


@pytest.mark.parametrize("parts", [2, 12])
def test_rates_that_are_computed_of_one_number_are_set_one_by_one(parts: int) -> None:
    """Caught: the number written, which moves what is computed of it, too."""
    torch.manual_seed(0)
    model = Computed(parts)
    plan = planned(model, ONES)
    assert plan.levers[0].rate == pytest.approx(0.4 / parts, abs=1e-12)
    plan.update(dict.fromkeys(("output", ""), 0.1))
    assert plan.apply().proof.holds
    assert fractions(model.train()(ONES)) == pytest.approx([0.1] * parts, abs=0.01)
    plan.restore()
    expected = [0.4 * (i + 1) / parts for i in range(parts)]
    assert fractions(model(ONES)) == pytest.approx(expected, abs=0.015)


def test_a_call_that_no_site_of_its_line_is_asked_for_is_found() -> None:
    """Caught: of the calls of one line, the best is taken as that of each of its sites."""
    model = Computed()
    plan = planned(model, ONES)
    for lever in plan:
        lever.asked = 0.1
    model.p = 0.1  # and what is computed of it is .05
    proof = plan.prove()
    assert not proof.holds
    assert proof.failed[0].realized == pytest.approx(0.05, abs=0.01)


def test_half_of_a_number_is_not_taken_for_another_number() -> None:
    """Caught: the second number is moved by twice as much as the first, and half of it alike."""

    class Half(nn.Module):
        def __init__(self, p: float, parts: int) -> None:
            super().__init__()
            self.p, self.parts = p, parts

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, self.p / self.parts, self.training)

    plan = planned(nn.Sequential(Half(0.1, 1), Half(0.2, 2)), X)
    first, second = plan
    assert first.number is not None
    assert second.number is None
    plan["output"] = 0.3
    assert plan.apply().proof.holds


def test_the_rate_of_a_part_moves_what_is_called_with_it() -> None:
    """As attention of Transformers' BERT has it. Caught: numbers of parts taken for strangers."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, self.dropout.p, self.training)

    plan = planned(nn.Sequential(Reads()))
    assert list(plan.rates) == ["0.dropout.p"]
    plan.off()
    assert [touched.what for touched in plan.apply().touched] == ["0.dropout.p"]


def test_a_configuration_that_is_frozen_is_left_as_it_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        rate: float = 0.3

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.drop = Frozen(), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(F.dropout(x, self.config.rate, self.training))

    model = Held()
    plan = planned(model)
    plan.off()
    assert plan.apply().proof.holds
    assert torch.equal(model.train()(X), X)
    plan.restore()
    with dropkit.disable(model, X) as off:
        assert off.proven
    assert (model.config.rate, model.drop.p) == (0.3, 0.5)


def test_what_is_no_part_of_the_model_is_said() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drops = [nn.Dropout(0.3)]

        def forward(self, x: Tensor) -> Tensor:
            return self.drops[0].train(self.training)(x)

    plan = planned(Listed())
    plan.apply()
    plan.off()
    with pytest.raises(SettingError, match=r"nn\.ModuleList"):
        plan.apply()


def test_a_text_of_what_cannot_be_moved_comes_back() -> None:
    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            x = x * (torch.rand_like(x) > 0.25) / 0.75 if self.training else x
            return self.drop(x)

    plan, other = planned(Mask()), planned(Mask())
    plan["drop"] = 0.2
    written = plan.to_toml()
    assert other.load(written).rates == plan.rates
    with pytest.raises(SettingError, match="can be moved"):
        other.load(written.replace("= 0.25 ", "= 0.3 "))
    moves = dropkit.RatePopulation([plan, other], ["drop"]).step([1.0, 2.0])
    assert moves[0].member == 1


def test_a_rate_that_grows_from_pass_to_pass_is_held() -> None:
    """Caught: a call known by the rate that it came with when it was looked at."""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += self.training
            free = F.dropout(x, self.passes / 8, self.training)
            return torch.stack([free, F.dropout(x, self.passes / 4, self.training)])

    torch.manual_seed(0)
    model = Growing()
    plan = planned(model, ONES)
    plan.levers[1].asked = 0.1
    plan.apply()
    for step in range(1, 4):
        assert fractions(model.train()(ONES)) == pytest.approx([step / 8, 0.1], abs=0.015)


def test_a_model_compiled_after_its_plan_is_not_taken_for_another_of_its_class() -> None:
    """Caught: a rate of the source, a constant in the program of a model without a plan."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch.compile(nn.Sequential(Literal()), backend="eager")(X)
    model = nn.Sequential(Literal())
    plan = planned(model, X)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        plan["0"] = 1.0
        plan.apply(prove=False)
        assert not (compiled(X) - model[0].layer.bias).any()
        plan.restore()
        assert (compiled(X) - model[0].layer.bias).any()


@pytest.mark.parametrize("step", [False, True])
def test_programs_of_other_models_of_the_class_are_not_used(step: bool) -> None:
    """Caught: a compiler asks for the class and not for hooks; a rate that is no short decimal."""

    def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
        model.train()
        return torch.compile((lambda x: model(x)) if step else model, backend="eager")

    torch.manual_seed(0)
    torch._dynamo.reset()
    compiled(nn.Sequential(nn.Dropout(1 / 3)))(ONES)
    model = nn.Sequential(nn.Dropout(1 / 3))
    before = compiled(model)
    before(ONES)
    plan = planned(model, ONES)
    plan["0"] = 0.6
    plan.apply(compiled=True)
    assert fractions(before(ONES)[None]) == pytest.approx([0.6], abs=0.01)
    assert fractions(compiled(model)(ONES)[None]) == pytest.approx([0.6], abs=0.01)


def test_paths_are_learned_as_roles_are() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)))
    learned = dropkit.LearnedRates(planned(model), ["0.2"], rows=10)
    assert learned.rates == {"0.2": 0.5}
    (model.train()(X).square().mean() + learned.penalty()).backward()
    assert all(logit.grad is not None for logit in learned.parameters())
    learned.load_state_dict(learned.state_dict())
    learned.settle()


# ---- beside what else changes a model


class Attending(nn.Module):
    """Attention and a dropout, at rates of the source."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        x = x + F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if self.training else 0.0)
        return F.dropout(x, 0.25, self.training)


def zeros(y: Tensor) -> float:
    return float((y == 0).float().mean())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_plan_holds_whatever_is_accelerated_before_or_after(compiled: bool) -> None:
    """Caught: a handler that comes later, and draws at the rate of the source."""
    for first in (True, False):
        model = Attending()
        x = X.repeat(32, 1, 1)
        if first:
            dropkit.accelerate(model)
        plan = planned(model)
        plan["output"] = 0.6
        plan.apply(compiled=compiled)
        dropkit.accelerate(model)
        assert abs(zeros(model(x)) - 0.6) < 0.05
        with dropkit.disable(model, X):
            assert zeros(model(x)) == 0
        dropkit.restore(model)
        plan.restore()
        assert not model._forward_pre_hooks


def test_samples_and_maps_see_the_rates_of_a_plan() -> None:
    """Caught: the rate of the source, in evaluation mode; one that was remembered."""
    model = Attending().eval()
    plan = planned(model)
    for rates in ((0.9, 0.6), (0.1, 0.6), (0.1, 0.2)):
        plan.update(dict(zip(("attention", "output"), rates, strict=True)))
        plan.apply()
        draws = dropkit.sample(model, X, draws=40, key=1)
        assert tuple(site.site.rate for site in draws.sites) == rates
        assert abs(zeros(draws.samples) - rates[1]) < 0.05
        assert tuple(site.rate for site in dropkit.sites(model, X)) == rates
    plan.restore()
    assert tuple(site.rate for site in dropkit.sites(model, X)) == (0.3, 0.25)


def test_a_model_without_dropout_has_an_empty_plan() -> None:
    plan = planned(nn.Linear(8, 8))
    plan.off()
    done = plan.apply()
    assert (len(plan), done.touched, done.proof.holds) == (0, (), True)


def test_names_of_which_nothing_can_be_learned_leave_the_model() -> None:
    """Caught: hooks of the names before; a rate that nothing but its penalty moves."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = Literal()

        def within(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.25, self.training)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.within, self.keys(x), use_reentrant=False)

    model = Checkpointed()
    plan = planned(model)
    for names, says in ((["keys", "nowhere"], "nowhere"), (["keys", "output"], "checkpoint")):
        with pytest.raises(SettingError, match=says):
            dropkit.LearnedRates(plan, names, rows=10)
    with pytest.raises(SettingError, match="later name"):
        dropkit.LearnedRates(plan, ["keys", "key*"], rows=10)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert dropkit.LearnedRates(plan, ["keys"], rows=10).rates == {"keys": 0.25}


def test_a_text_says_nothing_of_what_no_name_tells_apart() -> None:
    """Caught: one name twice in a table, which is none; the last of two rates for both."""

    class OneLine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(F.dropout(F.dropout(x, 0.25, self.training), 0.1, self.training))

    plan = planned(OneLine())
    plan["drop"] = 0.2
    for written in (plan.to_toml(), plan.to_json()):
        assert planned(OneLine()).load(written).changes == {"drop.p": (0.5, 0.2)}
    plan.levers[0].asked = 0.3
    for write in (plan.to_toml, plan.to_json):
        with pytest.raises(SettingError, match=r"got 0\.1, 0\.3.*lines of their own"):
            write()


def test_of_two_plans_of_one_model_the_last_holds() -> None:
    """Caught: the first takes the rate that the second asks for one of the model, and sets its."""
    model = Literal()
    first = planned(model)
    first[""] = 0.5
    first.apply()
    second = planned(model)
    second[""] = 1.0
    assert second.apply().proof.holds
    learned = dropkit.LearnedRates(second, rows=10)
    model.train()(X).sum().backward()
    assert all(logit.grad is not None for logit in learned.parameters())
    learned.settle()
    second.restore()
    first.restore()
    assert not model._forward_pre_hooks
