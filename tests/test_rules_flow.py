"""What rules rest on: ways through a model, and measurements."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropkit
from dropkit.inspection.evidence import Evidence, look
from dropkit.inspection.losses import smoothed, smoothing
from dropkit.inspection.ranges import HIDDEN, INPUT, TRANSFORMER, Range, usual
from dropkit.records import Edit, Finding
from dropkit.rules import every
from dropkit.rules.auditing import judge

ROWS = torch.randn(512, 16, generator=torch.Generator().manual_seed(5))


def found(model: nn.Module, *inputs: Tensor, select: str, **settings: Any) -> list[Finding]:
    return list(dropkit.audit(model, *inputs, select=[select], **settings).findings)


def evidence_of(model: nn.Module, *inputs: Tensor, **told: Any) -> Evidence:
    return look(model, inputs, {}, **told)


# ---- batch norm


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_a_shift_of_variance_is_what_theory_says(rate: float) -> None:
    centred = ROWS - ROWS.mean(0)
    model = nn.Sequential(nn.Identity(), nn.Dropout(rate), nn.BatchNorm1d(16), nn.Linear(16, 2))
    evidence = evidence_of(model, centred)
    (run,) = evidence.runs
    way = next(way for way in run.onward() if way.step == "batch_norm")
    shift = evidence.shift(run, way)
    assert shift is not None and shift.rows == 512
    assert abs(shift.ratio - 1 / (1 - rate)) < 5 * shift.doubt
    assert shift.doubt < 0.1 / (1 - rate)


def test_a_frozen_batch_norm_learns_nothing() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self[1].eval()
            return self

    layers = nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 2)
    assert found(Frozen(*layers), ROWS, select="DK201") == []
    assert len(found(nn.Sequential(*layers), ROWS, select="DK201")) == 1


def test_what_is_not_measured_is_said() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 2))
    (finding,) = found(model, ROWS, select="DK201", device="meta")
    assert "was not measured" in finding.evidence
    (finding,) = found(model, ROWS, select="DK201")
    assert "512 values each" in finding.evidence


def test_a_branch_counts_where_its_shift_is_plain() -> None:
    class Adds(nn.Module):
        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share
            self.up, self.drop = nn.Linear(16, 16), nn.Dropout(0.5)
            self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(x + self.share * self.drop(self.up(x))))

    assert found(Adds(0.01), ROWS, select="DK201") == []
    assert len(found(Adds(3.0), ROWS, select="DK201")) == 1


# ---- losses


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_smoothing_is_measured(share: float) -> None:
    measured = smoothing(nn.CrossEntropyLoss(label_smoothing=share))
    assert measured == pytest.approx(share, abs=1e-6)


def test_what_takes_no_classes_is_not_measured() -> None:
    assert smoothing(nn.MSELoss()) is None
    assert smoothing(nn.BCEWithLogitsLoss()) is None
    report = dropkit.audit(nn.Linear(16, 2), ROWS, loss=nn.MSELoss(), select=["DK504"])
    assert "takes logits and classes" in dict(report.not_applicable)["label-smoothing-twice"]


def test_smoothed_labels_are_known() -> None:
    labels = torch.eye(5)[torch.arange(7) % 5]
    assert smoothed(labels * 0.9 + 0.02) == pytest.approx(0.1)
    assert smoothed(labels) is None
    assert smoothed(torch.softmax(ROWS, 1)) is None
    assert smoothed(torch.full((3, 4), 0.25)) is None


# ---- rates


def ranges(model: nn.Module, *inputs: Tensor) -> list[Range | None]:
    evidence = evidence_of(model, *inputs)
    return [usual(evidence, run) for run in evidence.runs]


def test_what_is_usual_hangs_on_the_place() -> None:
    table = nn.Sequential(
        *(nn.Dropout(0.1), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32)),
        *(nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)),
    )
    assert ranges(table, ROWS) == [INPUT, HIDDEN, HIDDEN]
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    head = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 2))
    blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = ranges(nn.Sequential(blocks, head), ROWS.view(64, 8, 16))
    assert found == [TRANSFORMER] * 8 + [HIDDEN]


def test_a_rate_that_is_alike_by_chance_is_no_knob() -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.drop = nn.Embedding(9, 32), nn.Dropout(0.5)
            self.up, self.head = nn.Linear(32, 32), nn.Linear(32, 2)

        def forward(self, words: Tensor) -> Tensor:
            x = self.drop(self.table(words).mean(1))
            return self.head(nn.functional.dropout(self.up(x).relu(), 0.5, self.training))

    words = torch.arange(8).view(2, 4)
    assert found(Alike(), words, select="DK305") == []
    (finding,) = found(Alike(), words, select="DK301")
    assert isinstance(finding.edit, Edit) and finding.edit.path == "drop.p"


def test_a_layer_that_is_led_around_is_not_silenced() -> None:
    class Adds(nn.Module):
        def __init__(self, *, around: bool) -> None:
            super().__init__()
            self.around = around
            self.down, self.up, self.drop = nn.Linear(16, 2), nn.Linear(2, 16), nn.Dropout(0.5)
            self.last = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(self.drop(self.down(x)))
            return self.last(x + y if self.around else y + torch.tanh(y))

    assert found(Adds(around=True), ROWS, select="DK303") == []
    (finding,) = found(Adds(around=False), ROWS, select="DK303")
    assert "probability 0.25" in finding.message


# ---- edits


def test_edits_name_what_they_change() -> None:
    norm = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.BatchNorm1d(16))
    (finding,) = found(nn.Sequential(norm, nn.Linear(16, 2)), ROWS, select="DK201")
    says = "put the dropout behind the batch norm"
    assert finding.edit == Edit("exchange", "0.1", "0.2", says=says)
    maps = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout(0.2), nn.Conv2d(3, 1, 3))
    (finding,) = found(maps, torch.ones(2, 1, 9, 9), select="DK204")
    assert isinstance(finding.edit, Edit) and finding.edit.arguments == {"p": 0.2}
    assert (finding.edit.path, finding.edit.to) == ("1", "dropkit.nn.Dropout2d")
    (finding,) = found(nn.Sequential(nn.Linear(16, 2), nn.Dropout(0.2)), ROWS, select="DK202")
    assert isinstance(finding.edit, Edit) and finding.edit.safe
    assert (finding.edit.action, finding.edit.path, finding.edit.to) == ("set", "1.p", "0")


def test_a_layer_that_serves_twice_is_not_replaced() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.drop, self.head = nn.Conv1d(1, 3, 3), nn.Dropout(0.2), nn.Linear(21, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.drop(torch.relu(self.maps(x)))
            return self.head(self.drop(x.flatten(1).relu()))

    (finding,) = found(Twice(), torch.ones(2, 1, 9), select="DK204")
    assert finding.edit is None


# ---- models that are large


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.drop = nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.inner(self.norm(x)).relu())


def steps_of_judging(model: nn.Module) -> int:
    """Calls of Python's that all rules together make: the same on every machine."""
    evidence, steps = evidence_of(model, torch.randn(4, 8)), 0

    def one(*_: object) -> None:
        nonlocal steps
        steps += 1

    before = sys.getprofile()
    sys.setprofile(one)
    try:
        judge(evidence, every())
    finally:
        sys.setprofile(before)
    return steps


