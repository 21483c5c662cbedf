"""The search: rounds of cocktails over folds, the choice of a winner, and its ablation."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dropkit.errors import ModelFolderError
from dropkit.kernel import derive
from dropkit.records import Cocktail, Effect, Origin, Outcome, Progress, Schema
from dropkit.training import cocktails, metrics
from dropkit.training.checks import checklist
from dropkit.training.encoding import Encoder
from dropkit.training.ensemble import blend, select, temper, temperature
from dropkit.training.folds import split
from dropkit.training.keeping import pack, unpack
from dropkit.training.model import Model
from dropkit.training.outputs import Readout
from dropkit.training.plan import plan
from dropkit.training.population import Material, Pace, Population
from dropkit.training.rounds import Result, Round, fold_places
from dropkit.training.thinning import Kind, Network, Rates, draws

_SLICE = 0.1
"""Seconds of training per call of `advance`; the length of a slice does not touch the result."""
_PROBED = 8
"""Steps by which the speed is measured."""
_PROBED_SHARE = 0.05
"""Share of the time after which that is enough."""
_USUALLY_SPENT = 0.9
"""Share of the work that is really done: losers leave and members stop early."""
_LONGER = 1.5
"""How much longer than its forerunners a trial may take, since fewer of its round leave early."""
_PARENTS = 3
_TIE = 1.0
"""Standard errors of the difference to the best within which the simpler cocktail wins."""


_PHASES = {
    "grid": "the grid of rates",
    "sampled": "the grid of rates and samples",
    "refined": "refining the best",
    "ablation": "what each regularizer bought",
}


@dataclass(frozen=True, slots=True)
class _Standing:
    """Trials, the ensemble that validation chose of them, and what it predicts out of fold."""

    results: list[Result]
    weights: list[tuple[int, float]]
    mixed: Tensor
    temperature: float


class Search:
    """Turns a table into an ensemble of networks, a slice at a time.

    Call `advance` until `finished`, or stop at any time: `model` and `outcome` tell what
    validation has chosen so far. The result is a function of the table, the budget and the seed.

    Raises SettingError for a metric or budget that does not fit.

    >>> import numpy as np, pandas as pd
    >>> from dropkit.training.columns import encode_target, infer_schema
    >>> table = pd.DataFrame({"x": np.linspace(-1, 1, 60) ** 3, "y": np.linspace(0, 1, 60)})
    >>> schema = infer_schema(table, "y")
    >>> search = Search(table, encode_target(table["y"], schema), schema, budget=300)
    >>> while not search.finished:
    ...     progress = search.advance()
    >>> len(search.model().predict(table))
    60
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        target: np.ndarray,
        schema: Schema,
        *,
        metric: str = "auto",
        budget: str | float = "auto",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._schema, self._seed = schema, seed
        self.metric = metrics.choose(metric, schema)
        self._encoder = Encoder.fit(frame, schema)
        self._readout = Readout.fit(target, len(schema.classes))
        truth = self._readout.judged(target)
        self._folds = split(truth, derive(seed, 0))
        self._plan = plan(len(frame), len(self._folds), budget)
        self._first_trials = self._plan.first
        self._truth = truth[torch.cat(self._folds)]
        self._judge = metrics.Judge(self.metric, self._truth, derive(seed, 1))
        self._material = self._prepare(frame, target, device)
        self._results: list[Result] = []
        self._work = 0.0
        self._rounds = 0
        self._budget = self._plan.budget
        self._deadline = math.inf
        self._since = self._trained = self._timed = 0.0
        self._standing: tuple[float, _Standing] | None = None
        self.hurried = self._skipped = False
        self._round: Round | None = None
        self._open(*self._first())

    def _prepare(self, frame: pd.DataFrame, target: np.ndarray, device: str) -> Material:
        return Material(
            rows=self._encoder.transform(frame).to(device),
            truth=self._readout.learned(target).to(device),
            layout=self._encoder.layout,
            bins=self._encoder.bins().to(torch.float32).to(device),
            shape=self._encoder.shape(self._plan.hidden, self._readout.outputs),
            prior=self._readout.prior(target).to(device),
        )

    def fit_into(self, seconds: float) -> None:
        """Plan for a time limit: does nothing if the plan fits.

        Before the first `advance`, the speed is measured on a few steps that leave no trace, and a
        plan that would not fit becomes one of shorter trials, `hurried`. Later, rounds for which
        there is no time are left out: then the search is `unfinished` at its end.
        """
        self._deadline = time.perf_counter() + seconds
        if self._round is None or self._results or self._round.work or seconds <= 0:
            return
        self.hurried = False
        population, member_epochs = self._round.population, self._plan.first * self._plan.folds
        epoch = _step_seconds(population, _PROBED_SHARE * seconds) * population.steps_per_epoch
        needed = self._plan.budget * epoch / member_epochs * _USUALLY_SPENT
        seconds = self._deadline - time.perf_counter()
        if needed > seconds:
            shorter = self._plan.within(max(0.0, seconds / needed))
            self._plan = replace(self._plan, pace=shorter.pace)
            self._first_trials, self.hurried = shorter.first, True
        self._open(*self._first())

    # ---- rounds

    def _open(
        self, recipes: Sequence[Cocktail], origins: Sequence[Origin], pace: Pace | None = None
    ) -> Round:
        self._round = Round(
            self._material,
            self._readout,
            self._folds,
            self._judge,
            recipes,
            origins,
            pace or self._plan.pace,
            derive(self._seed, 2, self._rounds),
            paired="ablation" in origins,
        )
        return self._round

    def _first(self) -> tuple[list[Cocktail], list[Origin]]:
        task, count = self._schema.task, self._first_trials
        grid = cocktails.grid(task)
        middle = sorted(grid, key=lambda recipe: abs(recipe.hidden_dropout - 0.15))[:count]
        grid = [recipe for recipe in grid if recipe in middle]
        samples = self._sampled(count - len(grid))
        origins: list[Origin] = ["grid"] * len(grid)
        return grid + samples, origins + ["sampled"] * len(samples)

    def _sampled(self, count: int) -> list[Cocktail]:
        """Samples that were not tried yet."""
        tried = sum(result.trial.origin == "sampled" for result in self._results)
        keys = [derive(self._seed, 3, tried + index) for index in range(count)]
        return [cocktails.sampled(self._schema.task, key) for key in keys]

    def _refined(self, count: int) -> list[Cocktail]:
        """Neighbours of the best."""
        task = self._schema.task
        ranked = sorted(self._results, key=lambda result: result.trial.loss)[:_PARENTS]
        parents = [ranked[index % len(ranked)] for index in range(count)]
        key = derive(self._seed, 4, self._rounds)
        return [
            cocktails.refine(parent.trial.cocktail, task, derive(key, index))
            for index, parent in enumerate(parents)
        ]

    def _ablated(self, count: int) -> list[Cocktail]:
        """The winner, and the winner without one regularizer each."""
        if _is_of_ablation(self._results[-1]):
            return []  # of the same winner; it has been done
        best = self._results[winner(self._results)].trial.cocktail
        return [best, *(cocktails.without(best, name) for name in best.active)][:count]

    def _next(self) -> None:
        """Close the round and open the one that follows, if the budget has room for one."""
        if self._round is None:
            return
        self._results += self._round.results()
        self._work += self._round.work
        length = self._round.population.pace.epochs / self._plan.pace.epochs
        self._timed += length * len(self._round.origins)
        closed, self._round = self._round, None
        self._rounds += 1
        if "ablation" not in closed.origins:
            self._go_on()

    def _go_on(self) -> None:
        """Open the round for which there is room, if it is of two trials at least."""
        planned = (self._budget - self._work) / self._plan.trial
        timely = self._timely()
        kind, count = self._plan.following(min(planned, timely), partly=timely < planned)
        self._skipped = (kind, count) != self._plan.following(planned)
        self.hurried |= self._skipped
        rounds = {"sampled": self._sampled, "refined": self._refined, "ablation": self._ablated}
        recipes = rounds[kind](count)
        if len(recipes) > 1:
            self._open(recipes, [kind] * len(recipes))

    def _timely(self) -> float:
        """Trials for which there is time, at the speed so far."""
        self._clock()
        if not self._timed or not self._trained:
            return math.inf
        each = _LONGER * self._trained / self._timed
        return (self._deadline - time.perf_counter()) / each

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train, in this budget and this time."""
        return self._round is None

    @property
    def parameters(self) -> int:
        """Trainable parameters of one network."""
        return self._material.shape.parameters

    @property
    def unfinished(self) -> bool:
        """Whether there would be more to train if there were more time."""
        return self._round is not None or self._skipped

    def advance(self) -> Progress:
        """Train for about a tenth of a second and tell where the search stands."""
        self._since = time.perf_counter()
        end = self._since + _SLICE
        while self._round is not None and time.perf_counter() < end:
            self._round.advance()
            if self._round.finished:
                self._next()
        self._clock()
        return self.progress

    def _clock(self) -> None:
        now = time.perf_counter()
        self._trained += now - self._since
        self._since = now

    @property
    def _spent(self) -> float:
        """Member-epochs so far."""
        return self._work + (0.0 if self._round is None else self._round.work)

    @property
    def progress(self) -> Progress:
        """Where the search stands."""
        if self._round is None:
            return Progress("done", 1.0, self._best(), 0, 0)
        origin = self._round.origins[-1]
        population = self._round.population
        rest = 1.0 if origin == "ablation" else 1.0 - self._plan.ablated / self._plan.trials
        spent = self._spent / self._budget
        return Progress(
            phase=_PHASES[origin],
            done=min(rest, spent),
            best=self._best(),
            alive=len(population.alive),
            members=len(population.members),
        )

    def _best(self) -> float | None:
        losses = [result.trial.loss for result in self._results]
        if self._round is not None and self.metric in ("log_loss", "rmse"):
            running = self._round.best()
            losses += [] if running is None else [running]
        return min(losses, default=None)

    # ---- what came of it

    def _stands(self) -> _Standing:
        """What validation says now; a round that it has not seen waits while there are others."""
        if self._standing is None or self._standing[0] != self._spent:
            results = list(self._results)
            if self._round is not None and (self._round.seen or not results):
                results += self._round.results()
            self._standing = self._spent, _standing(results, self._judge, self._truth)
        return self._standing[1]

    def model(self) -> Model:
        """The ensemble that validation chose so far."""
        now = self._stands()
        networks = [
            (now.results[index].weights, weight, Rates.of(now.results[index].trial.cocktail))
            for index, weight in now.weights
        ]
        shape = self._material.shape
        return Model.of(
            self._schema, self._encoder, self._readout, shape, networks, now.temperature
        )

    def draws(self, count: int, key: int, most: int) -> tuple[Tensor, Tensor]:
        """The draws of about `most` validation rows, as of `Model.draws`, and their truth.

        A row is sampled by the networks that did not train on it: of each chosen trial the one of
        the row's fold. They chose their epoch by it, and the ensemble was chosen by it.
        """
        now, material = self._stands(), self._material
        kind = Kind(material.shape, material.layout, self._encoder.bins(), self._readout)
        shares = [weight for _, weight in now.weights]
        rows, parts, truth = material.rows.to("cpu"), [], []
        for fold, (held, places) in enumerate(
            zip(self._folds, fold_places(self._folds), strict=True)
        ):
            networks = [_network(now.results[index], fold) for index, _ in now.weights]
            few = torch.linspace(0, len(held) - 1, _few(len(held), most, len(self._truth))).long()
            parts.append(draws(kind, networks, shares, rows[held[few]], key, range(count)))
            truth.append(self._truth[places[few]])
        return torch.cat(parts, 1), torch.cat(truth)

    def outcome(self) -> Outcome:
        """What was tried, what won and what each regularizer bought, for a report."""
        now = self._stands()
        chosen = winner(now.results)
        return Outcome(
            metric=self.metric,
            trials=tuple(result.trial for result in now.results),
            winner=chosen,
            effects=effects(now.results) if self._round is None else (),  # cut short, it misleads
            ensemble=tuple(now.weights),
            validation=self._judge.loss(now.mixed),
            folds=len(self._folds),
            validation_rows=len(self._truth),
            work=self._spent,
            budget=self._budget,
            parameters=self.parameters,
            network=str(self._material.shape),
            hurried=self.hurried,
            checks=checklist(self._material, self._folds, now.results[chosen], self.model().read),
        )

    # ---- state

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A checkpoint from which `restore` goes on in the same bits."""
        tensors, values = pack(self._results, self._round, self._rounds, self._work)
        pace = (self._round.population if self._round else self._plan).pace
        return tensors, values | {
            "pace": (pace.epochs, pace.evaluations),
            "hurried": self.hurried,
            "skipped": self._skipped,
        }

    def restore(self, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of a search with the same arguments on the same table."""
        try:
            saved = unpack(tensors, description)
            self._results, self._rounds, self._work = saved.results, saved.rounds, saved.work
            self._standing, self._round = None, None
            self._since, self._trained, self._timed = time.perf_counter(), 0.0, 0.0
            self.hurried, self._skipped = description["hurried"], description["skipped"]
            epochs, evaluations = description["pace"]
            pace = replace(self._plan.pace, epochs=epochs, evaluations=evaluations)
            if saved.recipes:
                reopened = self._open(saved.recipes, saved.origins, pace)
                reopened.restore(saved.tensors, saved.values)
            elif self._skipped:  # there was no time for another round; now there is
                self._go_on()
                if self._round is None:  # for no two trials of full length
                    self._plan = replace(self._plan, pace=pace)
                    self._go_on()
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelFolderError(f"the checkpoint does not fit this search: {error!r}") from error


def _network(result: Result, fold: int) -> Network:
    """The network of a trial that did not train on a fold's rows."""
    weights = {
        name: value[fold : fold + 1].cpu().double() for name, value in result.weights.items()
    }
    return Network(weights, Rates.of(result.trial.cocktail))


def _few(rows: int, most: int, all_rows: int) -> int:
    """A fold's part of at most so many rows of all folds, at least one."""
    return min(rows, max(1, rows * most // all_rows))


def _step_seconds(population: Population, limit: float) -> float:
    """Seconds of a step: the median of a few, so that a stall foretells little."""
    marks = [time.perf_counter()]
    while not population.finished and (
        len(marks) < 3 or (len(marks) < _PROBED + 2 and marks[-1] - marks[1] < limit)
    ):
        population.advance()
        marks.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(marks)]
    return statistics.median(steps[1:] or steps)  # the first one is slow


def _standing(results: list[Result], judge: metrics.Judge, truth: Tensor) -> _Standing:
    predictions = [result.prediction for result in results]
    weights = select(judge, predictions)
    mixed = blend(predictions, weights)
    if truth.is_floating_point():
        return _Standing(results, weights, mixed, 1.0)
    found = temperature(mixed, truth)
    return _Standing(results, weights, temper(mixed, found), found)


def winner(results: Sequence[Result]) -> int:
    """The best trial, or the simplest of those that the validation rows cannot tell from it."""
    candidates = [i for i, result in enumerate(results) if result.trial.origin != "ablation"]
    best = results[min(candidates, key=lambda index: results[index].trial.loss)]
    tied = [index for index in candidates if _is_tied(results[index], best)]
    return tied[cocktails.simplest([results[index].trial.cocktail for index in tied])]


def _is_of_ablation(result: Result) -> bool:
    return result.trial.origin == "ablation"


def _is_tied(result: Result, best: Result) -> bool:
    noise = metrics.standard_error(result.replicates - best.replicates)
    return result.trial.loss - best.trial.loss <= _TIE * noise


def effects(results: Sequence[Result]) -> tuple[Effect, ...]:
    """What each regularizer bought, from an ablation: paired differences over folds.

    With a single holdout there are no folds: the interval is then over its rows (jackknife), and
    does not hold the noise of training.
    """
    count = sum(1 for _ in takewhile(_is_of_ablation, reversed(results)))
    ablation = results[len(results) - count :]  # an older one was of another winner
    found = []
    for variant in ablation[1:]:
        full = ablation[0]
        used, left = full.trial.cocktail, variant.trial.cocktail
        name = next(name for name in used.active if getattr(left, name) == 0)
        gains = [off - on for off, on in zip(variant.trial.losses, full.trial.losses, strict=True)]
        gain = sum(gains) / len(gains)
        if len(gains) > 1:
            low, high = metrics.t_interval(gains)
        else:
            half = 1.96 * metrics.standard_error(variant.replicates - full.replicates)
            low, high = gain - half, gain + half
        found.append(Effect(name, getattr(used, name), gain, low, high))
    return tuple(found)
