"""Every rule on models: its page, its examples, and what an audit leaves behind."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dropkit
from dropkit.inspection.passes import tensors
from dropkit.intercept.untouched import Before
from dropkit.records import Report
from dropkit.rules import Rule, every, named
from dropkit.rules.base import GROUPS, SECTIONS
from rule_examples import made

RULES = every()
ON_MODELS = [rule for rule in RULES if rule.on_model is not None]
WRONG = [(rule, source) for rule in ON_MODELS for source in rule.wrong]
RIGHT = [(rule, source) for rule in ON_MODELS for source in rule.right]


def told(pair: tuple[Rule, str]) -> str:
    rule, source = pair
    sort, examples = ("wrong", rule.wrong) if source in rule.wrong else ("right", rule.right)
    return f"{rule.name}-{sort}-{examples.index(source) + 1}"


def audited(source: str, **settings: Any) -> Report:
    model, inputs, more = made(source)
    return dropkit.audit(model, *inputs, **more, **settings)


# ---- the registry


def test_rules_are_sorted_and_apart() -> None:
    codes = [rule.code for rule in RULES]
    assert codes == sorted(set(codes))
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_named_as_it_is_found(rule: Rule) -> None:
    assert re.fullmatch(r"DK[1-5]\d\d", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)
    assert rule.group == GROUPS[int(rule.code[2]) - 1]
    assert named(rule.name) is named(rule.code) is rule
    module = f"dropkit.rules.{rule.group}.{rule.name.replace('-', '_')}"
    check = rule.on_model or rule.on_source
    assert check is not None
    assert check.__module__ == module


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_page_is_complete(rule: Rule) -> None:
    assert rule.summary.endswith(".")
    assert len(rule.summary) <= 100
    assert rule.section("").partition("\n")[2].strip(), "what it does"
    for title in SECTIONS:
        assert rule.section(title), title
    assert "](https://" in rule.section("References")
    if rule.on_model is not None and rule.on_source is not None:
        assert "On a model" in rule.section("")
        assert "In source" in rule.section("")


@pytest.mark.parametrize("rule", ON_MODELS, ids=lambda rule: rule.name)
def test_a_rule_has_examples_of_both_sorts(rule: Rule) -> None:
    assert len(rule.wrong) >= 2
    assert len(rule.right) >= 2
    assert len(set(rule.wrong) | set(rule.right)) == len(rule.wrong) + len(rule.right)


# ---- its examples


@pytest.mark.parametrize("pair", WRONG, ids=told)
def test_a_rule_fires_on_what_is_wrong(pair: tuple[Rule, str]) -> None:
    rule, source = pair
    report = audited(source)
    mine = [finding for finding in report.findings if finding.rule == rule.name]
    assert mine, report.not_applicable
    assert any(finding.severity == rule.severity for finding in mine)
    others = {f.rule for f in report.findings if f.severity == "error"} - {rule.name}
    assert others == set(), "an example is wrong in one way"
    for finding in mine:
        assert finding.evidence
        assert len(finding.message) < 260
        assert finding.message.endswith(".") is False


@pytest.mark.parametrize("pair", RIGHT, ids=told)
def test_a_rule_is_silent_on_what_is_right(pair: tuple[Rule, str]) -> None:
    rule, source = pair
    report = audited(source)
    assert [finding for finding in report.findings if finding.rule == rule.name] == []
    assert [finding for finding in report.findings if finding.severity == "error"] == []


@pytest.mark.parametrize("rule", ON_MODELS, ids=lambda rule: rule.name)
def test_what_a_rule_lacks_is_said(rule: Rule) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise RuntimeError("not in training")
            return x

    report = dropkit.audit(Broken(), torch.ones(2), select=[rule.name])
    assert report.findings == ()
    assert (rule.name in report.judged) != (rule.name in dict(report.not_applicable))
    if set(rule.needs) - {"modules"}:
        assert dict(report.not_applicable)[rule.name].startswith("needs ")


# ---- what an audit leaves behind


def everything(model: nn.Module, inputs: tuple[Any, ...]) -> Iterator[object]:
    """All of a model, its inputs and the generators, as what can be compared."""
    for path, module in model.named_modules():
        yield path, id(module), module.training, list(module.__dict__)
        yield [len(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks")]
        yield {k: v for k, v in vars(module).items() if isinstance(v, int | float | str)}
    for tensor in chain(model.parameters(), model.buffers(), tensors(inputs)):
        yield id(tensor), tensor.requires_grad, tensor.grad
        yield tensor.detach().numpy().tobytes()
    yield torch.get_rng_state().numpy().tobytes()
    yield random.getstate(), str(np.random.get_state())


@pytest.mark.parametrize("pair", [*WRONG, *RIGHT], ids=told)
def test_an_audit_leaves_no_trace(pair: tuple[Rule, str]) -> None:
    model, inputs, settings = made(pair[1])
    before = list(everything(model, inputs))
    dropkit.audit(model, *inputs, **settings)
    assert list(everything(model, inputs)) == before


def test_mutant_a_trace_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.1)).eval(), torch.randn(8, 4)
    before = list(everything(model, (x,)))
    monkeypatch.setattr(Before, "restore", lambda self: None)
    dropkit.audit(model, x)
    assert list(everything(model, (x,))) != before
