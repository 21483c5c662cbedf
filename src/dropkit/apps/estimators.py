"""The scikit-learn estimators over the same engine as the command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d

from dropkit.apps import folder
from dropkit.apps.arrays import in_pandas
from dropkit.apps.estimating import Estimator
from dropkit.records import Schema
from dropkit.training.cells import spelled
from dropkit.training.readings import EXACT


class DropoutClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A classifier whose dropout and other regularizers are chosen on validation data.

    X may be a table (of pandas, polars or pyarrow) with mixed columns (numbers, text, booleans,
    dates, missing cells; ids and columns that carry nothing are left out) or an array. The
    estimator splits validation rows off by itself and sets none aside to judge by: use
    `cross_val_score`, or `dropkit fit`.

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
        X = in_pandas(X)
        frame, y = self._features(X, y, fitting=True)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        assert_all_finite(y, input_name="y")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"expected at least two classes to tell apart; y has one: {self.classes_[0]!r}"
            )
        names = tuple(str(label) for label in self.classes_)
        self._learn(X, codes.astype(np.int64), names, frame)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (rows, classes), in the order of `classes_`."""
        return self._outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row."""
        shares = self.predict_proba(X)
        chosen: np.ndarray = self.classes_[shares.argmax(axis=1)]
        return chosen

    def _labels(self) -> Any:
        """Class labels with their type, as JSON."""
        kind = self.classes_.dtype.kind
        if kind in _LABELS and kind != "U":
            return {"kind": kind, "values": self.classes_.tolist()}
        return {"kind": "U", "values": [str(label) for label in self.classes_]}


class DropoutRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A regressor whose dropout and other regularizers are chosen on validation data.

    X may be a table (of pandas, polars or pyarrow) with mixed columns (numbers, text, booleans,
    dates, missing cells; ids and columns that carry nothing are left out) or an array. The
    estimator splits validation rows off by itself and sets none aside to judge by: use
    `cross_val_score`, or `dropkit fit`.

    Parameters: `budget` is the work to do ("auto", "quick", "standard", "thorough" or a number of
    member-epochs), `time` a cap on it (seconds, or text such as "2m"). `metric` is what validation
    chooses by ("auto" is rmse; or mae, r2). `types` overrides the kinds of columns by name.
    `n_jobs` is the number of threads, `device` "auto", "cpu" or "cuda". The same `random_state`
    gives the same bits on the same machine. `verbose` shows progress.

    Fitted: `n_features_in_`, `feature_names_in_`, `history_` (the trials with their curves),
    `outcome_` (all that the search found), `model_` (the predictor), `fit_` (what the report
    tells).

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
        X = in_pandas(X)
        frame, y = self._features(X, y, fitting=True)
        y = np.asarray(column_or_1d(y, warn=True), dtype=np.float64)
        assert_all_finite(y, input_name="y")
        self._learn(X, y, (), frame)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The value of each row."""
        return self._outputs(X)


_LABELS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float, "U": str}
"""Kinds of class labels that a model folder keeps; others come back as text."""
_TRUTH = (("False", "True"), ("FALSE", "TRUE"), ("false", "true"))
"""Words that pandas reads as booleans."""


def load(path: str | os.PathLike[str]) -> DropoutClassifier | DropoutRegressor:
    """The fitted estimator in a model folder, whether `save` or `dropkit fit` wrote it.

    The command keeps classes as text. Of its folders, classes come back as the numbers or truth
    values as which pandas reads that text, so that they compare with a target that pandas read:
    `0` and `1` as integers, `true` and `false` as booleans. They stay text if one of them is not
    written as its number is, such as `01`. Classes that `save` wrote keep their type.

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
    found._ids = stored.ids
    found.history_ = found.outcome_.trials
    return found


def _classes(schema: Schema, labels: Any) -> np.ndarray:
    if labels is None:
        return _as_pandas_reads(schema.classes)
    kind, values = _LABELS[labels["kind"]], labels["values"]
    if len(values) != len(schema.classes) or any(type(value) is not kind for value in values):
        raise ValueError("its class labels do not fit its classes")
    return np.array(values)


def _as_pandas_reads(texts: tuple[str, ...]) -> np.ndarray:
    """Labels as numbers or truth values if no letter of any of them is lost so, else as text."""
    if texts in _TRUTH:
        return np.array([False, True])
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return np.array(texts)
    if max(map(abs, values)) >= EXACT or tuple(spelled(values)) != texts:
        return np.array(texts)
    whole = all(value.is_integer() for value in values)
    return np.array(values, dtype=np.int64 if whole else np.float64)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an estimator, each of a plain type: a folder may be a stranger's."""
    plain = (str, int, float, bool, type(None))
    for name, value in settings.items():
        cells = value.values() if name == "types" and isinstance(value, dict) else [value]
        if not all(isinstance(cell, plain) for cell in cells):
            raise ValueError(f"its setting {name!r} is {value!r}")
    return dict(settings)
