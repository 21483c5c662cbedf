"""The scikit-learn estimators over the same engine as the command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from dropkit.apps import arrays, devices, folder, saving
from dropkit.apps.clock import seconds
from dropkit.apps.fitting import Eta, best
from dropkit.apps.progress import display
from dropkit.apps.report import render
from dropkit.apps.versions import all_versions
from dropkit.records import Fit, Outcome, Schema, Task, Trial
from dropkit.training.model import Model
from dropkit.training.search import Search

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

Self = TypeVar("Self", bound="_Estimator")

_AFTER = 0.3
"""Seconds of a time cap that are kept for the ensemble."""


class _Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """What both estimators share: everything but what a target is."""

    _task: Task
    history_: tuple[Trial, ...]
    outcome_: Outcome
    model_: Model
    fit_: Fit

    def __init__(
        self,
        *,
        budget: str | float = "auto",
        time: str | float | None = None,
        metric: str = "auto",
        types: Mapping[str, str] | None = None,
        n_jobs: int | None = None,
        device: str = "auto",
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.budget = budget
        self.time = time
        self.metric = metric
        self.types = types
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the report of the fit as one HTML file.

        Raises `FolderError` if it cannot be written.
        """
        check_is_fitted(self)
        saving.write_file(Path(path), render(self.fit_).encode("utf-8"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model folder, which `dropkit.load` and `dropkit predict` read.

        Raises `FolderError` if the folder holds what dropkit did not write, or cannot be written.
        """
        check_is_fitted(self)
        tensors, description = self.model_.state()
        folder.save(
            Path(path),
            tensors,
            description,
            self.fit_,
            ids=(),
            report=render(self.fit_),
            predictions=None,
            estimator={
                "settings": self._settings(),
                "named": hasattr(self, "feature_names_in_"),
                "labels": self._labels(),
            },
        )

    def _learn(self, X: Any, target: np.ndarray, classes: tuple[str, ...], frame: pd.DataFrame) -> None:
        """Run the search and keep what came of it."""
        began = monotonic()
        judged = arrays.is_frame(X) or any(frame[name].dtype == object for name in frame)
        schema = arrays.schema_of(
            frame, target, self._task, classes, self.types or {}, judged=judged or bool(self.types)
        )
        seed = self._seed()
        with _threads(self.n_jobs), devices.held_memory():
            search = Search(
                frame,
                target,
                schema,
                metric=self.metric,
                budget=self.budget,
                seed=seed,
                device=devices.device(self.device),
            )
            capped = self._search(search, began)
            self.model_, self.outcome_ = search.model(), search.outcome()
            self.history_ = self.outcome_.trials
            self.fit_ = self._record(schema, seed, capped, monotonic() - began)

    def _search(self, search: Search, began: float) -> bool:
        """Search to the end or to the time cap; whether it was the cap."""
        cap = seconds(str(self.time)) if self.time is not None else float("inf")
        show, eta = display(quiet=not self.verbose), Eta()
        if self.time is not None:
            search.fit_into(cap - _AFTER - (monotonic() - began))
        try:
            while not search.finished:
                left = cap - _AFTER - (monotonic() - began)
                if left <= 0:
                    return True
                progress = search.advance()
                show.update(progress, best(progress, self._metric()), min(left, eta(progress.done)))
        finally:
            show.close()
        return search.shortened

    def _record(self, schema: Schema, seed: int, capped: bool, spent: float) -> Fit:
        return Fit(
            table=type(self).__name__,
            schema=schema,
            outcome=self.outcome_,
            holdout=None,
            baselines=(),
            cells=(),
            stopped="time" if capped else "",
            seconds=spent,
            seed=seed,
            command=f"dropkit.{self!r}.fit(X, y)".replace("\n", " "),
            versions=all_versions(),
            device=devices.name(devices.device(self.device)),
            threads=torch.get_num_threads(),
        )

    def _metric(self) -> str:
        if self.metric != "auto":
            return self.metric
        return "log_loss" if self._task == "classification" else "rmse"

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _settings(self) -> dict[str, Any]:
        settings = self.get_params(deep=False)
        settings["random_state"] = self.fit_.seed
        settings["types"] = dict(self.types) if self.types else None
        return settings

    def _labels(self) -> Any:
        return None

    def _features(self, X: Any, y: Any = None, *, fitting: bool) -> tuple[pd.DataFrame, Any]:
        """X as a table, and y if it is given, after scikit-learn's checks."""
        if fitting and y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        if arrays.is_frame(X):
            validate_data(self, X, reset=fitting, skip_check_array=True)
            _check_shape(X)
            if fitting:
                check_consistent_length(X, y)
            return X.reset_index(drop=True), y
        settings: dict[str, Any] = {"reset": fitting, "dtype": None, "ensure_all_finite": "allow-nan"}
        if not fitting:
            return arrays.array_frame(validate_data(self, X, **settings)), None
        numeric = self._task == "regression"
        X, y = validate_data(self, X, y, ensure_min_samples=2, y_numeric=numeric, **settings)
        return arrays.array_frame(X), y

    def _predict(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        frame, _ = self._features(X, fitting=False)
        return self.model_.predict(frame)


class DropoutClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A classifier whose dropout and other regularizers are chosen on validation data.

    X may be a DataFrame with mixed columns (numbers, text, booleans, dates, missing cells; ids and
    columns that carry nothing are left out) or an array. The estimator splits validation rows off
    by itself and sets none aside to judge by: use `cross_val_score`, or `dropkit fit`.

    Parameters: `budget` is the work to do ("auto", "quick", "standard", "thorough" or a number of
    member-epochs), `time` a cap on it (seconds, or text such as "2m"). `metric` is what validation
    chooses by ("auto" is log_loss; or accuracy, balanced_accuracy, roc_auc). `types` overrides the
    kinds of columns by name. `n_jobs` is the number of threads, `device` "auto", "cpu" or "cuda".
    The same `random_state` gives the same bits on the same machine. `verbose` shows progress.

    Fitted: `classes_`, `n_features_in_`, `feature_names_in_`, `history_` (the trials with their
    curves), `outcome_` (all that the search found), `model_` (the predictor), `fit_` (what the
    report tells).

    Raises `ValueError` for what cannot be learned from; `InputError` is one.

    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> model = DropoutClassifier(budget=300).fit(X, X[:, 0] > 0)
    >>> model.predict([[-0.9], [0.9]]).tolist()
    [False, True]
    """

    _task = "classification"
    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> DropoutClassifier:
        """Learn to tell the classes `y` from `X`."""
        frame, y = self._features(X, y, fitting=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        assert_all_finite(y, input_name="y")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"expected at least two classes to tell apart; y has one class: {self.classes_[0]!r}"
            )
        names = tuple(str(label) for label in self.classes_)
        self._learn(X, codes.astype(np.int64), names, frame)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (rows, classes), in the order of `classes_`."""
        return self._predict(X)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row."""
        chosen: np.ndarray = self.predict_proba(X).argmax(axis=1)
        return self.classes_[chosen]

    def _labels(self) -> Any:
        kind = self.classes_.dtype.kind
        if kind in _LABELS and kind != "U":
            return {"kind": kind, "values": self.classes_.tolist()}
        return {"kind": "U", "values": [str(label) for label in self.classes_]}


class DropoutRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A regressor whose dropout and other regularizers are chosen on validation data.

    X may be a DataFrame with mixed columns (numbers, text, booleans, dates, missing cells; ids and
    columns that carry nothing are left out) or an array. The estimator splits validation rows off
    by itself and sets none aside to judge by: use `cross_val_score`, or `dropkit fit`.

    Parameters: `budget` is the work to do ("auto", "quick", "standard", "thorough" or a number of
    member-epochs), `time` a cap on it (seconds, or text such as "2m"). `metric` is what validation
    chooses by ("auto" is rmse; or mae, r2). `types` overrides the kinds of columns by name.
    `n_jobs` is the number of threads, `device` "auto", "cpu" or "cuda". The same `random_state`
    gives the same bits on the same machine. `verbose` shows progress.

    Fitted: `n_features_in_`, `feature_names_in_`, `history_` (the trials with their curves),
    `outcome_` (all that the search found), `model_` (the predictor), `fit_` (what the report tells).

    Raises `ValueError` for what cannot be learned from; `InputError` is one.

    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> model = DropoutRegressor(budget=300).fit(X, 3 * X[:, 0])
    >>> model.predict([[0.5]]).shape
    (1,)
    """

    _task = "regression"

    def fit(self, X: Any, y: Any) -> DropoutRegressor:
        """Learn to predict the values `y` from `X`."""
        frame, y = self._features(X, y, fitting=True)
        y = np.asarray(column_or_1d(y, warn=True), dtype=np.float64)
        assert_all_finite(y, input_name="y")
        self._learn(X, y, (), frame)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The value of each row."""
        return self._predict(X)


_LABELS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float, "U": str}
"""Kinds of class labels that a model folder keeps; others come back as text."""


def load(path: str | os.PathLike[str]) -> DropoutClassifier | DropoutRegressor:
    """The fitted estimator in a model folder, whether `save` or `dropkit fit` wrote it.

    Raises `ModelFolderError` if it is no model folder, damaged, altered or of a later format.
    Warns with `DropkitWarning` if another version of dropkit wrote it. Nothing in the folder is
    executed.
    """
    with folder.believing(Path(path)):
        stored = folder.load(Path(path))
        schema, about = stored.model.schema, stored.estimator or {}
        kind = DropoutClassifier if schema.task == "classification" else DropoutRegressor
        found = kind(**_known(about.get("settings") or {"random_state": stored.fit.seed}))
        found.n_features_in_ = len(schema.columns)
        if about.get("named", True):
            names = [column.name for column in schema.columns]
            found.feature_names_in_ = np.array(names, dtype=object)
        if isinstance(found, DropoutClassifier):
            found.classes_ = _classes(schema, about.get("labels"))
    found.model_, found.fit_, found.outcome_ = stored.model, stored.fit, stored.fit.outcome
    found.history_ = found.outcome_.trials
    return found


def _classes(schema: Schema, labels: Any) -> np.ndarray:
    if labels is None:
        return np.array(schema.classes)
    kind, values = _LABELS[labels["kind"]], labels["values"]
    if len(values) != len(schema.classes) or any(type(value) is not kind for value in values):
        raise ValueError("its class labels do not fit its classes")
    return np.array(values)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an estimator, each of a plain type: a folder may be a stranger's."""
    plain = (str, int, float, bool, type(None))
    for name, value in settings.items():
        cells = value.values() if name == "types" and isinstance(value, dict) else [value]
        if not all(isinstance(cell, plain) for cell in cells):
            raise ValueError(f"its setting {name!r} is {value!r}")
    return dict(settings)


def _check_shape(X: pd.DataFrame) -> None:
    if not len(X) or not X.shape[1]:
        raise ValueError(
            f"expected at least 1 row and 1 column; found an array with {len(X)} sample(s) and "
            f"{X.shape[1]} feature(s) (shape={X.shape})"
        )


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """So many threads for the length of a block; None leaves them alone, below 0 means all cores."""
    before = torch.get_num_threads()
    try:
        if wanted is not None:
            torch.set_num_threads(wanted if wanted > 0 else devices.cores())
        yield
    finally:
        torch.set_num_threads(before)
