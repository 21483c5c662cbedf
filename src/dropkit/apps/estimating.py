"""What the scikit-learn estimators share: settings, checks, the search, saving."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from dropkit.apps import arrays, devices, folder, saving
from dropkit.apps.clock import Clock, seconds
from dropkit.apps.fitting import Eta, best
from dropkit.apps.progress import display
from dropkit.apps.report import render
from dropkit.apps.uncertainty import check_count, reader, rows_within, seconds_of, uncertainty
from dropkit.apps.versions import all_versions
from dropkit.records import Fit, Outcome, Schema, Task, Trial, Uncertainty
from dropkit.training.model import Model
from dropkit.training.search import Search

if TYPE_CHECKING:
    import pandas as pd

    from dropkit.posterior.draws import Draws

_AFTER = 0.5
"""Seconds of a time cap that are kept for the ensemble, beside those of its draws."""


class Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """What both estimators share: everything but what a target is."""

    _task: Task
    history_: tuple[Trial, ...]
    outcome_: Outcome
    model_: Model
    fit_: Fit
    _ids: tuple[str, ...] = ()
    """Columns that name a row in the predictions of the command; known to folders of its own."""

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
            ids=self._ids,
            report=render(self.fit_),
            predictions=None,
            estimator={
                "settings": self._settings(),
                "named": hasattr(self, "feature_names_in_"),
                "labels": self._labels(),
            },
        )

    def sample(self, X: Any, draws: int = 100, random_state: Any = None) -> Draws:
        """Passes with dropout on: what the model says of each row, and how far that is to be
        trusted.

        The draws of a classifier are probabilities in the order of `classes_`, tempered on
        validation rows; those of a regressor are values, with the variance of the truth around
        them (`noise`) as validation rows showed it.

        Args:
            X: rows, as `predict` takes them.
            draws: how many, 2 or more.
            random_state: names the draws; None takes the seed of the fit.

        Raises:
            SettingError: fewer than 2 draws, or a model whose draws cannot differ: a single
                network without dropout, or one that an older dropkit saved.

        Warns:
            DropkitWarning: networks without dropout, whose draws differ by the network alone.

        >>> import numpy as np
        >>> from dropkit import DropoutRegressor
        >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
        >>> drawn = DropoutRegressor(budget=900).fit(X, 3 * X[:, 0]).sample([[0.5], [9.0]])
        >>> drawn.count, drawn.std.shape
        (100, torch.Size([2]))
        """
        check_is_fitted(self)
        check_count(draws)
        seed = self.fit_.seed if random_state is None else _seed(random_state)
        frame, _ = self._features(arrays.in_pandas(X), fitting=False)
        asked = reader(self.model_, self.fit_.uncertainty)
        return asked.draws(self.model_.encode(frame), draws, seed)

    def _learn(
        self, X: Any, target: np.ndarray, classes: tuple[str, ...], frame: pd.DataFrame
    ) -> None:
        """Run the search and keep what came of it."""
        began = monotonic()
        judged = arrays.is_frame(X) or any(frame[name].dtype.kind in "OmM" for name in frame)
        schema = arrays.schema_of(
            frame, target, self._task, classes, self.types or {}, judged=judged or bool(self.types)
        )
        seed = _seed(self.random_state)
        with devices.threads(self.n_jobs), devices.held_memory():
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
            most = rows_within(self._cap(), search.parameters)
            doubt = uncertainty(self.model_, search, frame, None, seed, most)
            self.fit_ = self._record(schema, seed, capped, monotonic() - began, doubt)
        self._ids = ()

    def _cap(self) -> float | None:
        return None if self.time is None else seconds(str(self.time))

    def _search(self, search: Search, began: float) -> bool:
        """Search to the end or to the time cap; whether it was the cap."""
        cap = self._cap()
        after = _AFTER + seconds_of(rows_within(cap, search.parameters), search.parameters) / 3
        clock = Clock(began, None if cap is None else cap - after)
        show, eta = display(quiet=not self.verbose), Eta()
        if clock.cap is not None:
            search.fit_into(clock.left)
        try:
            while not search.finished:
                if clock.left <= 0:
                    return True
                progress = search.advance()
                left = min(clock.left, eta(progress.done))
                show.update(progress, best(progress, search.metric), left)
        finally:
            show.close()
        return search.unfinished

    def _record(
        self, schema: Schema, seed: int, capped: bool, spent: float, doubt: Uncertainty | None
    ) -> Fit:
        return Fit(
            table=type(self).__name__,
            schema=schema,
            outcome=self.outcome_,
            holdout=None,
            uncertainty=doubt,
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

    def _settings(self) -> dict[str, Any]:
        """The parameters as JSON; a search may have set them to numbers of numpy's."""
        settings = {name: _plain(value) for name, value in self.get_params(deep=False).items()}
        settings["random_state"] = self.fit_.seed
        types = {str(name): str(kind) for name, kind in (self.types or {}).items()}
        settings["types"] = types or None
        return settings

    def _labels(self) -> Any:
        """Class labels with their type, as JSON; None where there are no classes."""
        return None

    def _features(self, X: Any, y: Any = None, *, fitting: bool) -> tuple[pd.DataFrame, Any]:
        """X, an array or pandas, as a table, and y if it is given, after scikit-learn's checks."""
        if fitting and y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        if fitting:
            arrays.check_present(y)
        if arrays.is_frame(X):
            validate_data(self, X, reset=fitting, skip_check_array=True)
            _check_shape(X)
            if fitting:
                check_consistent_length(X, y)
            return (X if fitting else self._known(X)).reset_index(drop=True), y
        settings: dict[str, Any] = {
            "reset": fitting,
            "dtype": None,
            "ensure_all_finite": "allow-nan",
        }
        if not fitting:
            return self._known(validate_data(self, X, **settings)), None
        numeric = self._task == "regression"
        X, y = validate_data(self, X, y, ensure_min_samples=2, y_numeric=numeric, **settings)
        return arrays.array_frame(X), y

    def _known(self, X: Any) -> pd.DataFrame:
        """Rows to predict, with the columns of the fit."""
        return arrays.like_the_fit(X, [column.name for column in self.model_.schema.columns])

    def _outputs(self, X: Any) -> np.ndarray:
        """Probabilities or values of checked rows."""
        check_is_fitted(self)
        frame, _ = self._features(arrays.in_pandas(X), fitting=False)
        return self.model_.predict(frame)


def _seed(random_state: Any) -> int:
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _check_shape(X: pd.DataFrame) -> None:
    if not len(X) or not X.shape[1]:
        raise ValueError(
            f"expected at least 1 row and 1 column; found an array with {len(X)} sample(s) and "
            f"{X.shape[1]} feature(s) (shape={X.shape})"
        )
