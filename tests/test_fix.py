"""What `dropkit.fix` does to a model, what it refuses, and that it leaves nothing half done."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import dropkit
from dropkit import fixing
from dropkit.planning.apply import applied
from dropkit.records import Edit, Finding, Repair, Report
from dropkit.rules import every, named
from rule_examples import made

EXAMPLES = [
    (rule, source) for rule in every() if rule.on_model is not None for source in rule.wrong
]


def finding(edit: Edit | None, rule: str = "dropout-before-batch-norm") -> Finding:
    known = named(rule)
    return Finding(known.name, known.code, known.severity, "said", edit=edit)


def by_path(found: Finding) -> int:
    return 0 if found.site is None else int(found.site.path)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in model.state_dict().items()}


def shape(model: nn.Module) -> list[object]:
    """Everything of a model that an edit may change, and the order in which it stands."""
    return [
        (path, id(module), module.training, [(k, str(v)) for k, v in sorted(vars(module).items())])
        for path, module in model.named_modules()
    ]


class Frozen:
    """A model in a word: what has to be the same after a refusal."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.shape, self.bits = model, shape(model), bits(model)

    def check(self) -> None:
        assert shape(self.model) == self.shape
        assert bits(self.model) == self.bits


# ---- what rules offer


@pytest.mark.parametrize(
    "source", [source for _, source in EXAMPLES], ids=[rule.name for rule, _ in EXAMPLES]
)
def test_what_a_rule_offers_is_proven_or_refused_and_keeps_the_keys(source: str) -> None:
    model, inputs, settings = made(source)
    before, keys = bits(model), list(model.state_dict())
    report = dropkit.audit(model, *inputs, **settings)
    repair = dropkit.fix(model, report, *inputs, unsafe=True, **settings)
    assert bits(model) == before
    assert sorted(model.state_dict()) == sorted(keys)
    fresh, _, _ = made(source)
    fresh.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(fresh.state_dict(), strict=True)
    assert len(repair.applied) + len(repair.refused) == len(report.findings)
    assert repair.report is not None
    for mended in repair.applied:
        was = sum(f.rule == mended.rule for f in report.findings)
        now = sum(f.rule == mended.rule for f in repair.report.findings)
        assert now < was
    for offered, why in repair.refused:
        assert offered.edit is None or not offered.edit.safe, why


def test_every_action_that_a_rule_offers_is_seen_here() -> None:
    offered = set()
    for _, source in EXAMPLES:
        model, inputs, settings = made(source)
        report = dropkit.audit(model, *inputs, **settings)
        offered |= {f.edit.action for f in report.findings if isinstance(f.edit, Edit)}
    assert offered >= {"exchange", "switch", "hold", "replace"}


def test_a_second_fix_finds_nothing_more_to_do() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2))
    x = torch.randn(16, 4)
    first = dropkit.fix(net, dropkit.audit(net, x), x)
    assert first.applied
    assert first.report is not None
    assert dropkit.fix(net, first.report, x).applied == ()


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (Edit("exchange", "1", "2"), "1 stands behind 2 already"),
        (Edit("move", "1", "2"), "1 stands behind 2 already"),
        (Edit("set", "1.p", "0.1"), "1.p is 0.1 already"),
        (Edit("switch", "", "eval"), "the model is in that mode already"),
        (Edit("replace", "1", "torch.nn.Dropout1d", {"p": 0.3}), "1 is such a Dropout1d already"),
    ],
    ids=lambda value: value.action if isinstance(value, Edit) else "",
)
def test_an_edit_that_stands_is_not_applied_again(edit: Edit, why: str) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2))
    mended = finding(edit)
    assert dropkit.fix(net, [mended]).applied == (mended,)
    after = Frozen(net)
    assert dropkit.fix(net, [mended]) == Repair((), ((mended, why),), None)
    after.check()


def chain(blocks: int) -> nn.Sequential:
    parts = (nn.Linear(16, 16), nn.Dropout(0.3), nn.BatchNorm1d(16), nn.ReLU())
    many = (copy.deepcopy(part) for _ in range(blocks) for part in parts)
    return nn.Sequential(*many, nn.Linear(16, 2))


def test_of_many_batch_norms_only_the_last_gets_its_dropout_behind_it() -> None:
    torch.manual_seed(3)
    net, x = chain(6), torch.randn(64, 16)
    report = dropkit.audit(net, x, select=["DK201"])
    assert len(report.findings) == 6
    repair = dropkit.fix(net, report, x, select=["DK201"])
    (mended,) = repair.applied
    assert mended.edit == Edit("exchange", "21", "22", says="put the dropout behind the batch norm")
    assert {why for _, why in repair.refused} == {
        "its edit may change more; unsafe=True applies it"
    }
    repair = dropkit.fix(net, report, x, select=["DK201"], unsafe=True)
    assert len(repair.applied) == 5 and repair.report is not None
    assert repair.report.findings == ()
    assert [part.p for part in net if isinstance(part, nn.Dropout)] == [0, 0, 0, 0, 0, 0.3]


