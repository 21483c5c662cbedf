"""Bugs that are put into models of torch by program are found, where they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropkit
from dropkit.rules import every
from rule_examples import Middle

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed
from benchmarks.zoo.hosts import Host, host, subjects
from benchmarks.zoo.injections import INJECTIONS
from benchmarks.zoo.mutants import tried

ON_MODELS = {rule.name for rule in every() if rule.on_model is not None}


@pytest.fixture(scope="module")
def encoder() -> Host:
    return next(host(one) for one in subjects(("torch",)) if one.name == "TransformerEncoder")


def test_each_rule_has_a_bug() -> None:
    assert {injection.rule for injection in INJECTIONS} == ON_MODELS


@pytest.mark.parametrize("rule", sorted(ON_MODELS))
def test_a_bug_is_found_where_it_is(rule: str, encoder: Host) -> None:
    """And what else is said is a consequence of it that is known to be true."""
    mine = [one for one in INJECTIONS if one.rule == rule]
    few = dict.fromkeys((mine[0], mine[-1]))  # all, in many models: make zoo-mutants
    rows = [row for one in few if (row := tried(encoder, one)) is not None]
    assert rows
    assert [row["bug"] for row in rows if not row["found"]] == []
    assert [extra for row in rows for extra in row["extra"] if not extra[-1]] == []


def test_a_model_without_a_bug_is_left_alone(encoder: Host) -> None:
    assert encoder.report.findings == ()


# ---- what mutants of larger models have shown


def found(model: nn.Module, rule: str, *inputs: Tensor) -> int:
    torch.manual_seed(0)
    report = dropkit.audit(model, *inputs, select=[rule])
    return len(report.findings)


SEQUENCE = torch.linspace(-3, 3, 2 * 7 * 16).sin().view(2, 7, 16)


@pytest.mark.parametrize("times", [2, 3])
def test_attention_that_is_used_again_in_depth_is_no_recurrence(times: int) -> None:
    def deep(self: nn.Module, x: Tensor) -> Tensor:
        for _ in range(times):
            x = self.layer(x)
        return self.head(x)

    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = Middle(deep, layer=layer, head=nn.Linear(16, 2))
    assert found(model, "redrawn-at-each-step", SEQUENCE) == 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_recurrence_is_found_however_often_it_is_run(times: int) -> None:
    def loops(self: nn.Module, x: Tensor) -> Tensor:
        for _ in range(times):
            state, given = torch.zeros_like(x[:, 0]), []
            for step in x.unbind(1):
                state = self.drop(self.cell(step, state))
                given.append(state)
            x = x + torch.stack(given, 1)
        return self.head(x)

    held = {"cell": nn.GRUCell(16, 16), "drop": nn.Dropout(0.1), "head": nn.Linear(16, 2)}
    model = Middle(loops, **held)
    assert found(model, "redrawn-at-each-step", SEQUENCE) == 1
    assert found(model, "dropout-on-residual-trunk", SEQUENCE) == 0


def test_logits_that_are_shifted_by_a_constant_are_predictions() -> None:
    def shifted(self: nn.Module, x: Tensor) -> Tensor:
        return self.drop(self.head(x)) + self.shift

    held = {"drop": nn.Dropout(0.1), "shift": torch.ones(5), "head": nn.Linear(16, 5)}
    assert found(Middle(shifted, **held), "dropout-on-output", SEQUENCE) == 1


def by_hand(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * torch.pow(x, 3))))


def normed(x: Tensor) -> Tensor:
    return torch.tanh(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)))


@pytest.mark.parametrize(("acts", "count"), [(by_hand, 1), (normed, 0), (torch.relu, 0)])
def test_an_activation_is_one_when_it_is_written_out(
    acts: Callable[[Tensor], Tensor], count: int
) -> None:
    def feeds(self: nn.Module, x: Tensor) -> Tensor:
        return self.last(acts(F.dropout(self.first(x), 0.1, self.training)))

    model = Middle(feeds, first=nn.Linear(16, 16), last=nn.Linear(16, 3))
    assert found(model, "dropout-before-activation", SEQUENCE) == count


def test_a_factor_of_another_mask_is_not_counted_again() -> None:
    def masks(self: nn.Module, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x * (torch.rand_like(x) >= 0.1) / 0.9
        return self.last(F.dropout(x, 0.1, self.training))

    model = Middle(masks, first=nn.Linear(16, 16), last=nn.Linear(16, 3))
    assert found(model, "dropout-scaled-twice", SEQUENCE) == 0


def test_a_factor_of_both_modes_makes_up_for_nothing() -> None:
    def bare(self: nn.Module, x: Tensor) -> Tensor:
        x = self.first(x) * self.factor
        return self.last(x * (torch.rand_like(x) >= 0.3) if self.training else x)

    held = {"first": nn.Linear(16, 16), "last": nn.Linear(16, 3), "factor": torch.tensor(4.0)}
    assert found(Middle(bare, **held), "dropout-without-scaling", SEQUENCE) == 1


def test_dropouts_before_it_do_not_hide_where_the_features_are() -> None:
    def residual(self: nn.Module, x: Tensor) -> Tensor:
        x = F.dropout(self.first(x), 0.1, self.training)
        return self.last(F.dropout1d(x.tanh(), 0.1, self.training))

    model = Middle(residual, first=nn.Linear(16, 24), last=nn.Linear(24, 3))
    assert found(model, "channel-dropout-over-wrong-axis", SEQUENCE) == 1