@pytest.mark.parametrize("block", [Block, lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1))])
def test_what_rules_cost_grows_as_the_model(block: Callable[[], nn.Module]) -> None:
    small, large = (
        steps_of_judging(nn.Sequential(*(block() for _ in range(n)), nn.Linear(8, 1)))
        for n in (30, 120)
    )
    assert large < 6 * small  # 4 times as many; what is done for pairs of them is 16 times as much


def test_what_only_moves_may_go_on_for_long() -> None:
    class Rolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.inner(x), 0.1, self.training)
            for _ in range(1500):
                x = x.roll(1, 1)
            return x[:, :4]

    report = dropkit.audit(Rolled(), ROWS[:8], select=["DK2"])
    assert [f.code for f in report.findings] == ["DK202"]
    assert report.unseen == ()


# ---- one dropout, used several times


class Shared(nn.Module):
    """Layers with one dropout behind each of them, and something behind the last."""

    def __init__(self, *layers: nn.Module, behind: nn.Module, rate: float = 0.4) -> None:
        super().__init__()
        self.layers, self.behind, self.drop = nn.ModuleList(layers), behind, nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.drop(layer(x))
        return self.behind(x)


def linear(wide: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, wide), nn.ReLU())


def test_logits_are_seen_to_be_dropped_by_a_dropout_of_all_layers() -> None:
    model = Shared(linear(), linear(), nn.Linear(16, 4), behind=nn.Identity())
    (finding,) = found(model, ROWS, select="DK202")
    assert "addmm in layers.2, which gave (512, 4)" in finding.evidence
    assert "one of 3 times" in finding.evidence
    assert found(Shared(linear(), linear(), behind=nn.Linear(16, 4)), ROWS, select="DK202") == []


