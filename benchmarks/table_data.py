"""What `benchmarks/tables.py` compares: tables, splits, and methods with their defaults."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

Task = Literal["classification", "regression"]
Rows = np.ndarray

SPLITS = 5
CLIP = 1e-6  # one sure mistake then costs 13.8 nats rather than an infinite mean
TEST_SHARE = 0.2  # for tables that come without a split of their own

# The rule: the five smallest, by rows, of the nine sets of Gal & Ghahramani 2016.
# The order: cheap first, so that a broken method is seen early; adult, by far the largest, last.
UCI = ("yacht", "bostonHousing", "energy", "concrete", "wine-quality-red")
TABLES: dict[str, tuple[Task, str]] = {
    "automobile": ("regression", "price"),
    "breast_cancer_ljubljana": ("classification", "class"),
    **{name: ("regression", "y") for name in UCI},
    "credit_german": ("classification", "risk"),
    "adult": ("classification", "income"),
}


@dataclass(frozen=True)
class Split:
    """One table cut in two: mixed columns, text as `category` with the same levels in both."""

    task: Task
    X_train: pd.DataFrame
    y_train: np.ndarray
    X_test: pd.DataFrame
    y_test: np.ndarray

    def score(self, predicted: np.ndarray, classes: np.ndarray | None) -> dict[str, float]:
        """RMSE, or log-loss and accuracy; the columns of `predicted` are ordered as `classes`."""
        if self.task == "regression":
            return {"rmse": float(np.sqrt(np.mean((predicted.reshape(-1) - self.y_test) ** 2)))}
        chances = np.zeros((len(predicted), 1 + max(self.y_train.max(), self.y_test.max())))
        chances[:, np.asarray(classes, dtype=int)] = predicted
        own = np.clip(chances[np.arange(len(chances)), self.y_test], CLIP, 1 - CLIP)
        accuracy = np.mean(chances.argmax(axis=1) == self.y_test)
        return {"log_loss": float(-np.log(own).mean()), "accuracy": float(accuracy)}


def load(name: str, number: int, data: Path) -> Split:
    """Split `number` of table `name`; class labels become 0..K-1 in the order of their names."""
    if name not in TABLES:
        raise ValueError(f"expected a table among {', '.join(TABLES)}; got {name!r}")
    if not 0 <= number < SPLITS:
        raise ValueError(f"expected a split from 0 to {SPLITS - 1}; got {number}")
    task, target = TABLES[name]
    frame = read(name, data)
    X, y = with_categories(frame.drop(columns=target)), labels(frame[target], task)
    train, test = rows(name, number, y, task, data)
    return Split(task, part(X, train), y[train], part(X, test), y[test])


def read(name: str, data: Path) -> pd.DataFrame:
    return pd.concat([pd.read_csv(file) for file in files(name, data)], ignore_index=True)


def files(name: str, data: Path) -> list[Path]:
    if name == "adult":
        return [data / "tables/adult_train.csv", data / "tables/adult_test.csv"]
    return [data / "uci" / name / "data.csv" if name in UCI else data / f"tables/{name}.csv"]


def part(X: pd.DataFrame, chosen: Rows) -> pd.DataFrame:
    return X.iloc[chosen].reset_index(drop=True)


def labels(target: pd.Series, task: Task) -> np.ndarray:
    if task == "regression":
        return target.to_numpy(dtype=np.float64)
    return np.unique(target.to_numpy(dtype=str), return_inverse=True)[1]


def with_categories(X: pd.DataFrame) -> pd.DataFrame:
    """Text columns as `category`, numbers as they were read; missing cells stay missing."""
    text = [c for c in X if not pd.api.types.is_numeric_dtype(X[c])]
    return X.assign(**{c: categories(X[c]) for c in text})


def categories(column: pd.Series) -> pd.Series:
    """Levels as objects, since not every peer reads Arrow text yet."""
    levels = pd.Index(sorted(column.dropna().unique()), dtype=object)
    return column.astype(object).astype(pd.CategoricalDtype(levels))


def rows(name: str, number: int, y: np.ndarray, task: Task, data: Path) -> tuple[Rows, Rows]:
    """Row numbers of the train and the test part: the publisher's, or else seeded."""
    if name in UCI:
        with np.load(data / "uci" / name / "splits.npz") as splits:
            return splits[f"train_{number}"], splits[f"test_{number}"]
    published = len(pd.read_csv(files(name, data)[0], usecols=[0])) if name == "adult" else None
    if published and number == 0:
        return np.arange(published), np.arange(published, len(y))
    test = len(y) - published if published else TEST_SHARE
    strata = y if task == "classification" else None
    all_rows = np.arange(len(y))
    parts = train_test_split(all_rows, test_size=test, random_state=number, stratify=strata)
    return parts[0], parts[1]


