"""Which cocktails to try: a grid of rates, then samples from priors, then refinements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dropkit.kernel import Stream, derive
from dropkit.records import Cocktail, Task

GRID = (0.0, 0.1, 0.2, 0.3, 0.5)
"""The usual rates on hidden layers."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Whether an ingredient is used, and then how much: uniform, or uniform in the logarithm."""

    chance: float
    low: float
    high: float
    logarithmic: bool = True

    def at(self, quantile: float) -> float:
        """The amount at a quantile of the prior."""
        if not self.logarithmic:
            return self.low + quantile * (self.high - self.low)
        return self.low * math.exp(quantile * math.log(self.high / self.low))

    def moved(self, value: float, by: float) -> float:
        """An amount shifted by a share of the prior's range, kept within it."""
        if self.logarithmic:
            place = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return self.at(min(1.0, max(0.0, place + by)))


_RATES: dict[Task, Prior] = {
    "regression": Prior(1.0, 3e-3, 3e-2),
    "classification": Prior(1.0, 4e-4, 4e-3),
}
PRIORS = {
    "hidden_dropout": Prior(0.9, 0.02, 0.75, logarithmic=False),
    "input_dropout": Prior(0.4, 0.01, 0.2, logarithmic=False),
    "weight_decay": Prior(0.9, 0.01, 3.0),
    "l1": Prior(0.25, 3e-3, 0.1),
    "label_smoothing": Prior(0.3, 0.01, 0.1),
    "mixup": Prior(0.4, 0.05, 1.0),
    "feature_masking": Prior(0.25, 0.01, 0.15, logarithmic=False),
    "feature_noise": Prior(0.25, 0.005, 0.2),
    "max_norm": Prior(0.15, 1.5, 4.0),
    "weight_averaging": Prior(0.6, 0.5, 0.95, logarithmic=False),
}


def space(task: Task) -> dict[str, Prior]:
    """Priors of all ingredients that mean something for a task."""
    priors = PRIORS | {"learning_rate": _RATES[task]}
    if task == "regression":
        del priors["label_smoothing"]
    return priors


def start(task: Task) -> Cocktail:
    """Where the search starts: light decay and weight averaging, as strong baselines have."""
    rate = _RATES[task].at(0.5)
    return Cocktail(learning_rate=rate, weight_decay=0.1, weight_averaging=0.8)


def grid(task: Task) -> list[Cocktail]:
    """The start at each rate of the grid."""
    return [replace(start(task), hidden_dropout=rate) for rate in GRID]


def sampled(task: Task, key: int) -> Cocktail:
    """A cocktail from the priors."""
    draws = Stream(key).uniform((len(space(task)), 2)).tolist()
    amounts = {
        name: prior.at(how_much) if use < prior.chance else 0.0
        for (name, prior), (use, how_much) in zip(space(task).items(), draws, strict=True)
    }
    return Cocktail(**amounts)


def refine(cocktail: Cocktail, task: Task, key: int) -> Cocktail:
    """A neighbour: each amount moves by about a tenth of its range, now and then one is switched
    on or off."""
    priors = space(task)
    shifts = (Stream(derive(key, 0)).normal((len(priors),)) / 10).tolist()
    draws = Stream(derive(key, 1)).uniform((len(priors), 2)).tolist()
    amounts: dict[str, float] = {}
    for (name, prior), shift, (flip, how_much) in zip(priors.items(), shifts, draws, strict=True):
        amount = getattr(cocktail, name)
        if name != "learning_rate" and flip < 0.12:
            amounts[name] = 0.0 if amount else prior.at(how_much)
        else:
            amounts[name] = prior.moved(amount, shift) if amount else 0.0
    return Cocktail(**amounts)


def without(cocktail: Cocktail, regularizer: str) -> Cocktail:
    """The same cocktail with one regularizer switched off."""
    return replace(cocktail, **{regularizer: 0.0})


def simplicity(cocktail: Cocktail) -> tuple[int, float]:
    """Sorts cocktails from simple to rich: fewer regularizers, then less dropout."""
    return len(cocktail.active), cocktail.hidden_dropout


def simplest(cocktails: Sequence[Cocktail]) -> int:
    """Index of the simplest of some cocktails."""
    return min(range(len(cocktails)), key=lambda index: simplicity(cocktails[index]))
