"""One round of a search: some cocktails, trained on every fold as one population."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from dropkit.kernel import derive
from dropkit.records import Cocktail, Origin, Trial
from dropkit.training.cocktails import simplicity
from dropkit.training.metrics import Judge, standard_error
from dropkit.training.network import Parameters
from dropkit.training.outputs import Readout
from dropkit.training.population import Material, Member, Pace, Population

_RUNGS = ((0.2, 6.0), (0.4, 3.0), (0.6, 2.0), (0.8, 2.0))
"""Shares of the epochs after which losers leave, and by how many standard errors of the difference
to the leader they must be beaten: early on, while the learning rate is high, only the hopeless."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished trial: its record, what it predicted out of fold, and its networks."""

    trial: Trial
    prediction: Tensor
    """Out-of-fold probabilities or values in the target's units, float64, on all judged rows."""
    replicates: Tensor
    weights: Parameters
    """One network per fold, members along the first axis."""


class Round:
    """Cocktails in training, over folds; losers leave at the rungs."""

    def __init__(
        self,
        material: Material,
        readout: Readout,
        folds: Sequence[Tensor],
        judge: Judge,
        cocktails: Sequence[Cocktail],
        origins: Sequence[Origin],
        pace: Pace,
        key: int,
        paired: bool = False,
    ) -> None:
        self.cocktails, self.origins = tuple(cocktails), tuple(origins)
        self._readout, self._folds, self._judge = readout, folds, judge
        self._pace = pace
        self._rung = 0
        self._left = [1.0] * len(cocktails)
        members = [
            Member(cocktail, fold, derive(key, 0 if paired else trial, fold))
            for trial, cocktail in enumerate(cocktails)
            for fold in range(len(folds))
        ]
        self.population = Population(material, folds, members, pace, derive(key, 1 << 32))
        self.work = 0.0

    @property
    def finished(self) -> bool:
        """Whether all members have stopped."""
        return self.population.finished

    @property
    def alive(self) -> int:
        """Trials of which a member still trains."""
        return len({member // len(self._folds) for member in self.population.alive})

    def advance(self) -> None:
        """One step; at a rung, losers leave (an ablation's trials stay: they are compared)."""
        self.work += len(self.population.alive) / self.population.steps_per_epoch
        evaluated = self.population.advance()
        if not evaluated or "ablation" in self.origins:
            return
        if self._rung < len(_RUNGS) and self.population.progress >= _RUNGS[self._rung][0]:
            self._leave(_RUNGS[self._rung][1])
            self._rung += 1

    def _members(self, trial: int) -> range:
        return range(trial * len(self._folds), (trial + 1) * len(self._folds))

    def _leave(self, margin: float) -> None:
        """Trials in the worse half that are clearly beaten leave.

        Grace: who regularizes more than the leader must be beaten by twice the margin, since
        regularized members bend late.
        """
        alive = set(self.population.alive)
        running = [
            trial
            for trial in range(len(self.cocktails))
            if any(member in alive for member in self._members(trial))
        ]
        replicates = {trial: self._judge.replicates(self._prediction(trial)) for trial in running}
        ranked = sorted(running, key=lambda trial: float(replicates[trial].mean()))
        for trial in ranked[(len(ranked) + 1) // 2 :]:
            behind = replicates[trial] - replicates[ranked[0]]
            richer = simplicity(self.cocktails[trial]) > simplicity(self.cocktails[ranked[0]])
            needed = margin * (2.0 if richer else 1.0) * standard_error(behind)
            if float(behind.mean()) > needed:
                self._left[trial] = self.population.progress
                alive -= set(self._members(trial))
        self.population.keep(sorted(alive))

    def _prediction(self, trial: int) -> Tensor:
        outputs = self.population.predict(self._members(trial))
        return _out_of_fold([self._readout.read(output) for output in outputs], self._folds)

    def best(self) -> float | None:
        """The lowest validation loss of a trial so far, as log-loss or as RMSE."""
        losses, count = self.population.best_loss, len(self._folds)
        trials = [losses[first : first + count] for first in range(0, len(losses), count)]
        best = min(sum(folds) / count for folds in trials)
        return self._readout.error(best) if math.isfinite(best) else None

    @property
    def seen(self) -> bool:
        """Whether validation has seen its members."""
        return bool(self.population.history[0])

    def results(self) -> list[Result]:
        """What each trial came to, at its members' best weights so far."""
        if self.seen:
            return [self._result(trial) for trial in range(len(self.cocktails))]
        glimpse = copy.copy(self)  # a look before the first evaluation leaves no trace
        material = self.population.material
        glimpse.population = copy.deepcopy(self.population, {id(material): material})
        glimpse.population.evaluate()
        return glimpse.results()

    def _result(self, trial: int) -> Result:
        members = list(self._members(trial))
        prediction = self._prediction(trial)
        replicates = self._judge.replicates(prediction)
        places = fold_places(self._folds)
        record = Trial(
            origin=self.origins[trial],
            cocktail=self.cocktails[trial],
            losses=tuple(self._judge.loss(prediction, rows) for rows in places),
            loss=self._judge.loss(prediction),
            error=standard_error(replicates),
            left=self._left[trial],
            curves=tuple(self.population.curve(member) for member in members),
        )
        weights = {name: value[members] for name, value in self.population.best.items()}
        return Result(record, prediction, replicates, weights)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `restore` goes on."""
        tensors, values = self.population.state()
        return tensors, values | {"rung": self._rung, "left": self._left, "work": self.work}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a `state` of a round of the same cocktails."""
        self.population.restore(tensors, values)
        self._rung, self._left, self.work = values["rung"], list(values["left"]), values["work"]


def fold_places(folds: Sequence[Tensor]) -> list[Tensor]:
    """Where each fold's rows stand in `Judge.truth`."""
    ends = list(accumulate(len(fold) for fold in folds))
    return [torch.arange(end - len(fold), end) for fold, end in zip(folds, ends, strict=True)]


def _out_of_fold(parts: Sequence[Tensor], folds: Sequence[Tensor]) -> Tensor:
    """Predictions of each fold's rows, fold after fold: the order of `Judge.truth`."""
    return torch.cat([part[: len(fold)] for part, fold in zip(parts, folds, strict=True)])
