"""Honest rivals, fitted on the same training rows and asked about the same holdout."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dropkit.records import Baseline, Schema
from dropkit.training.columns import typed

if TYPE_CHECKING:
    import pandas as pd

TREES = 100
"""scikit-learn's default `max_iter`."""
FIRST = 10
"""Trees of a first, timed instalment: enough to foresee what the others cost."""
LEVELS = 254
"""Native categories end at 255 values, one of which stands for a missing cell."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a rival is given."""

    schema: Schema
    train: pd.DataFrame
    target: np.ndarray
    """Values, or class codes."""
    test: pd.DataFrame
    seed: int


def baselines(task: Task, allowed: float = float("inf")) -> tuple[Baseline, ...]:
    """The naive guess, and gradient-boosted trees that are given `allowed` seconds."""
    return (naive(task), trees(task, allowed))


def naive(task: Task) -> Baseline:
    """The classes' shares among the training rows, or their mean, for every row alike."""
    if task.schema.task == "classification":
        counts = np.bincount(task.target, minlength=len(task.schema.classes))
        guess = tuple(float(share) for share in counts / counts.sum())
        note = "Says the same for every row: how frequent each class is among the training rows."
        return Baseline("the class frequencies", note, (guess,) * len(task.test))
    note = "Says the same for every row: the mean of the training rows."
    return Baseline("the mean", note, ((float(task.target.mean()),),) * len(task.test))


def trees(task: Task, allowed: float = float("inf")) -> Baseline:
    """scikit-learn's HistGradientBoosting with its defaults and native categories.

    Grown in two instalments, which gives the same trees as one; if the first foretells that the
    second would take longer than `allowed` seconds, only as many trees are added as fit.
    """
    model = _estimator(task)
    train, test = (features(rows, task.schema, task.train) for rows in (task.train, task.test))
    began = time.monotonic()
    model.set_params(max_iter=FIRST).fit(train, task.target)
    spent = time.monotonic() - began
    affordable = TREES if allowed == float("inf") else int(FIRST * allowed / max(spent, 1e-3))
    wanted = max(FIRST, min(TREES, affordable))
    if wanted > FIRST:
        model.set_params(max_iter=wanted).fit(train, task.target)
    note = f"scikit-learn's defaults, native categories, {model.n_iter_} trees"
    if wanted < TREES:
        note += f" (stopped at {wanted} of {TREES} rounds, to keep the time cap)"
    return Baseline("HistGradientBoosting", note + ".", _predictions(model, test, task.schema))


def features(frame: pd.DataFrame, schema: Schema, train: pd.DataFrame) -> pd.DataFrame:
    """The used columns as trees want them: floats, and categories with the levels of `train`."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for number, column in enumerate(schema.used):
        cells = typed(frame, column)
        if column.kind == "category":
            levels = typed(train, column).value_counts(sort=True).index[:LEVELS]
            cells = pd.Series(pd.Categorical(cells, categories=sorted(levels)), index=frame.index)
        elif column.kind == "date":
            # Seconds; a missing date must not become the smallest integer.
            cells = ((cells - pd.Timestamp(0)) / pd.Timedelta(seconds=1)).astype("float64")
        columns[f"x{number}"] = cells
    if not columns:  # trees refuse a table without columns
        columns["nothing"] = np.zeros(len(frame))
    return pd.DataFrame(columns, index=frame.index)


def _estimator(task: Task) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    settings: dict[str, Any] = {
        "categorical_features": "from_dtype",
        "random_state": task.seed % 2**32,
        "warm_start": True,
    }
    if task.schema.task == "regression":
        return HistGradientBoostingRegressor(**settings)
    counts = np.bincount(task.target)
    if (
        counts[counts > 0].min() < 2
    ):  # its own early stopping splits by class, which one row does not survive
        settings["early_stopping"] = False
    return HistGradientBoostingClassifier(**settings)


def _predictions(model: Any, test: pd.DataFrame, schema: Schema) -> tuple[tuple[float, ...], ...]:
    if schema.task == "regression":
        return tuple((value,) for value in model.predict(test).tolist())
    shares = np.zeros((len(test), len(schema.classes)))
    shares[:, model.classes_] = model.predict_proba(test)  # a class without a training row keeps 0
    return tuple(map(tuple, shares.tolist()))
