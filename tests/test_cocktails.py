"""Recipes stay in their priors, are named by their key, and begin at the grid."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from dropkit.kernel import derive
from dropkit.records import REGULARIZERS, Cocktail, Task
from dropkit.training.cocktails import (
    PRIORS,
    Prior,
    grid,
    refine,
    sampled,
    simplest,
    simplicity,
    space,
    start,
    without,
)
from workbench import RICH, within

TASKS: tuple[Task, ...] = ("regression", "classification")


def test_the_grid_is_of_the_usual_rates() -> None:
    for task in TASKS:
        recipes = grid(task)
        assert [recipe.hidden_dropout for recipe in recipes] == [0.0, 0.1, 0.2, 0.3, 0.5]
        assert {replace(recipe, hidden_dropout=0.0) for recipe in recipes} == {start(task)}
        assert start(task).weight_decay > 0  # beside dropout


def test_every_regularizer_has_a_prior() -> None:
    assert set(PRIORS) == set(REGULARIZERS)
    assert set(space("classification")) == {*REGULARIZERS, "learning_rate"}
    assert set(space("classification")) - set(space("regression")) == {"label_smoothing"}


def lawful(cocktail: Cocktail, task: Task) -> bool:
    """Each amount is 0 or within its prior; the learning rate is never 0."""
    priors = space(task)
    if cocktail.learning_rate == 0:
        return False
    return all(
        amount == 0
        or (name in priors and priors[name].low * 0.999 <= amount <= priors[name].high * 1.001)
        for name, amount in asdict(cocktail).items()
    )


@pytest.mark.parametrize("task", TASKS)
def test_samples_obey_their_priors(task: Task) -> None:
    """Mutants: label smoothing in regression; a chance that is read as its complement."""
    cocktails = [sampled(task, derive(1, place)) for place in range(1000)]
    assert all(lawful(cocktail, task) for cocktail in cocktails)
    for name, prior in space(task).items():
        used = [getattr(cocktail, name) for cocktail in cocktails if getattr(cocktail, name)]
        assert within(len(used), len(cocktails), prior.chance)
        below = sum(amount < prior.at(0.5) for amount in used)
        assert within(below, len(used), 0.5)


@pytest.mark.parametrize("task", TASKS)
def test_refinements_stay_lawful_and_near(task: Task) -> None:
    """Mutants: a walk that leaves the prior; a learning rate that is switched off."""
    cocktail = start(task)
    for step in range(300):
        near = refine(cocktail, task, derive(2, step))
        assert lawful(near, task)
        assert near != cocktail
        cocktail = near


def test_a_refinement_seldom_switches() -> None:
    names = [name for name in PRIORS if name != "learning_rate"]
    switched = 0
    for step in range(300):
        near = refine(RICH, "classification", derive(3, step))
        switched += sum(getattr(near, name) == 0 for name in names)
    assert within(switched, 300 * len(names), 0.12)


def test_recipes_are_named_by_their_key() -> None:
    assert sampled("regression", 5) == sampled("regression", 5) != sampled("regression", 6)
    parent = start("regression")
    assert refine(parent, "regression", 5) == refine(parent, "regression", 5)
    assert refine(parent, "regression", 5) != refine(parent, "regression", 6)


@pytest.mark.parametrize("prior", [Prior(1.0, 1e-3, 1.0), Prior(1.0, 0.1, 0.6, logarithmic=False)])
def test_a_prior_runs_from_low_to_high(prior: Prior) -> None:
    assert prior.at(0.0) == pytest.approx(prior.low)
    assert prior.at(1.0) == pytest.approx(prior.high)
    middle = prior.at(0.5)
    assert prior.moved(middle, 0.0) == pytest.approx(middle)
    assert prior.moved(middle, 0.2) == pytest.approx(prior.at(0.7))
    assert prior.moved(middle, 9.0) == pytest.approx(prior.high)
    assert prior.moved(middle, -9.0) == pytest.approx(prior.low)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_without_takes_one_thing_out(name: str) -> None:
    less = without(RICH, name)
    assert set(RICH.active) - set(less.active) == {name}
    assert replace(less, **{name: getattr(RICH, name)}) == RICH


def test_fewer_ingredients_are_simpler_then_less_dropout() -> None:
    """Mutant: dropout counted before the number of ingredients."""
    plain = Cocktail()
    some = [RICH, Cocktail(hidden_dropout=0.5), Cocktail(hidden_dropout=0.1), plain]
    assert sorted(some, key=simplicity) == some[::-1]
    assert simplest(some) == 3
    assert simplest([plain, plain]) == 0