def test_the_softmax_before_a_loss_is_named_though_other_layers_come_first() -> None:
    last = nn.Sequential(nn.Linear(16, 4), nn.Softmax(-1))
    model, loss = Shared(linear(), last, behind=nn.Identity()), nn.CrossEntropyLoss()
    (finding,) = found(model, ROWS, select="DK503", loss=loss)
    assert "acts on what softmax gave, right before CrossEntropyLoss" in finding.message
    assert "softmax in layers.1.1 gave what was dropped" in finding.evidence


def test_a_batch_norm_is_seen_behind_the_last_of_several_calls() -> None:
    norm = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 4))
    (finding,) = found(Shared(linear(), linear(), behind=norm), ROWS, select="DK201")
    assert finding.severity == "warning" and "batch norm behind.0" in finding.message
    norm = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4))
    assert found(Shared(linear(), linear(), behind=norm), ROWS, select="DK201") == []


def test_an_activation_and_maps_are_seen_behind_a_later_call() -> None:
    curved = nn.Sequential(nn.GELU(), nn.Linear(16, 4))
    assert len(found(Shared(linear(), linear(), behind=curved), ROWS, select="DK203")) == 1
    maps = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 8, 3), nn.ReLU())
    after = nn.Sequential(nn.Flatten(), nn.Linear(32, 4))
    (finding,) = found(Shared(linear(), maps, behind=after), ROWS, select="DK204")
    assert "(512, 8, 2, 2)" in finding.evidence


def test_of_very_many_calls_the_first_and_the_last_are_judged() -> None:
    layers = [linear() for _ in range(100)]
    model = Shared(*layers, behind=nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 4)))
    (run,) = evidence_of(model, ROWS).runs
    assert len(run.events) == 100 and len(list(run.each())) == 64
    assert len(found(model, ROWS, select="DK201")) == 1


# ---- what is no mistake


class Step(nn.Module):
    """A recurrence of which one step is a function of the test's."""

    def __init__(self, step: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.step, self.cell, self.head = step, nn.GRUCell(8, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for part in x.unbind(1):
            state = self.step(self, self.cell(part, state), state)
        return self.head(state)


def test_zoneout_that_is_a_dropout_of_what_is_new_keeps_the_old() -> None:
    def zoneout(module: nn.Module, new: Tensor, old: Tensor) -> Tensor:
        return F.dropout(new - old, 0.2, module.training) * 0.8 + old

    def scaled(module: nn.Module, new: Tensor, _: Tensor) -> Tensor:
        return F.dropout(new, 0.2, module.training) * 0.8

    x = torch.randn(4, 7, 8)
    assert found(Step(zoneout), x, select="DK205") == []
    assert len(found(Step(scaled), x, select="DK205")) == 1


@pytest.mark.parametrize("wide", [1, 5])
def test_a_mask_of_blocks_drops_no_single_elements(wide: int) -> None:
    class Blocks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return x
            seeds = torch.bernoulli(torch.full_like(x, 0.1))
            kept = 1 - (seeds if wide == 1 else F.max_pool2d(seeds, wide, 1, wide // 2))
            return x * kept * kept.numel() / kept.sum()

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Blocks(), nn.Conv2d(8, 2, 3))
    assert len(found(model, torch.randn(4, 3, 16, 16), select="DK204")) == (wide == 1)