def test_what_is_still_found_is_found_where_it_was() -> None:
    """One finding that goes does not hide another that stays."""
    torch.manual_seed(3)
    net, x = chain(2), torch.randn(64, 16)
    first, second = sorted(dropkit.audit(net, x, select=["DK201"]).findings, key=by_path)
    wrong = replace(first, edit=second.edit)  # which mends the second
    repair = dropkit.fix(net, [wrong], x, select=["DK201"])
    assert repair.refused == ((wrong, "dropout-before-batch-norm is found as before"),)
    net[5] = nn.Identity()
    carried = replace(first, edit=Edit("exchange", "1", "2"))
    ((_, why),) = dropkit.fix(net, [carried], x, select=["DK201"]).refused
    assert "is found: dropout with the rate 0.3 acts through 3, 4 on the batch norm 6" in why


def test_few_that_are_wrong_among_many_cost_few_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, real = 0, fixing.audit

    def counted(*args: Any, **kwargs: Any) -> Report:
        nonlocal looks
        looks += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(fixing, "audit", counted)
    torch.manual_seed(3)
    net, x = chain(16), torch.randn(64, 16)
    found = dropkit.audit(net, x, select=["DK201"]).findings
    idle = replace(found[5], edit=Edit("set", "0.in_features", "17"))
    repair = dropkit.fix(net, [*found[:5], idle, *found[6:]], x, select=["DK201"], unsafe=True)
    assert len(repair.applied) == 15 and [f for f, _ in repair.refused] == [idle]
    assert looks <= 1 + 2 * 4 + 1


def test_an_exchange_changes_the_order_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    x = torch.randn(16, 4)
    before = net(x)
    repair = dropkit.fix(net, dropkit.audit(net, x, select=["DK201"]), x)
    assert [type(part).__name__ for part in net] == ["Linear", "BatchNorm1d", "Dropout", "Linear"]
    assert [name for name, _ in net.named_children()] == ["0", "2", "1", "3"]
    assert torch.equal(net(x), before)
    assert repair.refused == ()
    assert not net.training


# ---- each action, and the way back


def actions() -> Iterator[tuple[nn.Module, Edit]]:
    def net() -> nn.Sequential:
        parts = nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)
        return nn.Sequential(*parts)

    listed = net()
    listed.drops = [nn.Dropout(0.1), nn.Dropout(0.2)]  # type: ignore[assignment]
    named_drops = net().eval()
    named_drops.drops = {"first": nn.Dropout(0.1)}  # type: ignore[assignment]
    yield net(), Edit("set", "1.p", "0.1")
    yield net(), Edit("replace", "1", "torch.nn.Dropout1d", {"p": 0.3})
    yield net(), Edit("replace", "1", "dropkit.nn.Dropout", {"p": 0.3})
    yield net(), Edit("exchange", "1", "2")
    yield net(), Edit("move", "1", "3")
    yield nn.Sequential(net(), net()), Edit("move", "0.1", "1.3")
    yield net(), Edit("switch", "", "eval")
    yield net().eval(), Edit("switch", "1", "train")
    yield listed, Edit("hold", "drops", "ModuleList")
    yield named_drops, Edit("hold", "drops", "ModuleDict")


@pytest.mark.parametrize("pair", list(actions()), ids=lambda pair: f"{pair[1].action}-{pair[1].to}")
def test_each_action_acts_keeps_the_keys_and_can_be_taken_back(
    pair: tuple[nn.Module, Edit],
) -> None:
    model, edit = pair
    before = Frozen(model)
    done = applied(model, [edit])
    assert done.edits == [edit]
    assert shape(model) != before.shape
    assert bits(model) == before.bits
    done.undo()
    before.check()


def test_what_was_moved_acts_where_it_is_now() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))
    applied(net, [Edit("move", "1", "2")])
    assert [type(part).__name__ for part in net] == ["Linear", "ReLU", "Dropout", "Linear"]


