"""Schedules are pure functions of the step; a run that goes on has the rates of one unbroken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import dropkit
from dropkit.errors import SettingError
from dropkit.planning.depth import depth_ramp, numbered
from dropkit.planning.schedules import (
    Schedule,
    constant,
    cosine,
    curriculum,
    early,
    late,
    linear,
    piecewise,
    triangle,
)
from dropkit.planning.scheduling import RateSchedule
from dropkit.records import Place

RATES = st.floats(0.0, 1.0)
STEPS = st.integers(2, 10**7)
MAKERS: dict[str, st.SearchStrategy[Schedule]] = {
    "constant": st.builds(constant, RATES),
    "linear": st.builds(linear, RATES, RATES, STEPS),
    "cosine": st.builds(cosine, RATES, RATES, STEPS),
    "early": st.builds(early, RATES, STEPS),
    "early falling": st.builds(early, RATES, STEPS, st.just("linear")),
    "late": st.builds(late, RATES, STEPS),
    "curriculum": st.builds(curriculum, RATES, STEPS),
    "triangle": st.builds(triangle, RATES, RATES, STEPS),
}


class Plan(dict[str, float]):
    """Notes what is asked of it, and what is applied."""

    def __init__(self, **rates: float) -> None:
        super().__init__(rates)
        self.applied: list[dict[str, float]] = []
        self.proofs: list[bool] = []

    def apply(self, *, prove: bool = True) -> None:
        self.applied.append(dict(self))
        self.proofs.append(prove)

    def __getitem__(self, name: str) -> float:
        if name not in self:
            raise SettingError(f"no site is called {name}")
        return super().__getitem__(name)


# ---- the laws


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_a_rate_is_a_rate_at_every_step(maker: st.SearchStrategy[Schedule]) -> None:
    @given(maker, st.integers(0, 2 * 10**7))
    def check(schedule: Schedule, step: int) -> None:
        assert 0.0 <= schedule(step) <= 1.0
        assert schedule(step) == schedule(step)

    check()


ENDS: dict[str, tuple[Schedule, float, float, float]] = {  # at 0, at the last step before, at T
    "constant": (constant(0.3), 0.3, 0.3, 0.3),
    "linear": (linear(0.4, 0.1, 10), 0.4, 0.13, 0.1),
    "cosine": (cosine(0.4, 0.1, 10), 0.4, 0.1 + 0.15 * (1 + math.cos(0.9 * math.pi)), 0.1),
    "early": (early(0.4, 10), 0.4, 0.4, 0.0),
    "early falling": (early(0.4, 10, "linear"), 0.4, 0.04, 0.0),
    "late": (late(0.4, 10), 0.0, 0.0, 0.4),
    "curriculum": (
        curriculum(0.4, 10),
        0.0,
        0.4 * (1 - math.exp(-9)),
        0.4 * (1 - math.exp(-10)),
    ),
    "triangle": (triangle(0.1, 0.4, 10), 0.1, 0.16, 0.1),
}


@pytest.mark.parametrize(("schedule", "first", "before", "last"), ENDS.values(), ids=ENDS)
def test_ends_are_where_they_are_said(
    schedule: Schedule, first: float, before: float, last: float
) -> None:
    """Catches a schedule that is one step late: off by one at either end."""
    assert schedule(0) == first
    assert schedule(9) == pytest.approx(before, abs=1e-15)
    assert schedule(10) == pytest.approx(last, abs=1e-15)


@pytest.mark.parametrize("name", sorted(set(ENDS) - {"curriculum"}))
def test_past_the_end_it_stays(name: str) -> None:
    schedule, _, _, last = ENDS[name]
    assert schedule(11) == schedule(10**12) == last


def test_middles() -> None:
    assert cosine(0.4, 0.0, 10)(5) == pytest.approx(0.2)
    assert triangle(0.0, 0.4, 10)(5) == 0.4
    assert [triangle(0.0, 0.4, 8)(t) == triangle(0.0, 0.4, 8)(8 - t) for t in range(9)] == [
        True
    ] * 9


@given(RATES, STEPS)
def test_a_curriculum_rises_and_never_passes_its_rate(rate: float, steps: int) -> None:
    rates = [curriculum(rate, steps)(steps * tenth // 10) for tenth in range(20)]
    assert rates == sorted(rates)
    assert rates[0] == 0.0
    assert rates[-1] <= rate


@given(RATES, RATES, STEPS, st.floats(0.0, 1.0))
def test_linear_and_cosine_stay_between_their_ends(
    start: float, end: float, steps: int, share: float
) -> None:
    for made in (linear, cosine):
        between = made(start, end, steps)(int(share * steps))
        assert min(start, end) - 1e-15 <= between <= max(start, end) + 1e-15


def test_then_begins_the_other_at_its_own_step_0() -> None:
    """Catches one that hands the outer step on."""
    both = linear(0.0, 0.2, 10).then(linear(0.2, 0.0, 10), at=100)
    assert [both(t) for t in (0, 10, 99, 100, 105, 110)] == pytest.approx(
        [0, 0.2, 0.2, 0.2, 0.1, 0]
    )
    three = both.then(0.5, at=200)
    assert [three(t) for t in (105, 199, 200)] == pytest.approx([0.1, 0.0, 0.5])
    assert three == piecewise({200: 0.5, 0: linear(0.0, 0.2, 10), 100: linear(0.2, 0.0, 10)})


def test_a_part_may_have_parts() -> None:
    inner = piecewise({0: 0.1, 5: 0.2})
    outer = constant(0.0).then(inner, at=10)
    assert [outer(t) for t in (9, 10, 14, 15)] == [0.0, 0.1, 0.1, 0.2]


@pytest.mark.parametrize("name", ENDS)
def test_the_text_is_the_call_that_makes_it(name: str) -> None:
    schedule = ENDS[name][0]
    makers = {m.__name__: m for m in (constant, cosine, curriculum, early, late, linear, triangle)}
    for one in (schedule, schedule.then(0.1, at=3).then(schedule, at=7)):
        assert eval(str(one), {"piecewise": piecewise} | makers) == one


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "rate": (lambda: constant(1.5), r"rate: expected a rate between 0 and 1; got 1.5"),
    "nan": (lambda: linear(float("nan"), 0, 3), "start: expected a rate"),
    "text": (lambda: late("0.1", 3), "rate: expected a rate.*'0.1'"),  # type: ignore[arg-type]
    "bool": (lambda: constant(True), "got True"),
    "no steps": (lambda: linear(0.1, 0.0, 0), "steps: expected a whole number from 1 on; got 0"),
    "half a step": (lambda: early(0.1, 2.5), "steps: .*got 2.5"),  # type: ignore[arg-type]
    "one step of a cycle": (lambda: triangle(0, 0.1, 1), "from 2 on"),
    "decay": (lambda: early(0.1, 3, "cosine"), "decay: expected none or linear"),
    "sharpness": (lambda: curriculum(0.1, 3, 0.0), "sharpness"),
    "step": (lambda: constant(0.1)(-1), "step: expected a whole number from 0 on; got -1"),
    "no beginning": (lambda: piecewise({5: 0.1}), "from step 0 on; got \\[5\\]"),
    "twice": (lambda: constant(0.1).then(0.2, at=5).then(0.3, at=5), "at: expected a step after 5"),
    "function": (lambda: piecewise({0: math.sin}), "expected a rate"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


# ---- a schedule of a plan


def schedules() -> dict[str, Schedule | float]:
    return {"attention": linear(0.1, 0.0, 6), "hidden": early(0.3, 4), "head": 0.2}


def plan() -> Plan:
    return Plan(attention=0.5, hidden=0.5, head=0.5, conv=0.5)


def test_rates_are_in_force_from_the_first_step_on() -> None:
    asked = plan()
    RateSchedule(asked, schedules())
    assert asked == {"attention": 0.1, "hidden": 0.3, "head": 0.2, "conv": 0.5}
    assert asked.applied == [asked]
    assert asked.proofs == [False]  # a proof is a run of the model


def test_a_plan_is_applied_where_a_rate_changed_and_not_else() -> None:
    asked = plan()
    schedule = RateSchedule(asked, {"hidden": early(0.3, 4)})
    told = [schedule.step()["hidden"] for _ in range(6)]
    assert told == [0.3, 0.3, 0.3, 0.0, 0.0, 0.0]
    assert [rates["hidden"] for rates in asked.applied] == [0.3, 0.0]


def test_a_resumed_run_has_the_rates_of_an_unbroken_one() -> None:
    """Catches a state that is saved before the step, and one that begins anew."""
    unbroken, whole = plan(), []
    one = RateSchedule(unbroken, schedules())
    for _ in range(9):
        whole.append(dict(unbroken))
        one.step()
    for stop in range(9):
        first, parts = plan(), []
        before = RateSchedule(first, schedules())
        for _ in range(stop):
            parts.append(dict(first))
            before.step()
        state = json.loads(json.dumps(before.state_dict()))
        second = plan()
        after = RateSchedule(second, schedules())
        after.load_state_dict(state)
        for _ in range(9 - stop):
            parts.append(dict(second))
            after.step()
        assert parts == whole


def test_a_state_writes_its_rates_even_where_the_model_was_changed_meanwhile() -> None:
    asked = plan()
    schedule = RateSchedule(asked, schedules())
    asked["hidden"] = 0.9
    schedule.load_state_dict(schedule.state_dict())
    assert asked.applied[-1]["hidden"] == 0.3


def test_it_begins_at_any_step_and_moves_to_any() -> None:
    asked = plan()
    schedule = RateSchedule(asked, schedules(), step=3)
    assert (schedule.last_step, asked["attention"]) == (3, 0.05)
    schedule.move_to(100)
    assert asked.applied[-1] == {"attention": 0.0, "hidden": 0.0, "head": 0.2, "conv": 0.5}
    assert schedule.rates_at(0)["attention"] == 0.1
    assert schedule.rates == {"attention": 0.0, "hidden": 0.0, "head": 0.2}


def test_a_plan_that_raises_leaves_the_step_where_it_was() -> None:
    class Broken(Plan):
        def apply(self, *, prove: bool = True) -> None:
            if self["a"] < 0.15:
                raise RuntimeError("no")

    schedule = RateSchedule(Broken(a=0.0), {"a": linear(0.2, 0.0, 4)})
    schedule.step()
    with pytest.raises(RuntimeError):
        schedule.step()
    assert schedule.last_step == 1


OTHERS: dict[str, tuple[dict[str, Schedule | float], str]] = {
    "rate": (schedules() | {"head": 0.3}, r"head: here constant\(rate=0.2\), saved .*0.3"),
    "more": (schedules() | {"conv": 0.1}, r"conv: here none, saved constant\(rate=0.1\)"),
    "steps": (schedules() | {"hidden": early(0.3, 5)}, "hidden: here early.*steps=4.*steps=5"),
}


@pytest.mark.parametrize(("other", "message"), OTHERS.values(), ids=OTHERS)
def test_the_state_of_other_schedules_is_refused(
    other: dict[str, Schedule | float], message: str
) -> None:
    mine, asked = RateSchedule(plan(), schedules()), plan()
    state = RateSchedule(asked, other, step=2).state_dict()
    with pytest.raises(SettingError, match=message):
        mine.load_state_dict(state)
    assert mine.last_step == 0


@pytest.mark.parametrize("state", [{}, {"step": 3}, None, {"step": -1, "schedules": None}])
def test_what_is_no_state_is_refused(state: Any) -> None:
    with pytest.raises((SettingError, AttributeError)) as refused:
        RateSchedule(plan(), schedules()).load_state_dict(state)
    assert refused.type is SettingError


def test_unknown_names_and_what_are_no_schedules_are_refused() -> None:
    asked = plan()
    with pytest.raises(SettingError, match="no site is called hiden"):
        RateSchedule(asked, {"attention": 0.1, "hiden": 0.1})
    with pytest.raises(SettingError, match="expected a dictionary"):
        RateSchedule(asked, {})
    with pytest.raises(SettingError, match="expected a rate"):
        RateSchedule(asked, {"hidden": lambda step: 0.1})  # type: ignore[dict-item]
    assert asked.applied == []


# ---- depth


@dataclass
class At:
    path: str
    role: str = "path"
    holder: str = ""
    place: Place | None = None


@dataclass
class Lever:
    site: At


class Deep:
    """A plan of some paths."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        self.rates: dict[str, float] = {}

    def named(self, name: str) -> list[Lever]:
        return [Lever(At(path)) for path in self.paths]

    def update(self, rates: Mapping[str, float]) -> None:
        self.rates.update(rates)


