"""The search is a function of table, budget and seed, whenever one looks, stops or resumes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from dropkit.errors import ModelFolderError, SettingError
from dropkit.records import Cocktail, Curve, Trial
from dropkit.training import plan
from dropkit.training import search as searching
from dropkit.training.metrics import CLASSIFICATION, REGRESSION, standard_error
from dropkit.training.rounds import Origin, Result
from dropkit.training.search import Search, effects, winner
from workbench import TARGETS, column, finished, mixed, schema, search, text

ROWS = 64
TRIAL = 8 * 20
"""Member-epochs of a trial of a short search: eight folds of 20 epochs, of a step each."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Search]:
    """Searches of few steps by small networks; all rounds are there from a budget of 10 trials."""
    monkeypatch.setattr(plan, "_STEPS", 35)
    monkeypatch.setattr(plan, "_size", lambda rows: (8, 32, 26))

    def make(target: str = "won", rows: int = ROWS, **settings: Any) -> Search:
        return search(mixed(rows), target, **{"budget": 10 * TRIAL} | settings)

    return make


def same(first: Search, second: Search) -> bool:
    """Equal bits in the predictions and in all that is told."""
    frame = mixed(100, key=9).drop(columns=list(TARGETS))
    known = mixed(ROWS).town.unique()
    frame["town"] = frame.town.where(frame.town.isin(known), None)
    predictions = [one.model().predict(frame) for one in (first, second)]
    return np.array_equal(*predictions) and first.outcome() == second.outcome()


def moved(one: Search, calls: int) -> Search:
    for _ in range(calls):
        one.advance()
    return one


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `advance` is one step, whatever the machine's speed."""
    ticks = iter(range(10**9))
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(searching, "time", clock)
    monkeypatch.setattr(searching, "_SLICE", 1.5)


@pytest.mark.parametrize("target", TARGETS)
def test_a_seed_names_the_result(short: Callable[..., Search], target: str) -> None:
    first, second = finished(short(target, seed=3)), finished(short(target, seed=3))
    assert same(first, second)
    assert not same(first, finished(short(target, seed=4)))


