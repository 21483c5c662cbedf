"""Draws of a fitted model, calibrated on validation rows, and what they say of rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np

from dropkit.apps import devices
from dropkit.errors import DropkitWarning, SettingError
from dropkit.kernel import Stream, derive
from dropkit.posterior.calibration import noise_variance, temperature
from dropkit.posterior.conformal import rank_of
from dropkit.posterior.draws import Draws
from dropkit.records import Calibration, Schema, Strange, Uncertainty
from dropkit.training.columns import typed

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from dropkit.apps.material import Aside
    from dropkit.training.encoding import Encoded
    from dropkit.training.model import Model
    from dropkit.training.search import Search

DRAWS = 100
"""Draws of a report, and of the calibration."""
_ROWS, _FEWEST = 1000, 50
"""Rows that are sampled for the calibration and for a report, and fewest where time is short: of
1,000 a coverage of 90 % is known to 1.9 points."""
_SHARE, _SPEED = 0.1, 6e9
"""Share of a time cap that sampling may take, at so many multiplications and additions a second."""
_NUMBERS = 1 << 21
"""Numbers of all draws at a time."""
_SHARPEST, _SOFTEST = 0.5, 2.0
"""Temperatures that are looked through, as those of plain predictions are."""
_LEAST_NOISE = 1e-6
"""Of a target's spread: nobody's values are known better than that."""
_LEAST_CHANCE = 1e-12
"""Of a class, so that its logarithm is a number."""
_CALIBRATING, _JUDGING, _PERMUTING, _FAR = 0xCA1, 0xCA2, 0xCA3, 0xCA4
"""Name streams, so that no other use of the seed meets the same draws."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the draws say of rows."""

    mean: np.ndarray
    """Class probabilities (rows, classes), or values (rows, 1)."""
    total: np.ndarray
    """Entropy of the mean, or standard deviation with the noise of the truth."""
    epistemic: np.ndarray
    """Mutual information, or standard deviation of the draws."""
    variation: np.ndarray
    """Share of the draws that vote for another class than most; nothing for values."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Samples a model by its calibration."""

    model: Model
    calibration: Calibration

    def draws(self, rows: Encoded, count: int, key: int) -> Draws:
        """The draws of rows: tempered probabilities, or values with the variance of the truth
        around them."""
        with _few_threads(len(rows)):
            return _read(self.model.draws(rows, count, key), self.calibration, key)

    def say(self, rows: Encoded, count: int, key: int) -> Said:
        """What so many draws say of rows; a part of the rows at a time."""
        with _few_threads(len(rows)):
            parts = [_said(part, self.calibration) for part in self._parts(rows, count, key)]
        names = ("mean", "total", "epistemic", "variation")
        return Said(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _parts(self, rows: Encoded, count: int, key: int) -> Iterator[Tensor]:
        step = max(1, _NUMBERS // (count * max(1, len(self.model.schema.classes))))
        for start in range(0, max(1, len(rows)), step):
            yield self.model.draws(rows[start : start + step], count, key)

    def limit(self, level: float) -> float:
        """The conformity score up to which an interval, or a set, of this level holds a value.

        Raises SettingError for a level that is none, or that so few validation rows cannot promise.
        """
        return threshold(self.calibration.scores, level)

    def sets(self, mean: np.ndarray, level: float) -> np.ndarray:
        """Which classes are in each row's set (rows, classes): the likeliest one always is."""
        inside = 1.0 - mean <= self.limit(level)
        inside[np.arange(len(mean)), mean.argmax(axis=1)] = True
        return inside


def _few_threads(rows: int) -> AbstractContextManager[None]:
    """One thread for few rows: of small products, the waiting of threads would take most time."""
    return devices.threads(1 if rows <= _ROWS else None)


def threshold(scores: Sequence[float], level: float) -> float:
    """The largest of sorted conformity scores that a set, or an interval, of a level lets in.

    Raises SettingError for a level that is none, or that so few scores cannot promise.

    >>> threshold([0.1, 0.2, 0.3, 0.4], 0.8)
    0.4
    """
    most = len(scores) / (len(scores) + 1)
    if not 0 < level <= most:
        raise SettingError(
            f"expected an interval above 0 and of at most {most:.4f}, which is what the "
            f"{len(scores)} validation rows of this model can promise; got {level:g}"
        )
    return float(scores[rank_of(len(scores), level) - 1])


def check_count(count: int) -> None:
    """Raise SettingError for fewer draws than can differ."""
    if count < 2:
        raise SettingError(
            f"expected 2 draws or more, so that they can differ; got {count}. 100 is a good number."
        )


def reader(model: Model, uncertainty: Uncertainty | None) -> Reader:
    """What samples a model that was fitted with this outcome.

    Raises SettingError if the model cannot be sampled: see `Model.draws`. Warns with
    DropkitWarning if nothing drops in it, and its draws are its networks alone.
    """
    if not model.varied or uncertainty is None:
        model.check_varied()
        raise SettingError(
            "expected a model that was calibrated when it was fitted. Fit it again with "
            "`dropkit fit` to sample it."
        )
    if model.varied == "networks":
        warnings.warn(
            "validation chose networks without dropout, so the draws differ by the network alone",
            DropkitWarning,
            stacklevel=2,
        )
    return Reader(model, uncertainty.calibration)


def _read(samples: Tensor, how: Calibration, key: int) -> Draws:
    if samples.ndim == 2:
        return Draws.of(samples, outputs="values", key=key).with_noise(how.noise**2)
    return _classes(samples, key).tempered(how.temperature)


def _classes(samples: Tensor, key: int) -> Draws:
    return Draws.of(samples.clamp_min(_LEAST_CHANCE), outputs="probabilities", key=key)


def _said(samples: Tensor, how: Calibration) -> Said:
    if samples.ndim == 2:
        unit = how.noise  # squares of very large or small values are no numbers
        drawn = Draws.of(samples / unit, outputs="values")
        mean, spread = unit * drawn.mean.numpy(), drawn.std.numpy()
        total = unit * np.sqrt(1.0 + spread**2)
        return Said(mean[:, None], total, unit * spread, np.zeros(len(total)))
    drawn = _read(samples, how, key=0)
    return Said(
        drawn.probabilities.numpy(),
        drawn.entropy.numpy(),
        drawn.mutual_information.numpy(),
        drawn.variation_ratio.numpy(),
    )


# ---- at the end of a fit


def rows_within(cap: float | None, parameters: int) -> int:
    """How many rows to sample of networks of so many parameters, if there is a cap on the run."""
    if cap is None:
        return _ROWS
    return max(_FEWEST, min(_ROWS, int(_SHARE * cap / seconds_of(1, parameters))))


def seconds_of(rows: int, parameters: int) -> float:
    """About how long it takes on one core to calibrate and judge by so many rows each."""
    return 3 * rows * DRAWS * 2 * parameters / _SPEED


def calibrate(search: Search, scale: float, classes: int, seed: int, most: int) -> Calibration:
    """A temperature or a noise, and conformity scores, of validation rows and of no others."""
    most = max(_FEWEST, min(most, _NUMBERS // (2 * DRAWS * max(1, classes))))
    with _few_threads(most):
        samples, truth = search.draws(DRAWS, derive(seed, _CALIBRATING), most)
    found = Calibration(len(truth), DRAWS, 1.0, 0.0, ())
    with warnings.catch_warnings(), _few_threads(len(truth)):
        warnings.simplefilter("ignore", DropkitWarning)  # the bounds are meant as such
        if classes:
            drawn = _classes(samples, key=0)
            best = temperature(drawn, truth, low=_SHARPEST, high=_SOFTEST)
            found = replace(found, temperature=best)
        else:
            found = replace(found, noise=scale * _noise(samples / scale, truth / scale))
    scores = np.sort(_scores(_said(samples, found), truth.numpy()))
    return replace(found, scores=tuple(scores.tolist()))


def _noise(samples: Tensor, truth: Tensor) -> float:
    """Standard deviation of the truth around a draw, in units of the target's spread."""
    if bool((samples == truth).all()):
        return _LEAST_NOISE
    return max(_LEAST_NOISE, sqrt(noise_variance(Draws.of(samples, outputs="values"), truth)))


def _scores(said: Said, truth: np.ndarray) -> np.ndarray:
    """Conformity of the truth: an interval or a set of some level holds it up to some score."""
    if said.mean.shape[1] > 1:
        return np.asarray(1.0 - said.mean[np.arange(len(truth)), truth.astype(int)])
    return np.asarray(np.abs(said.mean[:, 0] - truth) / said.total)


def uncertainty(
    model: Model,
    search: Search,
    train: pd.DataFrame,
    aside: Aside | None,
    seed: int,
    most: int = _ROWS,
) -> Uncertainty | None:
    """What draws say of at most so many of the rows set aside, and of half as many made-up ones;
    None if no draws can differ."""
    if not model.varied:
        return None
    found = calibrate(search, model.scale, len(model.schema.classes), seed, most)
    if aside is None:
        return Uncertainty(model.varied, DRAWS, found, (), (), (), (), ())
    rows = _evenly(len(aside.frame), most)
    frame = aside.frame.iloc[rows].reset_index(drop=True)
    asked, key = Reader(model, found), derive(seed, _JUDGING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DropkitWarning)  # what `predict` has said of these rows
        said = asked.say(model.encode(frame), DRAWS, key)
        few = frame.iloc[_evenly(len(frame), max(_FEWEST, most // 2))].reset_index(drop=True)
        strange = tuple(
            Strange(name, how, tuple(_doubt(asked, made, key)))
            for name, how, made in (
                *_permuted(few, model.schema, seed),
                *_far(few, train, model.schema, seed),
            )
        )
    return Uncertainty(
        varied=model.varied,
        draws=DRAWS,
        calibration=found,
        rows=tuple(rows.tolist()),
        prediction=tuple(map(tuple, said.mean.tolist())),
        total=tuple(said.total.tolist()),
        epistemic=tuple(said.epistemic.tolist()),
        strange=strange,
    )


def _doubt(asked: Reader, frame: pd.DataFrame, key: int) -> list[float]:
    found: list[float] = asked.say(asked.model.encode(frame), DRAWS, key).epistemic.tolist()
    return found


def _evenly(rows: int, most: int) -> np.ndarray:
    """At most so many of the rows, in order."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64))


_Made = tuple[str, str, "pd.DataFrame"]


def _permuted(frame: pd.DataFrame, schema: Schema, seed: int) -> Iterator[_Made]:
    """Rows of which each column is right, and no row is: each column shuffled for itself."""
    if len(schema.used) < 2:
        return
    made = frame.copy()
    for place, column in enumerate(schema.used):
        order = Stream(derive(seed, _PERMUTING, place)).permutation(len(frame)).numpy()
        made[column.name] = frame[column.name].to_numpy()[order]
    yield (
        "columns shuffled",
        "each column of the held-out rows is shuffled for itself: every value occurs in the table, "
        "but the combinations are made up",
        made,
    )


def _far(frame: pd.DataFrame, train: pd.DataFrame, schema: Schema, seed: int) -> Iterator[_Made]:
    """Rows whose numbers lie beyond all that training has seen, by as much as its whole range."""
    numbers = [column for column in schema.used if column.kind == "number"]
    if not numbers:
        return
    made = frame.copy()
    for place, column in enumerate(numbers):
        seen = typed(train, column).dropna().to_numpy(dtype=np.float64)
        low, high = float(seen.min()), float(seen.max())
        up = Stream(derive(seed, _FAR, place)).uniform((len(frame),)).numpy() < 0.5
        far = np.where(up, high + (high - low), low - (high - low))
        made[column.name] = np.where(np.isfinite(far), far, np.where(up, high, low))
    yield (
        "numbers out of range",
        "every number of the held-out rows is set above, or below, all that training has seen, by "
        "the width of its whole range",
        made,
    )


def check(found: Uncertainty | None, schema: Schema) -> None:
    """Raise ValueError for a calibration that no fit would have made."""
    if found is None:
        return
    one = found.calibration
    if not (0 < one.temperature < inf and 0 <= one.noise < inf):
        raise ValueError(f"its temperature is {one.temperature}, its noise {one.noise}")
    if not schema.classes and not one.noise:
        raise ValueError("its values have no noise")
    scores = np.asarray(one.scores)
    if len(scores) != one.rows or not len(scores) or not np.isfinite(scores).all():
        raise ValueError("its conformity scores do not fit its rows, or are not numbers")
    if (np.diff(scores) < 0).any() or scores[0] < 0:
        raise ValueError("its conformity scores are not sorted, or below 0")
    _check_rows(found, max(1, len(schema.classes)))


def _check_rows(found: Uncertainty, width: int) -> None:
    rows = len(found.rows)
    if any(len(part) != rows for part in (found.prediction, found.total, found.epistemic)):
        raise ValueError("its sampled rows contradict each other")
    if any(len(row) != width for row in found.prediction):
        raise ValueError("its sampled rows do not fit its classes")
    doubts = [found.total, found.epistemic, *(strange.epistemic for strange in found.strange)]
    if any(not 0 <= doubt < inf for part in doubts for doubt in part):
        raise ValueError("its uncertainties are below 0, or no numbers")
    if width == 1 and not all(found.total):
        raise ValueError("its values are certain")
    if any(not strange.epistemic for strange in found.strange):
        raise ValueError("its made-up rows are missing")
