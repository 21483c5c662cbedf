"""What the held-out rows show one by one or in groups: classes, calibration, the hardest rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
import numpy.typing as npt

from dropkit.apps.report.judgement import predictions_of, truth_of
from dropkit.apps.report.metrics import Interval, wilson
from dropkit.apps.report.numerals import short
from dropkit.records import Fit, Holdout

ONE_SIDED_Z95 = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class ClassResult:
    """How well one class was found."""

    name: str
    rows: int
    said: int
    """Rows that were predicted to be of this class."""
    precision: float | None
    """None: no row was predicted to be of this class."""
    recall: Interval | None
    """None: no row is of this class."""
    f1: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Held-out rows whose predicted probability was about the same."""

    rows: int
    predicted: float
    """Mean predicted probability."""
    observed: Interval
    """Share of the rows for which it came true."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Predicted probabilities beside what came true."""

    of: str
    """The class whose probability is meant; empty: whichever class was predicted."""
    bins: tuple[Bin, ...]
    error: float
    """Expected calibration error: mean distance of predicted and observed, weighted by rows."""
    chance: float
    """What that error would be about if the model were calibrated perfectly, on as many rows."""
    chance_high: float
    """What it would then exceed in one run of 20 only."""


@dataclass(frozen=True, slots=True)
class HardRow:
    """One held-out row that deserves a look."""

    id: str
    said: str
    truth: str
    wrong: bool
    strength: float
    """Probability of the predicted class, or the error (predicted minus true)."""
    cells: tuple[str, ...]


def confusion(holdout: Holdout, classes: int) -> npt.NDArray[np.int64]:
    """Counts of rows by true class (rows) and predicted class (columns)."""
    truth, said = truth_of(holdout).astype(int), predictions_of(holdout).argmax(axis=1)
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (truth, said), 1)
    return table


def per_class(fit: Fit, holdout: Holdout) -> tuple[ClassResult, ...]:
    """Precision, recall and F1 of each class, in the order of the codes."""
    table = confusion(holdout, len(fit.schema.classes))
    results = []
    for code, name in enumerate(fit.schema.classes):
        hits, rows, said = (
            int(part) for part in (table[code, code], table[code].sum(), table[:, code].sum())
        )
        results.append(
            ClassResult(
                name,
                rows,
                said,
                hits / said if said else None,
                wilson(hits / rows, rows) if rows else None,
                2 * hits / (rows + said) if rows + said else None,
            )
        )
    return tuple(results)


def calibration(fit: Fit, holdout: Holdout) -> Calibration:
    """Reliability in ten bins of equal width: of the second of two classes, or of the one said."""
    truth, prediction = truth_of(holdout), predictions_of(holdout)
    if len(fit.schema.classes) == 2:
        of, stated, came_true = fit.schema.classes[1], prediction[:, 1], truth == 1
    else:
        of, stated, came_true = "", prediction.max(axis=1), prediction.argmax(axis=1) == truth
    place = np.clip((stated * 10).astype(int), 0, 9)
    bins, error, chance, variance = [], 0.0, 0.0, 0.0
    for index in range(10):
        inside = place == index
        rows = int(inside.sum())
        if not rows:
            continue
        predicted = float(stated[inside].mean())
        observed = float(came_true[inside].mean())
        bins.append(Bin(rows, predicted, wilson(observed, rows)))
        share = rows / len(truth)
        error += abs(predicted - observed) * share
        # The distance in a bin is about that of a normal variable from 0: its mean, its variance.
        spread = share * sqrt(float((stated[inside] * (1 - stated[inside])).sum())) / rows
        chance += sqrt(2 / pi) * spread
        variance += (1 - 2 / pi) * spread**2
    return Calibration(of, tuple(bins), error, chance, chance + ONE_SIDED_Z95 * sqrt(variance))


def hardest(fit: Fit, holdout: Holdout, limit: int = 10) -> tuple[HardRow, ...]:
    """Classes: the rows of highest entropy. Values: those of the largest absolute error."""
    truth, prediction = truth_of(holdout), predictions_of(holdout)
    classes = fit.schema.classes
    if classes:
        certain = np.clip(prediction, 1e-15, 1.0)
        order = np.argsort((certain * np.log(certain)).sum(axis=1), kind="stable")[:limit]
    else:
        order = np.argsort(-np.abs(prediction[:, 0] - truth), kind="stable")[:limit]
    rows = []
    for index in order.tolist():
        cells = fit.cells[index] if index < len(fit.cells) else ()
        if classes:
            said, true = int(prediction[index].argmax()), int(truth[index])
            names, wrong = (classes[said], classes[true]), said != true
            strength = float(prediction[index, said])
        else:
            value = float(prediction[index, 0])
            names, wrong = (short(value, 4), short(float(truth[index]), 4)), False
            strength = value - float(truth[index])
        rows.append(HardRow(holdout.ids[index], *names, wrong, strength, cells))
    return tuple(rows)
