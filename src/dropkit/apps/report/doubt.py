"""What the uncertainty of sampled predictions is good for, as far as the held-out rows can tell."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np
import numpy.typing as npt

from dropkit.apps.report.judgement import predictions_of, truth_of
from dropkit.apps.report.metrics import (
    METRICS,
    Array,
    Interval,
    advantage,
    measure,
    newcombe,
    wilson,
)
from dropkit.apps.report.numerals import short
from dropkit.apps.uncertainty import threshold
from dropkit.records import Fit, Holdout, Strange, Uncertainty

LEVEL = 0.9
"""The promise of intervals and sets that a report looks at."""
HANDED = 0.2
"""The share of rows that a report hands to a person."""
ALARM = 0.95
"""The point of the ordinary rows' epistemic uncertainty beyond which an alarm would sound."""
LEVELS = np.linspace(0.05, 0.95, 19)
LOOKS = 10
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The rows set aside that were sampled, as arrays."""

    holdout: Rows
    """Their places among the rows set aside."""
    truth: Array
    mean: Array
    """(rows, classes), or (rows, 1)."""
    total: Array
    epistemic: Array
    classes: bool

    @property
    def errors(self) -> Array:
        """How wrong the mean is in each row: 0 or 1, or the absolute error."""
        if self.classes:
            return np.asarray(self.mean.argmax(axis=1) != self.truth, dtype=np.float64)
        return np.asarray(np.abs(self.mean[:, 0] - self.truth), dtype=np.float64)

    @property
    def scores(self) -> Array:
        """Conformity scores of the truth: a set or an interval holds it up to some score."""
        if self.classes:
            given = self.mean[np.arange(len(self.truth)), self.truth.astype(int)]
            return np.asarray(1.0 - given, dtype=np.float64)
        return np.asarray(self.errors / self.total, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Promise:
    """Whether the intervals, or the sets, hold the truth as often as they promise."""

    held: Interval
    """Share of the rows whose truth they hold, with Wilson's interval."""
    reach: float
    """How far from the promise it may be by chance, 19 times in 20."""
    sizes: tuple[tuple[str, int, Interval | None], ...]
    """Of sets: how many classes, the rows with so many, the share of them that holds the truth."""
    alone: float
    """Share of the rows whose truth is the class that is predicted; 0 of intervals."""
    widths: tuple[float, float, float]
    """Of intervals: the width that a tenth of the rows stays below, the median, and that a tenth
    exceeds."""

    @property
    def kept(self) -> str:
        """`as promised`, `too rarely` or `more often`."""
        if abs(self.held.value - LEVEL) <= self.reach:
            return "as promised"
        return "too rarely" if self.held.value < LEVEL else "more often"


@dataclass(frozen=True, slots=True)
class Handed:
    """The least sure rows handed to a person, and those that are kept."""

    rows: int
    kept: Interval
    """Error of the rows that are kept, with its 95 % interval."""
    handed: Interval
    difference: Interval
    """Error of the rows handed over minus that of the rows kept."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Whether what draws disagree about tells rows unlike the table from the rows set aside."""

    name: str
    how: str
    area: Interval
    """Chance that such a row has more epistemic uncertainty than one of the table: an AUC."""
    caught: Interval
    """Share of such rows above the point that 5 % of the table's rows exceed."""

    @property
    def word(self) -> str:
        """`rises`, `falls` or `does not tell`."""
        if self.area.low > 0.5:
            return "rises"
        return "falls" if self.area.high < 0.5 else "does not tell"


@dataclass(frozen=True, slots=True)
class LookRow:
    """A held-out row about which the draws disagree most."""

    id: str
    said: str
    truth: str
    wrong: bool
    epistemic: float
    total: float
    cells: tuple[str, ...]


def sampled(fit: Fit) -> Sampled | None:
    """The rows set aside that were sampled; None if there are none."""
    found = fit.uncertainty
    if found is None or not found.rows or fit.holdout is None:
        return None
    rows = np.asarray(found.rows, dtype=np.int64)
    return Sampled(
        rows,
        truth_of(fit.holdout)[rows],
        np.asarray(found.prediction, dtype=np.float64),
        np.asarray(found.total, dtype=np.float64),
        np.asarray(found.epistemic, dtype=np.float64),
        bool(fit.schema.classes),
    )


def promise(seen: Sampled, found: Uncertainty) -> Promise | None:
    """The promise of 90 %, against the rows set aside; None if too few rows could promise it."""
    if not promised(found, LEVEL):
        return None
    limit = threshold(found.calibration.scores, LEVEL)
    rows, inside = len(seen.truth), holds(seen, limit)
    held = wilson(float(inside.mean()), rows)
    reach = chance_reach(LEVEL, rows, found.calibration.rows)
    if not seen.classes:
        low, middle, high = np.quantile(2 * limit * seen.total, [0.1, 0.5, 0.9]).tolist()
        return Promise(held, reach, (), 0.0, (low, middle, high))
    alone = 1.0 - float(seen.errors.mean())
    return Promise(held, reach, _sizes(seen, limit, inside), alone, (0.0, 0.0, 0.0))