Prepare = Callable[[Split], Split]


def as_is(split: Split) -> Split:
    return split


def numbers_imputed(split: Split) -> Split:
    """Missing numbers become the median of the train rows, for methods that refuse them."""
    medians = split.X_train.select_dtypes("number").median()
    return with_frames(split, lambda X: X.fillna(medians))


def categories_named(split: Split) -> Split:
    """Missing categories become a level of their own, for methods that refuse them."""

    def name_missing(X: pd.DataFrame) -> pd.DataFrame:
        texts = X.select_dtypes("category").astype(object).fillna("missing")
        return X.assign(**texts.astype("category"))

    return with_frames(split, name_missing)


def with_frames(split: Split, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Split:
    return replace(split, X_train=change(split.X_train), X_test=change(split.X_test))


@dataclass(frozen=True)
class Job:
    """One fit: what a subprocess needs to know."""

    method: str
    dataset: str
    split: int
    threads: int
    data: str
    cap_s: float | None = None

    @property
    def regression(self) -> bool:
        return TABLES[self.dataset][0] == "regression"

    def pick(self, classifier: Any, regressor: Any) -> Any:
        return regressor if self.regression else classifier


@dataclass(frozen=True)
class Method:
    """A peer: how it is made, what is imported before the clock starts, how it wants its table."""

    library: str
    build: Callable[[Job], Any]
    imports: tuple[str, ...]
    prepare: Prepare = as_is
    capped_by: str | None = None  # the method whose fit time is this one's budget
    names_categories: bool = False  # fit() must be told which columns are categories


def sklearn_mlp(job: Job) -> Any:
    from sklearn.compose import (
        TransformedTargetRegressor,
        make_column_selector,
        make_column_transformer,
    )
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (one_hot, make_column_selector(dtype_include="category")),
    )
    if not job.regression:
        return make_pipeline(columns, MLPClassifier(random_state=job.split))
    model = make_pipeline(columns, MLPRegressor(random_state=job.split))
    return TransformedTargetRegressor(model, transformer=StandardScaler())


def sklearn_boosting(job: Job) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = job.pick(HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    return kind(random_state=job.split)


def lightgbm(job: Job) -> Any:
    from lightgbm import LGBMClassifier, LGBMRegressor

    kind = job.pick(LGBMClassifier, LGBMRegressor)
    return kind(random_state=job.split, n_jobs=job.threads, verbose=-1)


def xgboost(job: Job) -> Any:
    from xgboost import XGBClassifier, XGBRegressor

    kind = job.pick(XGBClassifier, XGBRegressor)
    return kind(random_state=job.split, n_jobs=job.threads, enable_categorical=True)


def catboost(job: Job) -> Any:
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = job.pick(CatBoostClassifier, CatBoostRegressor)
    quiet = {"verbose": False, "allow_writing_files": False}
    return kind(random_seed=job.split, thread_count=job.threads, **quiet)


def pytabkit(name: str) -> Callable[[Job], Any]:
    def build(job: Job) -> Any:
        ending = job.pick("_Classifier", "_Regressor")
        kind = getattr(importlib.import_module("pytabkit"), name + ending)
        return kind(device="cpu", n_threads=job.threads, random_state=job.split)

    return build


def dropkit(job: Job) -> Any:
    from dropkit import DropoutClassifier, DropoutRegressor

    cap = {} if job.cap_s is None else {"time": job.cap_s}
    kind = job.pick(DropoutClassifier, DropoutRegressor)
    return kind(random_state=job.split, n_jobs=job.threads, **cap)


# Optimizers import _dynamo, and TabM-D its interface, at first use: seconds that are not training.
TORCH = ("torch", "torch._dynamo")
PYTABKIT = (*TORCH, "pytabkit", "pytabkit.models.alg_interfaces.tabm_interface")
METHODS: dict[str, Method] = {
    "sklearn-mlp": Method("scikit-learn", sklearn_mlp, ("sklearn.neural_network",)),
    "sklearn-hgb": Method("scikit-learn", sklearn_boosting, ("sklearn.ensemble",)),
    "lightgbm": Method("lightgbm", lightgbm, ("lightgbm",)),
    "xgboost": Method("xgboost", xgboost, ("xgboost",)),
    "catboost": Method(
        "catboost", catboost, ("catboost",), categories_named, names_categories=True
    ),
    "realmlp-td": Method("pytabkit", pytabkit("RealMLP_TD"), PYTABKIT, numbers_imputed),
    "dropkit": Method("dropkit", dropkit, (*TORCH, "dropkit")),
    "dropkit-capped": Method("dropkit", dropkit, (*TORCH, "dropkit"), capped_by="realmlp-td"),
    "tabm-d": Method("pytabkit", pytabkit("TabM_D"), PYTABKIT, numbers_imputed),
}