def test_slices_of_any_length_come_to_the_same(
    short: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: randomness named by the call and not by the step."""
    monkeypatch.setattr(searching, "_SLICE", 1e9)
    whole = short()
    whole.advance()
    assert whole.finished
    monkeypatch.setattr(searching, "_SLICE", 0.003)
    assert same(whole, finished(short()))


@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("target", ["amount", "rank"])
def test_a_checkpoint_goes_on_in_the_same_bits(short: Callable[..., Search], target: str) -> None:
    """Mutants: a round's key, rung or spent work that is not kept; results without replicates."""
    whole = finished(short(target))
    running = short(target)
    for stop in (0, 1, 2, 10, 9, 8, 20, 11):
        moved(running, stop)
        tensors, description = running.state()
        tensors = {name: value.clone() for name, value in tensors.items()}
        resumed = short(target)
        resumed.restore(tensors, text(description))
        assert resumed.progress == running.progress
        running = resumed
    assert running.outcome().trials[0].curves  # there was something to keep
    assert same(finished(running), whole)


def test_a_finished_search_can_be_restored(short: Callable[..., Search]) -> None:
    whole = finished(short())
    resumed = short()
    tensors, description = whole.state()
    resumed.restore(tensors, text(description))
    assert resumed.finished
    assert same(whole, resumed)


@pytest.mark.usefixtures("step_by_step")
@pytest.mark.parametrize("at", [0, 1, 20, 50])
def test_looking_changes_nothing(short: Callable[..., Search], at: int) -> None:
    """Mutants: an evaluation on demand that stays in the history, or that moves the patience."""
    watched = moved(short(), at)
    watched.model(), watched.outcome(), watched.state(), watched.progress
    assert same(finished(watched), finished(short()))


@pytest.mark.parametrize("spoil", ["trials", "work", "rounds"])
def test_a_checkpoint_that_lacks_something_is_said(
    short: Callable[..., Search], spoil: str
) -> None:
    tensors, description = moved(short(), 1).state()
    del description[spoil]
    with pytest.raises(ModelFolderError, match=spoil):
        short().restore(tensors, description)


def test_a_checkpoint_without_its_tensors_is_said(short: Callable[..., Search]) -> None:
    tensors, description = finished(short()).state()
    tensors.pop("result.0.prediction")
    with pytest.raises(ModelFolderError):
        short().restore(tensors, description)


def test_a_checkpoint_of_another_search_is_said(short: Callable[..., Search]) -> None:
    tensors, description = moved(short("won"), 1).state()
    with pytest.raises(ModelFolderError):
        short("rank").restore(tensors, description)


def test_before_any_training_the_frequencies_are_predicted() -> None:
    """Ctrl-C may come at once. Mutants: no model without a finished round; random outputs."""
    frame = mixed(200)
    frame.loc[::2, "won"] = "yes"
    for target in ("won", "rank"):
        predicted = search(frame, target).model().predict(frame)
        shares = frame[target].value_counts(normalize=True).sort_index()
        classes = search(frame, target)._schema.classes
        assert np.allclose(predicted, shares[list(classes)].to_numpy(), atol=0.03)
    values = search(frame, "amount").model().predict(frame)
    assert np.allclose(values, frame.amount.mean(), atol=1e-5)
    outcome = search(frame, "amount").outcome()
    assert outcome.work == 0 and outcome.trials and not outcome.effects


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_a_table_without_a_used_column_is_predicted_by_its_mean(classes: tuple[str, ...]) -> None:
    frame = pd.DataFrame({"id": range(40)})
    target = np.arange(40) % 4 == 0 if classes else np.arange(40.0)
    unused = schema(column("id", used=False), rows=40, classes=classes)
    kind = np.int64 if classes else np.float64
    one = finished(Search(frame, target.astype(kind), unused, budget=500))
    predicted = one.model().predict(frame)
    assert np.allclose(predicted, [0.75, 0.25] if classes else 19.5, atol=0.05 if classes else 1.5)
    assert np.isfinite(one.outcome().validation)


def judged(one: Search) -> dict[str, Any]:
    """The out-of-sample loss on new rows, and that of the frequencies or the mean."""
    new = mixed(600, key=5)
    target, classes = one._schema.target, one._schema.classes
    new["town"] = None
    predicted = one.model().predict(new.drop(columns=list(TARGETS)))
    if not classes:
        truth = new[target].to_numpy()
        return {"loss": np.square(predicted - truth).mean(), "naive": truth.var()}
    codes = pd.Categorical(new[target], classes).codes
    naive = -np.log(np.bincount(codes) / len(codes))[codes].mean()
    return {"loss": -np.log(predicted[np.arange(600), codes]).mean(), "naive": naive}


@pytest.mark.parametrize("target", TARGETS)
def test_a_signal_is_learned(target: str) -> None:
    """Mixed columns, missing cells, dates, many levels. Mutant: targets in another row order."""
    one = finished(search(mixed(160), target, budget=2048))
    score = judged(one)
    assert score["loss"] < (0.15 if target == "amount" else 0.5) * score["naive"]


def test_a_hundred_levels_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: embedded levels that are never read."""
    monkeypatch.setattr(plan, "_STEPS", 500)
    draw = np.random.default_rng(0)
    level, worth = draw.integers(0, 100, 800), draw.normal(size=100)
    frame = pd.DataFrame({"town": [f"town {place}" for place in level], "amount": worth[level]})
    one = finished(search(frame, "amount", budget=2048))
    assert one._encoder.layout.levels[0] > 90
    assert np.square(one.model().predict(frame) - frame.amount).mean() < 0.5


@pytest.mark.parametrize("metric", [*CLASSIFICATION, *REGRESSION])
def test_every_metric_can_judge(short: Callable[..., Search], metric: str) -> None:
    target = "won" if metric in CLASSIFICATION else "amount"
    one = finished(short(target, metric=metric))
    outcome = one.outcome()
    assert outcome.metric == metric
    best = min(trial.loss for trial in outcome.trials)
    assert outcome.validation <= best + 1e-9
    assert all(trial.error >= 0 and len(trial.losses) == outcome.folds for trial in outcome.trials)
    assert one.progress.best == pytest.approx(best)


def test_a_metric_that_does_not_fit_is_said() -> None:
    for target, metric in (
        ("amount", "accuracy"),
        ("rank", "roc_auc"),
        ("won", "rmse"),
        ("won", "?"),
    ):
        with pytest.raises(SettingError):
            search(mixed(), target, metric=metric)


@pytest.mark.parametrize("budget", [0, -5, "much", float("nan")])
def test_a_budget_that_is_none_is_said(budget: str | float) -> None:
    with pytest.raises(SettingError, match="budget"):
        search(mixed(), "won", budget=budget)


@pytest.mark.parametrize("trials", [1, 2, 5, 8, 11, 17])
def test_no_more_work_than_the_budget(short: Callable[..., Search], trials: int) -> None:
    one = finished(short(budget=trials * TRIAL))
    outcome = one.outcome()
    assert 0 < outcome.work <= outcome.budget == trials * TRIAL


@pytest.mark.usefixtures("step_by_step")
def test_progress_runs_from_nothing_to_done(short: Callable[..., Search]) -> None:
    one, seen = short(), []
    seen.append(one.progress)
    while not one.finished:
        seen.append(one.advance())
    assert seen[0].done == 0 and seen[-1].done == 1.0 and seen[-1].alive == 0
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert all(0 <= progress.alive <= progress.members for progress in seen)
    best = [progress.best for progress in seen if progress.best is not None]
    assert best and best[-1] == min(trial.loss for trial in one.outcome().trials)
    assert len({progress.phase for progress in seen}) >= 3


def test_an_ablation_names_what_the_winner_had(short: Callable[..., Search]) -> None:
    """Mutants: the effect of an ingredient that is off; a gain with its sign turned."""
    outcome = finished(short(budget=40 * TRIAL)).outcome()
    ablation = [trial for trial in outcome.trials if trial.origin == "ablation"]
    best = outcome.trials[outcome.winner].cocktail
    assert ablation[0].cocktail == best
    assert [effect.regularizer for effect in outcome.effects] == list(best.active)[
        : len(ablation) - 1
    ]
    for effect, variant in zip(outcome.effects, ablation[1:], strict=True):
        assert effect.setting == getattr(best, effect.regularizer) > 0
        assert set(best.active) - set(variant.cocktail.active) == {effect.regularizer}
        assert effect.low <= effect.gain <= effect.high
        assert all(len(curve.epochs) for curve in variant.curves)


@pytest.mark.usefixtures("step_by_step")
def test_an_ablation_that_has_not_begun_claims_nothing(short: Callable[..., Search]) -> None:
    """Mutant: a gain of exactly 0 for networks that were stopped before their first step."""
    one = short()
    while one.progress.phase != "what each regularizer bought":
        one.advance()
    assert one.outcome().effects == ()


def trial(cocktail: Cocktail, losses: tuple[float, ...], origin: Origin = "sampled") -> Trial:
    curve = Curve((1.0,), (0.5,), (0.5,), (0.5,), 0)
    return Trial(origin, cocktail, losses, sum(losses) / len(losses), 0.1, 1.0, (curve,))


def result(
    cocktail: Cocktail,
    replicates: list[float],
    origin: Origin = "sampled",
    losses: tuple[float, ...] = (),
) -> Result:
    values = torch.tensor(replicates, dtype=torch.float64)
    record = trial(cocktail, losses or (float(values.mean()),), origin)
    weights: dict[str, Tensor] = {}
    return Result(record, values, values, weights)


FULL = Cocktail(hidden_dropout=0.2, weight_decay=0.1)


def ablated(cocktail: Cocktail, *losses: float) -> Result:
    return result(cocktail, [losses[0] - 0.1, losses[0] + 0.1], "ablation", losses)


def test_an_effect_is_the_loss_without_minus_the_loss_with() -> None:
    found = effects(
        [
            result(FULL, [0.0, 0.0]),
            ablated(FULL, 1.0, 2.0),
            ablated(Cocktail(weight_decay=0.1), 1.5, 2.7),
            ablated(Cocktail(hidden_dropout=0.2), 0.9, 1.9),
        ]
    )
    assert [effect.regularizer for effect in found] == ["hidden_dropout", "weight_decay"]
    assert [effect.setting for effect in found] == [0.2, 0.1]
    assert [effect.gain for effect in found] == pytest.approx([0.6, -0.1])
    assert found[0].low < 0.6 < found[0].high
    assert effects([result(FULL, [1.0, 2.0])]) == ()


def test_with_a_holdout_an_effect_s_interval_is_over_its_rows() -> None:
    """Mutant: an interval over a single fold, which has no end or no width."""
    less = result(Cocktail(weight_decay=0.1), [1.1, 1.5, 1.3], "ablation", (1.3,))
    (found,) = effects([result(FULL, [1.0, 1.2, 1.1], "ablation", (1.1,)), less])
    assert found.gain == pytest.approx(0.2)
    half = 1.96 * standard_error(torch.tensor([0.1, 0.3, 0.2]))
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), rel=1e-5)


RICHER = Cocktail(hidden_dropout=0.3, weight_decay=0.1, mixup=0.2)
PLAIN = Cocktail(weight_decay=0.1)


def test_a_tie_goes_to_the_simpler_cocktail() -> None:
    """Mutants: the best always; a tie by the losses' own errors, which makes all equal."""
    best = result(RICHER, [1.0, 1.1, 0.9, 1.0])
    near = result(PLAIN, [1.2, 1.0, 0.8, 1.1])
    far = result(Cocktail(), [1.1, 1.2, 1.0, 1.1])
    assert standard_error(near.replicates - best.replicates) > 0.05
    assert winner([best, near, far]) == 1
    assert winner([far, near, best]) == 1
    assert winner([best, far]) == 0  # worse in each group alike: little, but no noise


def test_the_ablation_does_not_win() -> None:
    best = result(RICHER, [1.0, 1.1])
    assert winner([best, result(PLAIN, [0.1, 0.1], "ablation")]) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_the_ensemble_is_what_validation_chose(short: Callable[..., Search], target: str) -> None:
    outcome = finished(short(target)).outcome()
    assert sum(share for _, share in outcome.ensemble) == pytest.approx(1.0)
    assert all(0 <= index < len(outcome.trials) for index, _ in outcome.ensemble)
    assert outcome.validation <= min(trial.loss for trial in outcome.trials) + 1e-9
    assert outcome.folds == 8 and outcome.validation_rows == ROWS
    assert outcome.parameters > 0 and "SiLU" in outcome.network


def test_the_global_random_state_and_the_table_are_left_alone(short: Callable[..., Search]) -> None:
    frame = mixed()
    before, state, numpy = frame.copy(), torch.get_rng_state(), np.random.get_state()[1].copy()
    moved(search(frame, "won"), 1).model()
    pd.testing.assert_frame_equal(frame, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy).all()


def test_all_but_a_few_rows_of_one_class_can_be_searched() -> None:
    """Uneven folds whose largest training sets may leave first."""
    frame = mixed(61)
    frame["won"] = np.where(np.arange(61) < 3, "yes", "no")
    outcome = finished(search(frame, "won", budget=2000)).outcome()
    assert np.isfinite(outcome.validation)


@pytest.mark.parametrize("rows", [4, 5, 7])
def test_the_smallest_tables(rows: int) -> None:
    frame = pd.DataFrame({"size": np.arange(rows) ** 2.0, "won": list("abababa")[:rows]})
    one = finished(search(frame, "won", budget=100))
    predicted = one.model().predict(frame)
    assert predicted.shape == (rows, 2)
    assert np.allclose(predicted.sum(1), 1)


def test_a_time_limit_makes_a_smaller_plan(short: Callable[..., Search]) -> None:
    one, roomy, plain = short(), short(), short()
    one.fit_into(1e-3)
    roomy.fit_into(1e6)
    assert one.hurried and not roomy.hurried
    assert same(finished(roomy), finished(plain))  # measuring leaves no trace
    assert finished(one).outcome().work < 0.7 * plain.outcome().work
    assert one.unfinished and not roomy.unfinished


@pytest.mark.parametrize("done", [False, True])
def test_a_hurried_search_goes_on_when_there_is_time(
    short: Callable[..., Search], done: bool
) -> None:
    """Mutant: a plan for the first limit that outlives it, so that a resumption does nothing."""
    one = short()
    one.fit_into(1e-3)
    if done:
        finished(one)
    tensors, description = one.state()
    resumed = short()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, text(description))
    few, more = finished(one).outcome(), finished(resumed).outcome()
    assert resumed.hurried and not resumed.unfinished
    assert len(more.trials) > len(few.trials)
    assert more.work > 0.5 * more.budget  # mutant: the budget of the shorter plan
    assert max(trial.curves[0].epochs[-1] for trial in more.trials) > 10  # mutant: its few epochs
    assert more.effects and not few.effects
    assert more.trials[: len(few.trials)] == few.trials