def test_a_held_list_follows_the_mode_of_its_owner() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drops = [nn.Dropout(0.5)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drops[0](x)

    net, x = Net().eval(), torch.ones(64)
    repair = dropkit.fix(net, dropkit.audit(net, x), x)
    assert isinstance(net.drops, nn.ModuleList)
    assert torch.equal(net(x), x)
    assert [f.rule for f in repair.applied] == ["dropout-built-in-forward"]


# ---- refusals


class Written(nn.Module):
    """Whose order stands in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.norm = nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8)
        self.other = self.first.weight  # no module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.drop(self.first(x)))


def shared() -> nn.Sequential:
    drop = nn.Dropout(0.2)
    return nn.Sequential(nn.Linear(4, 8), drop, nn.BatchNorm1d(8), drop)


def hooked() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2))
    net[1].register_forward_hook(lambda *_: None)
    return net


REFUSALS = [
    (Written, Edit("exchange", "drop", "norm"), "does not stand in a Sequential"),
    (Written, Edit("exchange", "drop", "none"), "no module none"),
    (Written, Edit("replace", "norm", "torch.nn.Dropout"), "holds tensors"),
    (Written, Edit("replace", "", "torch.nn.Dropout"), "the model itself"),
    (Written, Edit("replace", "drop", "os.system", {"p": 1}), "expected a class of torch.nn"),
    (Written, Edit("replace", "drop", "torch.nn.Linear", {"in_features": 1, "out_features": 1}),
     "holds tensors"),
    (Written, Edit("set", "drop.training", "0"), "not a number"),
    (Written, Edit("set", "drop.p", "half"), "expected a number"),
    (Written, Edit("set", "drop.q", "0.5"), "not a number"),
    (Written, Edit("switch", "drop", "test"), "expected train or eval"),
    (Written, Edit("hold", "drop", "ModuleList"), "no plain list"),
    (shared, Edit("replace", "1", "torch.nn.Dropout"), "2 places"),
    (shared, Edit("exchange", "1", "2"), "2 places"),
    (hooked, Edit("replace", "1", "torch.nn.Dropout"), "hooks"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "edit", "why"), REFUSALS)
def test_what_does_not_fit_is_refused_with_its_reason(build: Any, edit: Edit, why: str) -> None:
    model = build()
    before = Frozen(model)
    repair = dropkit.fix(model, [finding(edit)])
    assert repair.applied == ()
    assert [reason for _, reason in repair.refused if why in reason], repair.refused
    assert repair.report is None
    before.check()


def test_what_has_no_edit_and_what_is_not_safe_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2))
    risky = Edit("set", "1.p", "0.5", safe=False)
    repair = dropkit.fix(net, [finding(None), finding(risky)])
    assert ["source" in why or "unsafe" in why for _, why in repair.refused] == [True, True]
    assert net[1].p == 0.2
    assert dropkit.fix(net, [finding(risky)], unsafe=True).applied == (finding(risky),)
    assert net[1].p == 0.5


def test_what_does_not_help_is_taken_back() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2))
    x, before = torch.randn(16, 4), Frozen(net)
    (found,) = dropkit.audit(net, x, select=["DK201"]).findings
    idle = replace(found, edit=Edit("set", "1.p", "0.3"))
    ((refused, why),) = dropkit.fix(net, [idle], x).refused
    assert refused is idle
    assert why.startswith("dropout-before-batch-norm is found: dropout with the rate 0.3 acts")
    before.check()


def test_what_breaks_the_model_is_taken_back_and_spoils_no_other() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2))
    x = torch.randn(16, 4)
    found = dropkit.audit(net, x, select=["DK201"]).findings
    breaks = finding(Edit("exchange", "0", "3"))
    repair = dropkit.fix(net, [*found, breaks], x)
    assert repair.applied == found
    assert [f for f, _ in repair.refused] == [breaks]
    assert [name for name, _ in net.named_children()] == ["0", "2", "1", "3"]


def test_a_finding_of_yesterday_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    repair = dropkit.fix(net, [finding(Edit("switch", "", "eval"))], torch.ones(2, 4))
    assert [why for _, why in repair.refused] == ["dropout-before-batch-norm is found no more"]


def test_no_findings_are_an_empty_repair() -> None:
    net = nn.Linear(4, 2)
    assert dropkit.fix(net, []) == Repair((), (), None)


def test_other_things_than_findings_are_an_error_that_says_what_to_try() -> None:
    with pytest.raises(dropkit.SettingError, match=r"expected a report of dropkit\.audit"):
        dropkit.fix(nn.Linear(4, 2), ["always-on-dropout"])  # type: ignore[list-item]


# ---- all or nothing


class Refuses(nn.Module):
    """Raises half-way when it is switched."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.calls = nn.Dropout(0.2), 0

    def train(self, mode: bool = True) -> Refuses:
        super().train(mode)
        raise KeyboardInterrupt

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x)


def test_when_anything_raises_the_model_is_what_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), Refuses())
    before = Frozen(model)
    edits = [Edit("set", "1.p", "0.5"), Edit("exchange", "0", "1"), Edit("switch", "2", "eval")]
    with pytest.raises(KeyboardInterrupt):
        applied(model, edits)
    before.check()


def test_when_the_second_audit_is_interrupted_the_model_is_what_it_was() -> None:
    class Interrupts(nn.Module):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Interrupts.runs += 1
            if Interrupts.runs > 4:
                raise KeyboardInterrupt
            return x

    parts = nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), Interrupts(), nn.Linear(8, 2)
    net, x = nn.Sequential(*parts), torch.randn(16, 4)
    found = dropkit.audit(net, x, select=["DK201"])
    assert found.findings
    Interrupts.runs = 1
    before = Frozen(net)
    with pytest.raises(KeyboardInterrupt):
        dropkit.fix(net, found, x)
    before.check()


def test_mutant_a_change_of_keys_is_seen_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from dropkit.planning import apply

    def rename(model: nn.Module, _: Edit) -> apply.Undo:
        model._modules["new"] = model._modules.pop("0")
        return lambda: model._modules.update({"0": model._modules.pop("new")})

    monkeypatch.setitem(apply._ACTIONS, "exchange", rename)
    net = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(RuntimeError, match="keys of the state dictionary"):
        applied(net, [Edit("exchange", "0", "1")])
    assert list(net.state_dict()) == ["0.weight", "0.bias"]