def test_a_ramp_is_that_of_timm_where_the_first_block_holds_nothing() -> None:
    """timm's vision transformer: linspace(0, 0.2, 5), Identity in block 0, two paths in a block.

    Catches a ramp over the sites that there are, which would begin with 0 in block 1.
    """
    paths = [f"blocks.{block}.drop_path{one}" for block in range(1, 5) for one in (1, 2)]
    deep = Deep(*paths)
    asked = depth_ramp(deep, last=0.2)
    assert asked == deep.rates
    assert [asked[path] for path in paths] == pytest.approx(
        [0.05, 0.05, 0.1, 0.1, 0.15, 0.15, 0.2, 0.2]
    )


def test_a_ramp_goes_on_through_stages_and_past_ten() -> None:
    paths = [f"stages.{stage}.blocks.{b}.drop" for stage, n in enumerate((3, 12)) for b in range(n)]
    ramp = depth_ramp(Deep(*paths), last=0.28)
    assert [ramp[path] for path in paths] == pytest.approx([0.02 * block for block in range(15)])


FORMS = {
    "numbers below the block": (["l.0.mlp.2", "l.1.mlp.2", "l.2.mlp.2"], [0, 1, 2]),
    "stages of one block": (["f.1.0.sd", "f.2.0.sd", "f.2.1.sd"], [0, 1, 2]),
    "as they run": (["encoder.0.d", "encoder.1.d", "decoder.0.d"], [0, 1, 2]),
    "one block": (["l.0.d"], [0]),
    "number at the end": (["paths.0", "paths.1"], [0, 1]),
}