@pytest.mark.parametrize(("trials", "ablations"), [(20, 1), (48, 2)])
def test_a_search_cut_short_after_its_ablation_goes_on(
    trials: int, ablations: int, short: Callable[..., Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutants: two ablations taken for one; a clock that runs from the machine's start."""
    one, resumed = short(budget=trials * TRIAL), short(budget=trials * TRIAL)
    one.fit_into(1e6)
    with monkeypatch.context() as patch:
        patch.setattr(Search, "_timely", lambda self: self._plan.ablated + 1.0)
        few = finished(one).outcome()
    assert few.effects and one.unfinished
    tensors, description = one.state()
    resumed.restore({name: value.clone() for name, value in tensors.items()}, text(description))
    resumed.fit_into(1e3)
    more = finished(resumed).outcome()
    origins = [trial.origin for trial in more.trials]
    assert more.effects and not resumed.unfinished
    runs = [len(list(run)) for kind, run in groupby(origins) if kind == "ablation"]
    assert len(runs) == ablations and max(runs) <= resumed._plan.ablated


@pytest.mark.parametrize("budget", [1, 12, 50])
@pytest.mark.parametrize("rows", [5, 60])
def test_a_time_limit_on_the_smallest_plans(rows: int, budget: float) -> None:
    """Mutant: a speed measured on a population that has come to its end."""
    frame = pd.DataFrame({"size": np.arange(rows) ** 2.0, "won": list("ab" * rows)[:rows]})
    for seconds in (1e-3, 1e3):
        one = search(frame, "won", budget=budget)
        one.fit_into(seconds)
        assert finished(one).outcome().work > 0


def test_what_is_less_than_two_full_trials_is_spent_on_short_ones(
    short: Callable[..., Search],
) -> None:
    """Mutant: a search that offers to go on, and has nothing to open."""
    one, resumed = short(budget=2.5 * TRIAL), short(budget=2.5 * TRIAL)
    one.fit_into(1e-3)
    few = finished(one).outcome()
    assert one.unfinished
    resumed.restore(*one.state())
    assert finished(resumed).outcome().work > few.work + TRIAL


def test_a_plan_too_small_to_refine_samples_on_after_a_time_limit(
    short: Callable[..., Search],
) -> None:
    """Mutant: what is left of a small budget is never spent."""
    one, resumed = short(budget=6 * TRIAL), short(budget=6 * TRIAL)
    one.fit_into(1e-3)
    finished(one)
    assert one.unfinished
    resumed.restore(*one.state())
    recipes = [trial.cocktail for trial in finished(resumed).outcome().trials]
    assert not resumed.unfinished
    assert len(recipes) > len(one.outcome().trials)
    assert len(set(recipes)) == len(recipes)