def promised(found: Uncertainty, level: float) -> bool:
    """Whether there were validation rows enough to promise a level."""
    rows = found.calibration.rows
    return level <= rows / (rows + 1)


def chance_reach(level: float, rows: int, calibrated: int) -> float:
    """How far a share may be from a promise that is kept, 19 times in 20: both the rows that judge
    and those that set the threshold are a sample."""
    return 1.959964 * sqrt(level * (1 - level) * (1 / rows + 1 / max(1, calibrated)))


def holds(seen: Sampled, limit: float) -> npt.NDArray[np.bool_]:
    """Whether the interval, or the set, of each row holds its truth."""
    inside = seen.scores <= limit
    return inside | (seen.errors == 0) if seen.classes else inside


def _sizes(
    seen: Sampled, limit: float, inside: npt.NDArray[np.bool_]
) -> tuple[tuple[str, int, Interval | None], ...]:
    sizes = np.maximum(1, (1.0 - seen.mean <= limit).sum(axis=1))
    groups = [("1", sizes == 1), ("2", sizes == 2)]
    if seen.mean.shape[1] > 2:
        groups.append(("3 or more", sizes > 2))
    return tuple(
        (name, int(group.sum()), wilson(float(inside[group].mean()), int(group.sum())))
        if group.any()
        else (name, 0, None)
        for name, group in groups
    )


def kept_promises(seen: Sampled, found: Uncertainty) -> list[tuple[float, float]]:
    """Each level that the validation rows can promise, and the share of rows that it held."""
    levels = [float(level) for level in LEVELS if promised(found, float(level))]
    return [
        (level, float((seen.scores <= threshold(found.calibration.scores, level)).mean()))
        for level in levels
    ]


def handed(seen: Sampled) -> Handed | None:
    """A fifth of the rows handed over; None with too few rows for two groups."""
    count = round(HANDED * len(seen.truth))
    if count < 2 or len(seen.truth) - count < 2:
        return None
    order = surest_first(seen.total)
    kept, away = _error(seen, order[:-count]), _error(seen, order[-count:])
    gap = away.value - kept.value
    low = gap - hypot(away.value - away.low, kept.high - kept.value)
    high = gap + hypot(away.high - away.value, kept.value - kept.low)
    return Handed(count, kept, away, Interval(gap, low, high))


def surest_first(doubt: Array) -> Rows:
    """Rows by their doubt, the smallest first."""
    return np.argsort(doubt, kind="stable")


def _error(seen: Sampled, rows: Rows) -> Interval:
    """Error rate, or mean absolute error, of some rows with its 95 % interval."""
    if seen.classes:
        return wilson(float(seen.errors[rows].mean()), len(rows))
    return measure(METRICS["mae"], seen.truth[rows], seen.mean[rows])


def risk_curve(errors: Array, order: Rows) -> Array:
    """Mean error of the first n rows of an order, for each n."""
    return np.asarray(errors[order].cumsum() / np.arange(1, len(errors) + 1), dtype=np.float64)


def alarm(seen: Sampled, strange: Strange) -> Alarm:
    """Made-up rows against the rows set aside."""
    ours, theirs = seen.epistemic, np.asarray(strange.epistemic, dtype=np.float64)
    both = np.concatenate([theirs, ours])
    truth = np.concatenate([np.ones(len(theirs)), np.zeros(len(ours))])
    area, _ = METRICS["roc_auc"].influence(truth, both[:, None])
    caught = float((theirs > np.quantile(ours, ALARM)).mean())
    return Alarm(
        strange.name,
        strange.how,
        newcombe(area, len(theirs), len(ours)),
        wilson(caught, len(theirs)),
    )


def against_plain(fit: Fit, seen: Sampled, holdout: Holdout) -> Interval:
    """How much better the mean of the draws scores than the plain prediction, on the same rows."""
    metric = METRICS["log_loss" if seen.classes else "rmse"]
    return advantage(metric, seen.truth, seen.mean, predictions_of(holdout)[seen.holdout])


def looks(fit: Fit, seen: Sampled, holdout: Holdout) -> tuple[LookRow, ...]:
    """The rows about which the draws disagree most."""
    classes = fit.schema.classes
    found = []
    for place in surest_first(-seen.epistemic)[:LOOKS].tolist():
        row = int(seen.holdout[place])
        truth = float(seen.truth[place])
        if classes:
            said = int(seen.mean[place].argmax())
            names, wrong = (classes[said], classes[int(truth)]), said != int(truth)
        else:
            names, wrong = (short(float(seen.mean[place, 0]), 4), short(truth, 4)), False
        found.append(
            LookRow(
                holdout.ids[row],
                *names,
                wrong,
                float(seen.epistemic[place]),
                float(seen.total[place]),
                fit.cells[row] if row < len(fit.cells) else (),
            )
        )
    return tuple(found)