@pytest.mark.parametrize(("paths", "blocks"), FORMS.values(), ids=FORMS)
def test_the_number_of_a_block(paths: list[str], blocks: list[int]) -> None:
    assert numbered(paths) == dict(zip(paths, blocks, strict=True))


def test_paths_without_numbers_have_no_depth() -> None:
    with pytest.raises(SettingError, match=r"'path' has 'first\.drop', 'second\.drop'"):
        depth_ramp(Deep("first.drop", "second.drop"), last=0.2)


# ---- real plans of real models


class Block(nn.Module):
    """As timm has it: nothing stands where the rate is 0."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.mix, self.drop = nn.Linear(8, 8), nn.Dropout(0.1)
        self.drop_path = dropkit.nn.DropPath(rate) if rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.drop_path(self.drop(self.mix(x)))
        return y


class Deepest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(0.1 * number) for number in range(5))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(x)
        return y


def test_a_schedule_moves_a_model_and_gives_it_back() -> None:
    model = Deepest()
    asked = dropkit.rates(model, torch.ones(4, 8))
    schedule = RateSchedule(asked, {"residual": linear(0.4, 0.0, 4), "blocks.4.drop": 0.3})
    seen = []
    for _ in range(5):
        seen.append([block.drop.p for block in model.blocks])  # type: ignore[union-attr]
        schedule.step()
    assert [rates[0] for rates in seen] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    assert [rates[4] for rates in seen] == [0.3] * 5  # a path goes before a role
    asked.restore()
    assert {block.drop.p for block in model.blocks} == {0.1}  # type: ignore[union-attr]


def test_a_ramp_of_a_model_is_proven_and_moves_over_time() -> None:
    model = Deepest()
    asked = dropkit.rates(model, torch.ones(4, 8))
    ramp = depth_ramp(asked, last=0.2)
    assert list(ramp.values()) == pytest.approx([0.05, 0.1, 0.15, 0.2])
    proven = asked.apply().proof
    assert proven is not None
    assert proven.holds
    rates = [block.drop_path.p for block in model.blocks[1:]]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2])
    schedule = RateSchedule(asked, {name: early(rate, 2) for name, rate in ramp.items()})
    schedule.move_to(2)
    assert {block.drop_path.p for block in model.blocks[1:]} == {0.0}  # type: ignore[union-attr]


def test_unknown_names_of_a_plan_are_refused_with_the_nearest() -> None:
    asked = dropkit.rates(Deepest(), torch.ones(4, 8))
    with pytest.raises(SettingError, match=r"'residul' fits none.*'residual'"):
        RateSchedule(asked, {"residul": 0.1})
    with pytest.raises(SettingError, match="fits none"):
        depth_ramp(asked, "paths", last=0.2)
