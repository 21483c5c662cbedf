"""The comparison of draws with what training draws: right ones pass, each wrong one is caught."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed
from benchmarks.sampling import pages, wanted
from benchmarks.sampling.coverage import Cell, cell
from benchmarks.sampling.laws import ALARM, allowed, compared, distance
from benchmarks.sampling.models import KINDS, Functional, Kind, switched_on, truth
from benchmarks.sampling.states import changes, state
from benchmarks.sampling.tools import Tool, class_walk, loop, naive, training_mode

DENSE = Kind("dense", Functional, lambda: torch.randn(2, 8))
WITH_NORM = next(kind for kind in KINDS if "batch norm" in kind.name)
SEQUENCE_FIRST = next(kind for kind in KINDS if "LSTM" in kind.name)
DRAWS, RIGHT = 4000, 20_000


@functools.cache
def right(kind: Kind) -> Tensor:
    return truth(kind, RIGHT)


def of(sample: Callable[[nn.Module, Tensor, int], Tensor], kind: Kind = DENSE) -> Cell:
    return cell(Tool("tried", sample), kind, right(kind), DRAWS)


def shared_by_the_batch(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """Each row right by itself, and all with one mask."""
    switched_on(model)
    mixed = model.last(
        torch.nn.functional.dropout(torch.ones(draws, 1, 16), 0.4) * hidden(model, x)
    )
    model.eval()
    return mixed.detach()


def hidden(model: nn.Module, x: Tensor) -> Tensor:
    return torch.relu(model.first(x))


def each_twice(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    return naive(model, x, draws // 2).repeat_interleave(2, 0)


def at_another_rate(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    dropped = torch.nn.functional.dropout(hidden(model, x).expand(draws, 2, 16), 0.33)
    return model.last(dropped).detach()


def folded(model: nn.Module, x: Tensor, draws: int) -> Tensor:
    """A batch along the first axis, whatever that is."""
    with torch.no_grad():
        return switched_on(model)(torch.cat([x] * draws)).unflatten(0, (draws, len(x)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.needs], ids=lambda k: k.name)
def test_a_loop_draws_what_training_draws(kind: Kind) -> None:
    # 16 kinds at one in a million each; the seeds are fixed
    torch.manual_seed(3)
    made, x = kind.made()
    drawn = naive(made, x, 500)
    assert compared(drawn, truth(kind, 5000)).is_right


@pytest.mark.parametrize("wrong", [shared_by_the_batch, each_twice, at_another_rate])
def test_mutant_draws_of_another_law_are_caught(wrong: Callable[..., Tensor]) -> None:
    found = of(wrong)
    assert found.verdict is not None
    assert not found.verdict.is_right
    assert 0.8 < found.verdict.spread < 1.1  # the deviation alone would not tell


def test_a_fold_over_the_steps_of_a_sequence_is_caught() -> None:
    found = of(folded, SEQUENCE_FIRST)
    assert found.verdict is not None
    assert not found.verdict.is_right


def test_what_does_not_vary_is_said_to_be_silent() -> None:
    found = of(class_walk)  # the dropout is no module
    assert found.is_silent
    assert found.word == "**no spread**"
    assert found.left == ()


def test_one_mask_for_all_draws_of_a_call_is_no_spread() -> None:
    found = of(lambda model, x, draws: naive(model, x, 1).expand(draws, -1, -1))
    assert found.is_silent


def test_training_mode_leaves_other_buffers_behind() -> None:
    found = of(training_mode, WITH_NORM)
    assert found.left == ("buffers", "generator")
    assert found.verdict is not None
    assert not found.verdict.is_right


def test_a_tool_that_fails_is_a_row() -> None:
    def fails(model: nn.Module, x: Tensor, draws: int) -> Tensor:
        model.train()
        raise ValueError("a | b")

    found = of(fails)
    assert (found.word, found.error, found.trace) == ("refused", "a / b", "modes")


def test_every_change_of_a_model_is_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    before = state(model)
    assert changes(before, state(model)) == []
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-7
        model[1].running_mean[0] = -0.5
    model[2].eval()
    model[2].register_forward_hook(lambda *_: None)
    torch.rand(1)
    assert changes(before, state(model)) == ["parameters", "buffers", "modes", "hooks", "generator"]
    model[2] = nn.Dropout(0.5)
    assert "modules" in changes(before, state(model))


def test_the_distance_of_two_samples() -> None:
    # of 1, 2, 3, 4 half lie below 2.5; of 3, 4, 5, 6 none
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([3.0, 4.0, 5.0, 6.0])
    assert distance(a.double(), b.double()) == pytest.approx(0.5)
    assert distance(a.double(), a.double() + 1e-9) == 0.0  # an atom, summed in another order


def test_false_alarms_are_as_rare_as_is_said() -> None:
    # By Massart's bound at most 400 * 0.02 of the comparisons of one law are called wrong in the
    # mean; more than 24 of them have a chance below 1e-5 (binomial, 400 at 0.02).
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for _ in range(400):
        a, b = (torch.randn(n, generator=generator).double() for n in (200, 500))
        wrong += distance(a, b) > allowed(200, 500, 0.02)
    assert wrong <= 24
    assert ALARM < 1e-5


def test_promises_are_read_from_the_tables() -> None:
    page = [
        "### the same, 1 row, 1 thread",
        "| | ms | times faster than the loop | spread / the loop's |",
        "| dropkit | 5.00 | 3.90 (3.00 to 5.00) | 1.00 |",
        '### Any model, `strategy="auto"`, 1 thread',
        "| model | loop, ms | times faster than the loop | first call / loop |",
        "|---|---|---|---|",
        "| a | 10 | 1.50 (1.4 to 1.6) | 3.0 |",
        "| b | 10 | 0.90 (0.8 to 1.0) | 3.0 |",
        "| c | refused: why | | |",
    ]
    found = list(wanted.section(page))
    assert "| the same, 1 row, 1 thread | >= 4 | 3.90 (3.00 to 5.00) | **no** |" in found
    assert "| the slowest of 3 models, 1 thread | >= 0.95 | 0.00 | 1 of 3 |" in found


def test_a_part_that_is_not_measured_anew_stays() -> None:
    page = "# Title\n\n## One\n\n### a\n\nold\n\n## Two\n\nkept\n\n## Wanted\n\nx\n"
    assert pages.part(page, "## Two") == ["## Two", "", "kept", ""]
    assert pages.part(page, "## One")[-2:] == ["old", ""]
    assert pages.part(page, "## Three") == []


def test_the_loop_of_a_tool_is_a_loop() -> None:
    model, x = DENSE.made()
    assert torch.equal(loop(model, x, 3), model(x).detach().expand(3, 2, 3))
