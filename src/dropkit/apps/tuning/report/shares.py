"""How much of the scores' variance each knob explains, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropkit.apps.tuning.results import Search, Tried
from dropkit.apps.tuning.storage import calm
from dropkit.records import Knob

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 20
"""Trials from which a share is worth a word."""

_GROUPS, _TREES = 5, 32
_OFF = -0.25
"""Where a knob lies that is not used: apart from its range, which goes from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Share:
    """Of the variance of the scores, what one knob by itself explains."""

    knob: str
    share: float
    error: float
    """By leaving out a fifth of the trials at a time."""


def shares(search: Search) -> tuple[Share, ...]:
    """The share of each knob, largest first; none while little is done.

    Source: Hutter, Hoos & Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter
    Importance" (functional ANOVA by a random forest), as Optuna has it. Errors are a grouped
    jackknife's.
    """
    done = search.of("done")
    knobs = [knob for knob in search.space if len({repr(t.params[knob.name]) for t in done}) > 1]
    if len(done) < FEWEST or not knobs:
        return ()
    whole = _explained(done, knobs)
    parts = [
        _explained([t for n, t in enumerate(done) if n % _GROUPS != group], knobs)
        for group in range(_GROUPS)
    ]
    found = []
    for knob in knobs:
        values = [part[knob.name] for part in parts]
        middle = sum(values) / _GROUPS
        spread = sum((value - middle) ** 2 for value in values) * (_GROUPS - 1) / _GROUPS
        found.append(Share(knob.name, whole[knob.name], math.sqrt(spread)))
    return tuple(sorted(found, key=lambda share: -share.share))


def _explained(trials: Sequence[Tried], knobs: Sequence[Knob]) -> dict[str, float]:
    """Each knob's share, by a forest on values that all trials have."""
    import optuna

    with calm():
        study = optuna.create_study()
        distributions = {knob.name: _distribution(knob) for knob in knobs}
        for trial in trials:
            params = {knob.name: _coded(knob, trial.params[knob.name]) for knob in knobs}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=distributions, value=trial.score
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except RuntimeError:  # all scores are the same: there is nothing to explain
            found = {}
    return {knob.name: float(found.get(knob.name, 0.0)) for knob in knobs}


def _distribution(knob: Knob) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if knob.kind == "choice":
        return CategoricalDistribution((*knob.choices, *([None] if knob.optional else [])))
    return FloatDistribution(_OFF, 1.0)


def _coded(knob: Knob, value: Any) -> Any:
    if knob.kind == "choice":
        return value
    if knob.optional and value == knob.off:
        return _OFF
    return place(knob, value)


def place(knob: Knob, value: float) -> float:
    """Where a value lies in the range of its knob, from 0 to 1."""
    if knob.low == knob.high:
        return 0.5
    if knob.log:
        return math.log(value / knob.low) / math.log(knob.high / knob.low)
    return (value - knob.low) / (knob.high - knob.low)
