"""Work is planned within the budget, and a budget that is none is said."""

from __future__ import annotations

import pytest
import torch

from dropkit.errors import SettingError
from dropkit.training.folds import split
from dropkit.training.plan import Plan, plan


def folds(rows: int) -> int:
    return len(split(torch.arange(rows) % 2, 0))


@pytest.mark.parametrize("rows", [4, 60, 499, 3000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("budget", ["auto", "quick", "standard", "thorough", 1, 1e4, 1e6])
def test_a_plan_fits_its_budget(rows: int, budget: str | float) -> None:
    """Mutants: an ablation that the budget has no room for; rounds that end nowhere."""
    made = plan(rows, folds(rows), budget)
    assert made.first >= 1 and made.refined >= 0 and made.ablated != 1
    assert (made.first + made.ablated) * made.trial <= made.budget
    left = made.trials - made.first
    while made.following(left)[0] == "refined":
        left -= made.refined
    assert left >= made.following(left)[1] == made.ablated
    assert 1 <= made.pace.evaluations <= made.pace.epochs


@pytest.mark.parametrize("rows", [60, 3000, 100_000])
def test_a_number_is_a_limit(rows: int) -> None:
    """Mutant: rounding to the nearest number of trials, up to half a trial too much."""
    trial = plan(rows, folds(rows), "auto").trial
    for amount in (0.3, 1.0, 1.4, 1.6, 2.5, 7.9):
        assert plan(rows, folds(rows), amount * trial).budget <= amount * trial


@pytest.mark.parametrize("trials", range(8, 40))
def test_each_round_compares(trials: int) -> None:
    """Mutant: a refinement of one trial, which is no comparison and ended the search."""
    made = plan(60, 8, trials * plan(60, 8, "auto").trial)
    assert made.trials == trials
    assert min(made.first, made.refined, made.ablated) >= 2


@pytest.mark.parametrize("trials", [0.0, 1.9, 6.0, 7.9, 8.0, 10.5, 11.0, 30.0])
def test_little_time_goes_to_a_part_of_a_refinement(trials: float) -> None:
    """Mutant: an ablation, and the end, as soon as there is no time for a whole refinement."""
    made = plan(600, 5, "auto")
    kind, count = made.following(trials, partly=True)
    assert (kind == "refined") == (trials >= made.ablated + 2)
    assert count <= min(trials, made.refined if kind == "refined" else made.ablated)
    assert kind == "ablation" or count <= trials - made.ablated


def test_less_than_an_epoch_is_one_epoch() -> None:
    least = plan(60, 8, 1e-3)
    assert (least.trials, least.pace.epochs) == (1, 1)


@pytest.mark.parametrize("rows", [60, 700, 5000, 50_000, 500_000])
def test_levels_are_in_order(rows: int) -> None:
    quick, standard, thorough = (
        plan(rows, folds(rows), level).budget for level in ("quick", "standard", "thorough")
    )
    assert quick < standard < thorough
    assert plan(rows, folds(rows), "auto").budget == standard


@pytest.mark.parametrize("budget", ["fast", "", 0, -1.0, float("nan"), float("inf"), "1e3x", None])
def test_a_budget_that_is_none_is_an_error(budget: str | float) -> None:
    with pytest.raises(SettingError, match="budget"):
        plan(100, 8, budget)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.05, 0.01, 1e-4])
def test_a_plan_within_a_share_is_of_about_that_size(share: float) -> None:
    """Mutant: fewer trials and fewer epochs by the whole share, which is its square."""
    whole = plan(700, 5, "auto")
    less: Plan = whole.within(share)
    assert less.budget <= max(share * whole.budget * 1.15, less.folds)
    assert less.trials >= 1 and 1 <= less.pace.evaluations <= less.pace.epochs
    if share >= 0.05:
        assert less.budget >= 0.5 * share * whole.budget
