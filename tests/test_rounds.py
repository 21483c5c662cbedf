"""One round: losers leave, the compared stay, and trials are told as validation saw them."""

from __future__ import annotations

import math

import pytest
import torch

from dropkit.records import Cocktail
from dropkit.training.metrics import Judge, standard_error
from dropkit.training.outputs import Readout
from dropkit.training.population import Pace
from dropkit.training.rounds import Origin, Round
from workbench import RICH, folds_of, material, trained

GOOD = Cocktail(learning_rate=1e-2)
HOPELESS = Cocktail(learning_rate=1e-7)
PACE = Pace(epochs=30, batch=16, evaluations=30, patience=1.0)


def make(
    cocktails: list[Cocktail], origin: Origin = "grid", outputs: int = 3, **more: bool
) -> Round:
    stuff, folds = material(128, outputs), folds_of(128, 2)
    metric = "rmse" if outputs == 1 else "log_loss"
    truth = stuff.truth[torch.cat(folds)]
    judge = Judge(metric, truth.double() if outputs == 1 else truth, 3)
    readout = Readout(outputs) if outputs > 1 else Readout(0, low=-9.0, high=9.0)
    return Round(
        stuff, readout, folds, judge, cocktails, [origin] * len(cocktails), PACE, 7, **more
    )


def run(one: Round) -> Round:
    while not one.finished:
        one.advance()
    return one


@pytest.mark.parametrize("outputs", [1, 3])
def test_losers_leave_as_the_rungs_pass(outputs: int) -> None:
    """Mutants: leaders that leave; a trial that leaves with one fold only; work that goes on."""
    done = run(make([GOOD, HOPELESS, GOOD, HOPELESS], outputs=outputs, paired=True))
    left = [result.trial.left for result in done.results()]
    assert left[0] == left[2] == 1.0
    assert left[1] < 1.0 and left[3] < 1.0
    assert done.work < 0.9 * 4 * 2 * PACE.epochs
    epochs = [len(curve.epochs) for curve in done.results()[1].trial.curves]
    assert epochs[0] == epochs[1] < PACE.epochs


def test_equals_do_not_leave() -> None:
    """Mutant: successive halving whatever the noise."""
    done = run(make([GOOD, GOOD, GOOD, GOOD], paired=True))
    assert [result.trial.left for result in done.results()] == [1.0] * 4


def test_who_regularizes_more_has_grace() -> None:
    """Regularized members bend late. Mutant: the same margin for all."""
    slow = Cocktail(learning_rate=1.2e-3)
    slow_and_rich = Cocktail(learning_rate=1.2e-3, weight_decay=1e-9)
    plain = run(make([GOOD, slow])).results()[1].trial.left
    rich = run(make([GOOD, slow_and_rich])).results()[1].trial.left
    assert plain <= rich


def test_in_an_ablation_all_stay() -> None:
    done = run(make([GOOD, HOPELESS], "ablation"))
    assert [result.trial.left for result in done.results()] == [1.0, 1.0]
    assert done.work == pytest.approx(2 * 2 * PACE.epochs)


def test_an_ablation_compares_like_with_like() -> None:
    """The same starts in every trial. Mutant: a gain that is a difference of seeds."""
    for paired in (True, False):
        starts = make([GOOD, GOOD], "ablation", paired=paired).population.parameters["weight.0"]
        assert torch.equal(starts[:2], starts[2:]) == paired
        assert not torch.equal(starts[0], starts[1])


def test_a_trial_is_told_as_validation_saw_it() -> None:
    """Mutants: folds in another order than the truth; one fold's loss for all."""
    done = run(make([GOOD, RICH]))
    folds = folds_of(128, 2)
    truth = material(128).truth
    for result in done.results():
        judge = Judge("log_loss", truth[torch.cat(folds)], 3)
        assert result.prediction.shape == (128, 3)
        assert result.trial.loss == judge.loss(result.prediction)
        assert result.trial.error == standard_error(judge.replicates(result.prediction))
        assert result.trial.loss == pytest.approx(sum(result.trial.losses) / 2)
        for fold, loss in enumerate(result.trial.losses):
            curve = result.trial.curves[fold]
            assert loss == pytest.approx(curve.validation[curve.best], rel=1e-5)
        assert all(len(value) == 2 for value in result.weights.values())


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_best_so_far_is_the_best_trial_s(outputs: int) -> None:
    one = make([GOOD, HOPELESS], outputs=outputs)
    assert one.best() is None
    one.population.evaluate()
    first = one.best()
    best = run(one).best()
    assert first is not None and best is not None
    assert best < first
    assert best == pytest.approx(min(result.trial.loss for result in one.results()), rel=1e-4)


def test_counts_of_trials() -> None:
    one = make([GOOD, HOPELESS])
    assert one.alive == 2
    one.population.keep([0, 1, 3])
    assert one.alive == 2
    one.population.keep([0])
    assert one.alive == 1
    assert math.isfinite(trained(one.population).best_loss[0])
