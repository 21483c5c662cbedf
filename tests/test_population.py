"""Training as one computation: no member feels its company, and no validation row teaches."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dropkit.records import Cocktail
from dropkit.training.doses import row_loss
from dropkit.training.encoding import Encoded
from dropkit.training.network import Inputs, Parameters, forward
from dropkit.training.population import Material, Member, Pace, Population
from workbench import RICH, STILL, equal, folds_of, material, population, text, trained

QUIET = [
    Cocktail(learning_rate=5e-3),
    STILL,
    Cocktail(learning_rate=2e-2, weight_decay=1.0, max_norm=1.5),
    Cocktail(learning_rate=1e-3, weight_averaging=0.7, label_smoothing=0.1),
]
"""Cocktails whose training draws no noise."""


def losses_of(stuff: Material, weights: Parameters, rows: Tensor) -> Tensor:
    """Mean evaluation-mode loss of each member on the same rows."""
    each = rows.expand(len(next(iter(weights.values()))), -1)
    given = Inputs(stuff.rows.numbers[each], stuff.rows.flags[each], stuff.rows.codes[each])
    return row_loss(forward(stuff.shape, weights, stuff.bins, given), stuff.truth[each]).mean(1)


@pytest.mark.parametrize("outputs", [1, 3])
def test_together_as_alone(outputs: int) -> None:
    """Mutants: a loss that is averaged over members; a neighbour's rows, doses or best weights."""
    stuff = material(outputs=outputs)
    together = trained(population(stuff, QUIET))
    for place, cocktail in enumerate(QUIET):
        members = [Member(cocktail, place % 2, place)]
        alone = trained(Population(stuff, folds_of(32, 2), members, together.pace, key=5))
        points = torch.tensor(together.history[place])
        assert torch.allclose(points, torch.tensor(alone.history[0]), atol=1e-5, rtol=1e-4)
        for name, value in alone.best.items():
            assert torch.allclose(together.best[name][place], value[0], atol=1e-5, rtol=1e-3), name


def with_other_validation(stuff: Material, rows: Tensor) -> Material:
    """The same material, but for everything about some rows."""
    numbers, truth = stuff.rows.numbers.clone(), stuff.truth.clone()
    flags, codes = stuff.rows.flags.clone(), stuff.rows.codes.clone()
    numbers[rows], flags[rows] = 100.0, 1.0 - flags[rows]
    codes[rows], truth[rows] = 0, 2 - truth[rows]
    return replace(stuff, rows=Encoded(numbers, flags, codes), truth=truth)


@pytest.mark.parametrize("cocktail", [RICH, STILL])
def test_validation_rows_teach_nothing(cocktail: Cocktail) -> None:
    """Mutants: a batch, a masked cell or a mixed row from the validation fold."""
    stuff = material()
    changed = with_other_validation(stuff, folds_of(32, 2)[0])
    seen = []
    for one in (stuff, changed):
        members = [Member(cocktail, 0, 1)] * 2
        running = Population(one, folds_of(32, 2), members, Pace(6, 8, 1, 1.0), key=5)
        while not running.finished:
            running.advance()
        seen.append((running.parameters, running.history))
    assert equal(seen[0][0], seen[1][0])
    assert seen[0][1][0][0][3] != seen[1][1][0][0][3]  # while the judgement itself did change


def test_training_rows_do_teach() -> None:
    """The leak test can see: what changes in the training fold changes the weights."""
    stuff = material()
    changed = with_other_validation(stuff, folds_of(32, 2)[1][:1])
    seen = [trained(population(one, [STILL], epochs=2)).parameters for one in (stuff, changed)]
    assert not equal(*seen)


def test_the_best_weights_are_kept_and_give_the_best_loss() -> None:
    """Mutants: the last weights; the current ones where the averaged were judged; an alias that
    training goes on to change."""
    stuff = material()
    hasty = replace(RICH, learning_rate=0.1)
    one = trained(population(stuff, [RICH, hasty, *QUIET], epochs=30, evaluations=30))
    for member in range(len(one.members)):
        validation = [point[3] for point in one.history[member]]
        assert one.best_loss[member] == min(validation)
        assert one.best_point[member] == validation.index(min(validation))
        rows = folds_of(32, 2)[member % 2]
        weights = {name: value[[member]] for name, value in one.best.items()}
        assert float(losses_of(stuff, weights, rows)[0]) == pytest.approx(
            one.best_loss[member], rel=1e-5
        )
        outputs = one.predict([member])[0]
        assert float(row_loss(outputs[None], stuff.truth[rows][None]).mean()) == pytest.approx(
            one.best_loss[member], rel=1e-5
        )
    assert any(point < len(one.history[m]) - 1 for m, point in enumerate(one.best_point))


def test_the_second_loss_is_of_training_rows_in_evaluation_mode() -> None:
    """Mutants: dropout left on while evaluating; the current weights where the averaged count."""
    stuff, cocktail = material(count=128), Cocktail(hidden_dropout=0.5, weight_averaging=0.5)
    one = trained(population(stuff, [cocktail], epochs=20, evaluations=10))
    _, noisy, train, validation = one.history[0][-1]
    weights = one.optimizer.weights(one.parameters)
    assert train == pytest.approx(
        float(losses_of(stuff, weights, folds_of(128, 2)[1])[0]), rel=1e-5
    )
    assert validation == pytest.approx(
        float(losses_of(stuff, weights, folds_of(128, 2)[0])[0]), rel=1e-5
    )
    assert noisy > train


