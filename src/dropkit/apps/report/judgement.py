"""What a fit's held-out predictions and curves say, as numbers. The words are in `verdict`."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from dropkit.apps.report.metrics import (
    METRICS,
    Z95,
    Array,
    Interval,
    Metric,
    advantage,
    measure,
)
from dropkit.records import Baseline, Curve, Effect, Fit, Holdout, Trial

OVERFITS, OVERFITS_A_LITTLE, UNDERFITS = 0.25, 0.10, 0.90
"""Limits of `reading`, as shares of `Reading.blank`."""


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one set of predictions."""

    metric: Metric
    interval: Interval


@dataclass(frozen=True, slots=True)
class Rival:
    """A baseline, and how much better than it the model is on the same rows."""

    baseline: Baseline
    scores: tuple[Score, ...]
    difference: Interval | None
    """Above 0: the model is better. None: the metric is undefined on these rows."""

    @property
    def word(self) -> str:
        """The honest word for the model beside this rival."""
        if self.difference is None:
            return "not comparable"
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "no clear difference"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The scores of a fit; the first one is of the metric that validation chose by."""

    headline: Score
    scores: tuple[Score, ...]
    rivals: tuple[Rival, ...]
    held_out: bool
    """False: no rows were set aside, and the headline is the validation score."""
    rows: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What the winner's curves say: train against validation, both in evaluation mode."""

    word: str
    """`healthy`, `overfits a little`, `overfits` or `underfits`."""
    train: float
    validation: float
    blank: float
    """Loss of always predicting the mean, or the class shares."""
    gap: float
    """(validation - train) / blank."""
    late: float
    """Validation loss at the end of training, beyond the restored points."""


def truth_of(holdout: Holdout) -> Array:
    """The held-out truth as an array: values, or class codes."""
    return np.asarray(holdout.truth, dtype=np.float64)


def predictions_of(source: Holdout | Baseline) -> Array:
    """Predictions as a matrix: one column per class, or a single one."""
    return np.asarray(source.prediction, dtype=np.float64).reshape(len(source.prediction), -1)


def judge(fit: Fit) -> Judgement:
    """Score the model and its rivals on the rows that no choice has seen."""
    chosen_by = METRICS[fit.outcome.metric]
    holdout = fit.holdout
    if holdout is None or not holdout.truth:
        headline = _validation_score(fit, chosen_by)
        return Judgement(headline, (headline,), (), False, fit.outcome.validation_rows)
    truth, ours = truth_of(holdout), predictions_of(holdout)
    scores = _scores(_shown(fit, chosen_by), truth, ours)
    rivals = tuple(_rival(scores, truth, ours, baseline) for baseline in fit.baselines)
    return Judgement(scores[0], scores, rivals, True, len(truth))


def _validation_score(fit: Fit, metric: Metric) -> Score:
    value = metric.from_loss(fit.outcome.validation)
    best = winner(fit)
    reach = Z95 * best.error if best else float("inf")
    low, high = max(metric.floor, value - reach), min(metric.ceiling, value + reach)
    return Score(metric, Interval(value, low, high))


def _shown(fit: Fit, chosen_by: Metric) -> list[Metric]:
    """The metrics worth a card, that of the validation first."""
    if fit.schema.task == "regression":
        names = ["rmse", "mae", "r2"]
    elif len(fit.schema.classes) == 2:
        names = ["log_loss", "accuracy", "roc_auc"]
    else:
        names = ["log_loss", "accuracy", "balanced_accuracy"]
    return [chosen_by, *(METRICS[name] for name in names if name != chosen_by.name)]


def _scores(metrics: list[Metric], truth: Array, prediction: Array) -> tuple[Score, ...]:
    scores = []
    for metric in metrics:
        try:
            scores.append(Score(metric, measure(metric, truth, prediction)))
        except ValueError:  # undefined on these rows, as the AUC of a single class
            continue
    return tuple(scores)


def _rival(scores: tuple[Score, ...], truth: Array, ours: Array, baseline: Baseline) -> Rival:
    theirs = predictions_of(baseline)
    metrics = [score.metric for score in scores]
    difference = advantage(metrics[0], truth, ours, theirs) if metrics else None
    return Rival(baseline, _scores(metrics, truth, theirs), difference)


def winner(fit: Fit) -> Trial | None:
    """The trial that validation chose; None if nothing was trained."""
    trials, index = fit.outcome.trials, fit.outcome.winner
    return trials[index] if fit.outcome.work and 0 <= index < len(trials) else None


def effect_of(fit: Fit, regularizer: str) -> Effect | None:
    """What one regularizer bought; None if it was not compared."""
    found = [effect for effect in fit.outcome.effects if effect.regularizer == regularizer]
    return found[0] if found else None


def reading(fit: Fit) -> Reading | None:
    """What the winner's curves say at the restored points; None if there are no curves."""
    best = winner(fit)
    curves = [curve for curve in best.curves if curve.epochs] if best else []
    if not curves:
        return None
    train = float(np.mean([_at_best(curve, curve.train) for curve in curves]))
    validation = float(np.mean([_at_best(curve, curve.validation) for curve in curves]))
    blank = blank_loss(fit)
    gap = (validation - train) / blank
    if train >= UNDERFITS * blank:
        word = "underfits"
    elif gap > OVERFITS:
        word = "overfits"
    else:
        word = "overfits a little" if gap > OVERFITS_A_LITTLE else "healthy"
    late = float(np.mean([curve.validation[-1] for curve in curves]))
    return Reading(word, train, validation, blank, gap, late)


def _at_best(curve: Curve, losses: tuple[float, ...]) -> float:
    return losses[min(max(curve.best, 0), len(losses) - 1)]


def has_shares(fit: Fit) -> bool:
    """Whether there are held-out rows of several classes, from which their shares can be told."""
    return fit.holdout is not None and len(set(fit.holdout.truth)) > 1


def blank_loss(fit: Fit) -> float:
    """Loss of always predicting the mean, or the class shares.

    1 for a standardized target. For classes the entropy of their shares in the held-out rows, and
    without such rows that of equal shares.
    """
    if fit.schema.task == "regression":
        return 1.0
    if fit.holdout is None or not has_shares(fit):
        return log(max(2, len(fit.schema.classes)))
    _, counts = np.unique(truth_of(fit.holdout), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