def test_it_learns() -> None:
    stuff = material(count=128)
    one = trained(population(stuff, [Cocktail(learning_rate=1e-2)], epochs=20))
    assert one.best_loss[0] < 0.7 * math.log(3)


def test_uneven_folds_are_judged_by_their_own_rows() -> None:
    """Mutant: the filling of a shorter fold counted twice."""
    stuff, folds = material(), [torch.arange(5), torch.arange(5, 32)]
    members = [Member(STILL, fold, fold) for fold in (0, 1)]
    one = trained(Population(stuff, folds, members, Pace(4, 4, 4, 1.0), key=1))
    weights = one.optimizer.weights(one.parameters)
    for member, fold in enumerate(folds):
        others = [row for row in range(32) if row not in fold.tolist()]
        assert one.history[member][-1][3] == pytest.approx(
            float(losses_of(stuff, weights, fold)[member]), rel=1e-5
        )
        assert one.history[member][-1][2] == pytest.approx(
            float(losses_of(stuff, weights, torch.tensor(others))[member]), rel=1e-5
        )


def test_those_with_most_rows_may_leave() -> None:
    """Mutant: an epoch's order that is longer than the tables of those who stay."""
    folds = [torch.arange(5), torch.arange(5, 32)]
    members = [Member(STILL, fold, fold) for fold in (0, 1)]
    one = Population(material(), folds, members, Pace(4, 4, 4, 1.0), key=1)
    one.advance()
    one.keep([1])
    assert trained(one).step == one.total


def test_a_member_without_a_number_leaves_and_harms_nobody() -> None:
    """Mutants: a NaN that spreads through the sum of losses; NaN weights that are 'best'."""
    wild = Cocktail(learning_rate=1e30)
    stuff = material()
    one = trained(population(stuff, [QUIET[0], wild, QUIET[2]]))
    assert one.alive == [0, 2]
    assert all(value.isfinite().all() for value in one.best.values())
    calm = trained(population(stuff, [QUIET[0], QUIET[0], QUIET[2]]))
    for member in (0, 2):
        assert torch.tensor(one.best_loss)[member] == pytest.approx(
            calm.best_loss[member], rel=1e-5
        )


def test_who_no_longer_improves_leaves_after_its_patience() -> None:
    """Mutants: patience counted from the start; the impatient taking others along."""
    idle = Cocktail(learning_rate=0.0)
    eager = Cocktail(learning_rate=3e-3)
    stuff = material(count=128)
    one = trained(population(stuff, [idle, eager], epochs=20, evaluations=20, patience=0.2))
    assert one.best_point[0] == 0
    assert [point[0] for point in one.history[0]] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert len(one.history[1]) == 20


def test_survivors_are_not_touched_by_a_departure() -> None:
    stuff = material()
    whole, thinned = population(stuff, QUIET), population(stuff, QUIET)
    for _ in range(5):
        thinned.advance()
    thinned.keep([1, 2])
    for one in (whole, thinned):
        trained(one)
    for member in (1, 2):
        points = torch.tensor(thinned.history[member])
        assert torch.allclose(points, torch.tensor(whole.history[member]), atol=1e-5, rtol=1e-4)
        for name, value in whole.best.items():
            assert torch.allclose(thinned.best[name][member], value[member], atol=1e-5, rtol=1e-3)
    assert len(thinned.history[0]) < len(whole.history[0])


COMPANY = [
    RICH,
    STILL,
    replace(RICH, l1=0.0),
    Cocktail(learning_rate=1e30),
    Cocktail(hidden_dropout=0.5),
]


@pytest.mark.parametrize("stop", [0, 1, 5, 11, 12, 23])
def test_a_restored_population_ends_in_the_same_bits(stop: int) -> None:
    """Mutants: moments, averages or doses that are not restored; a stream that is one step off."""
    stuff = material()
    whole = population(stuff, COMPANY)
    for _ in range(stop):
        whole.advance()
        if whole.step == 6:
            whole.keep([0, 1, 3, 4])
    tensors, values = whole.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    again = population(stuff, COMPANY)
    again.restore(tensors, text(values))
    for one in (whole, again):
        while not one.finished:
            one.advance()
            if one.step == 6:
                one.keep([0, 1, 3, 4])
    assert json.dumps(whole.history) == json.dumps(again.history)
    assert whole.best_loss == again.best_loss and whole.alive == again.alive
    assert equal(whole.best, again.best) and equal(whole.parameters, again.parameters)


def test_a_checkpoint_can_be_used_twice() -> None:
    """Mutant: a restore that trains on in the checkpoint's own tensors."""
    whole = population(material(), COMPANY)
    for _ in range(7):
        whole.advance()
    tensors, values = whole.state()
    before = {name: value.clone() for name, value in tensors.items()}
    again = population(material(), COMPANY)
    again.restore(tensors, values)
    trained(again)
    assert equal(before, tensors)


def test_noise_differs_from_step_to_step_and_by_key() -> None:
    """Mutant: one mask for the whole training."""
    stuff = material()
    members = [Member(Cocktail(hidden_dropout=0.5), 0, 0)]
    seen = []
    for key in (5, 6, 5):
        one = Population(stuff, folds_of(32, 2), members, Pace(2, 8, 2, 1.0), key)
        seen.append(trained(one).parameters)
    assert equal(seen[0], seen[2]) and not equal(seen[0], seen[1])


def test_a_curve_is_the_history() -> None:
    one = trained(population(material(), [RICH]))
    curve = one.curve(0)
    assert curve.epochs == (2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
    assert len(curve.noisy) == len(curve.train) == len(curve.validation) == 6
    assert curve.validation[curve.best] == one.best_loss[0] == min(curve.validation)
