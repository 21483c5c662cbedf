"""The estimators: scikit-learn's whole contract, mixed columns, and what they keep."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from command import BUDGET, dropkit, fit, rows, write
from dropkit import (
    DropoutClassifier,
    DropoutRegressor,
    ModelFolderError,
    TargetError,
    load,
)
from dropkit.apps.estimators import _as_pandas_reads


@parametrize_with_checks([DropoutClassifier(budget=BUDGET), DropoutRegressor(budget=BUDGET)])
def test_scikit_learns_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    """Mixed columns, some cells missing."""
    table = pd.DataFrame(rows(120))
    table["smoker"] = [number % 4 == 0 for number in range(120)]
    table["born"] = pd.date_range("1970-01-01", periods=120, freq="37D")
    table.loc[::11, "size"] = np.nan
    table.loc[::13, "city"] = None
    return table


@pytest.fixture(scope="module")
def features(people: pd.DataFrame) -> pd.DataFrame:
    return people.drop(columns=["colour", "price"])


@pytest.fixture(scope="module")
def classifier(people: pd.DataFrame, features: pd.DataFrame) -> DropoutClassifier:
    return DropoutClassifier(budget=BUDGET).fit(features, people["colour"])


@pytest.fixture(scope="module")
def regressor(people: pd.DataFrame, features: pd.DataFrame) -> DropoutRegressor:
    return DropoutRegressor(budget=BUDGET).fit(features, people["price"])


# Mixed columns


def test_a_frame_is_understood_as_a_file_is(classifier: DropoutClassifier) -> None:
    columns = {column.name: column for column in classifier.fit_.schema.columns}
    kinds = {name: column.kind for name, column in columns.items() if column.used}
    assert kinds == {"size": "number", "city": "category", "smoker": "boolean", "born": "date"}
    assert columns["key"].reason.startswith("id")
    assert classifier.feature_names_in_.tolist() == ["key", "size", "city", "smoker", "born"]


def test_it_learns(
    people: pd.DataFrame, features: pd.DataFrame, classifier: Any, regressor: Any
) -> None:
    assert classifier.score(features, people["colour"]) > 0.7
    assert regressor.score(features, people["price"]) > 0.5


def test_probabilities(features: pd.DataFrame, classifier: DropoutClassifier) -> None:
    shares = classifier.predict_proba(features)
    assert shares.shape == (120, 2)
    assert np.allclose(shares.sum(axis=1), 1)
    assert (classifier.predict(features) == classifier.classes_[shares.argmax(axis=1)]).all()


def test_kinds_can_be_told(people: pd.DataFrame, features: pd.DataFrame) -> None:
    model = DropoutRegressor(budget=20, types={"key": "category", "smoker": "drop"})
    model.fit(features, people["price"])
    used = {column.name for column in model.fit_.schema.used}
    assert used == {"key", "size", "city", "born"}


def test_an_array_that_counts_is_no_id() -> None:
    X = np.arange(60).reshape(-1, 1)
    model = DropoutRegressor(budget=200).fit(X, 2.0 * X[:, 0])
    assert [column.name for column in model.fit_.schema.used] == ["x0"]


def test_an_array_of_objects(people: pd.DataFrame) -> None:
    X = people[["size", "city"]].to_numpy(dtype=object)
    model = DropoutClassifier(budget=20).fit(X, people["colour"])
    kinds = [(column.name, column.kind) for column in model.fit_.schema.columns]
    assert kinds == [("x0", "number"), ("x1", "category")]
    assert model.predict(X[:3]).shape == (3,)


class Foreign:
    """A table of another library, of which is known only how it turns into pandas."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table, self.shape = table, table.shape

    def __len__(self) -> int:
        return len(self._table)

    def to_pandas(self) -> pd.DataFrame:
        return self._table.copy()


@pytest.mark.parametrize("made", [pa.Table.from_pandas, Foreign])
def test_a_table_of_another_library(
    made: Any, people: pd.DataFrame, features: pd.DataFrame, tmp_path: Path
) -> None:
    """Mutant: a table that is read as an array, without its names."""
    types = {"key": "category"}
    model = DropoutRegressor(budget=20, types=types).fit(made(features), people["price"])
    expected = DropoutRegressor(budget=20, types=types).fit(features, people["price"])
    assert model.feature_names_in_.tolist() == list(features)
    assert model.fit_.schema == expected.fit_.schema
    assert (model.predict(made(features)) == expected.predict(features)).all()
    model.save(tmp_path / "m")
    assert (load(tmp_path / "m").predict(made(features)) == expected.predict(features)).all()


def test_dates_of_python_are_dates(people: pd.DataFrame, features: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(features.assign(born=features["born"].dt.date))
    model = DropoutRegressor(budget=20).fit(table, people["price"])
    assert [c.kind for c in model.fit_.schema.columns if c.name == "born"] == ["date"]
    assert model.predict(table).shape == (120,)


def test_a_frame_and_then_an_array(features: pd.DataFrame, classifier: DropoutClassifier) -> None:
    """Mutants: columns called x0, x1; numbers made of the text 01; dates that are refused."""
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        shares = classifier.predict_proba(features.to_numpy())
    assert (shares == classifier.predict_proba(features)).all()


def test_a_frame_and_then_an_array_go_by_place_whatever_the_names() -> None:
    """Mutant: an array's columns 0 and 1 that are found by these names."""
    X = np.random.RandomState(0).normal(size=(60, 2))
    frame = pd.DataFrame(X, columns=["1", "0"])
    model = DropoutRegressor(budget=300).fit(frame, X[:, 0])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        assert (model.predict(X) == model.predict(frame)).all()


def test_an_array_and_then_a_frame(people: pd.DataFrame, features: pd.DataFrame) -> None:
    X = features[["size", "city"]]
    model = DropoutClassifier(budget=20).fit(X.to_numpy(dtype=object), people["colour"])
    expected = model.predict_proba(X.to_numpy(dtype=object))
    with pytest.warns(UserWarning, match="has feature names"):
        assert (model.predict_proba(X) == expected).all()
    with pytest.raises(ValueError, match="3 features"), pytest.warns(UserWarning, match="names"):
        model.predict(features[["size", "city", "born"]])


@pytest.mark.parametrize(
    ("X", "kinds"),
    [
        (np.array([["a"], ["b"]] * 30), ["category"]),
        (np.array([["a", 1], ["b", 2]] * 30), ["category", "number"]),
        (np.array([[b"a"], [b"b"]] * 30), ["category"]),
        (np.array([["2024-01-31"], ["2024-02-01"]] * 30, dtype="datetime64[D]"), ["date"]),
    ],
    ids=["text", "text and digits", "bytes", "dates"],
)
def test_an_array_of_no_numbers(X: np.ndarray, kinds: list[str]) -> None:
    model = DropoutClassifier(budget=300).fit(X, np.arange(60) % 2)
    assert [c.kind for c in model.fit_.schema.columns] == kinds
    assert model.predict(X[:2]).shape == (2,)


@pytest.mark.parametrize(
    "y",
    [
        np.array(["a", np.nan, "b"], dtype=object),
        np.array(["a", None, "b"], dtype=object),
        ["a", np.nan, "b"],
        [1.5, None, 2.0],
        np.array([[1.5], [np.nan], [2.0]]),
        pd.Series(["a", pd.NA, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
    ],
    ids=["NaN", "None", "text", "numbers", "column", "NA", "category"],
)
@pytest.mark.parametrize(
    "X", [np.zeros((3, 1)), pd.DataFrame({"a": [1, 2, 3]})], ids=["array", "frame"]
)
@pytest.mark.parametrize("kind", [DropoutClassifier, DropoutRegressor])
def test_a_target_with_gaps_is_refused(kind: Any, X: Any, y: Any) -> None:
    """Mutant: the text nan, which numpy makes of a gap in a list of text, as a class."""
    with pytest.raises(TargetError, match=r"missing in 1 of 3 rows \(first: row 2\)"):
        kind().fit(X, y)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 7, 11]),
        np.array([-1.0, 1.0, 2.0]),
        np.array(["b", "a", "ü"]),
        np.array(["b", "a", "c"], dtype=object),
    ],
    ids=["int", "float", "text", "object"],
)
def test_labels_keep_their_type(labels: np.ndarray, tmp_path: Path) -> None:
    X = np.linspace(-1, 1, 30).reshape(-1, 1)
    model = DropoutClassifier(budget=20).fit(X, labels[np.arange(30) // 10])
    assert model.classes_.tolist() == sorted(labels.tolist())
    assert set(model.predict(X)) <= set(labels)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.classes_.dtype.kind in (labels.dtype.kind, "U")
    assert again.predict(X).tolist() == model.predict(X).tolist()


def test_nothing_to_learn_from() -> None:
    X, y = np.zeros((30, 2)), np.arange(30) % 3
    model = DropoutClassifier(budget=20).fit(X, y)
    assert np.allclose(model.predict_proba(X), 1 / 3, atol=0.02)
    values = DropoutRegressor(budget=20).fit(X, y).predict(X)
    assert np.allclose(values, 1, atol=0.05)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        DropoutClassifier().fit(np.zeros((9, 1)), np.ones(9, dtype=int))


# The same again


def test_the_same_seed_gives_the_same_bits(
    people: pd.DataFrame, features: pd.DataFrame, regressor: DropoutRegressor
) -> None:
    again = clone(regressor).fit(features, people["price"])
    other = clone(regressor).set_params(random_state=1).fit(features, people["price"])
    expected = regressor.predict(features)
    assert (again.predict(features) == expected).all()
    assert (other.predict(features) != expected).any()


def test_no_seed_means_another_one_each_time() -> None:
    X = np.random.RandomState(0).normal(size=(40, 2))
    fits = [DropoutRegressor(budget=20, random_state=None).fit(X, X[:, 0]) for _ in range(2)]
    assert fits[0].fit_.seed != fits[1].fit_.seed


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    X = np.linspace(0, 1, 20).reshape(-1, 1)
    model = DropoutRegressor(budget=20, n_jobs=1).fit(X, X[:, 0])
    assert model.fit_.threads == 1
    assert torch.get_num_threads() == before


def test_the_global_draws_are_left_alone() -> None:
    before, numpys = torch.get_rng_state(), np.random.get_state()[1]
    X = np.linspace(0, 1, 20).reshape(-1, 1)
    DropoutRegressor(budget=20).fit(X, X[:, 0])
    assert (torch.get_rng_state() == before).all()
    assert (np.random.get_state()[1] == numpys).all()


# In company


def test_in_a_pipeline_under_cross_validation(people: pd.DataFrame) -> None:
    line = make_pipeline(StandardScaler(), DropoutRegressor(budget=50))
    X = people[["size", "smoker"]].fillna(0).astype(float)
    assert len(cross_val_score(line, X, people["price"], cv=3)) == 3


def test_under_a_grid_search(people: pd.DataFrame, features: pd.DataFrame) -> None:
    search = GridSearchCV(DropoutClassifier(budget=20), {"metric": ["log_loss", "accuracy"]}, cv=2)
    search.fit(features, people["colour"])
    assert search.best_estimator_.predict(features).shape == (120,)


def test_what_a_search_over_numpys_numbers_found_is_saved(
    people: pd.DataFrame, features: pd.DataFrame, tmp_path: Path
) -> None:
    one = DropoutClassifier(n_jobs=np.int64(1), verbose=np.False_, types={"key": np.str_("drop")})
    search = GridSearchCV(one, {"budget": np.array([20, 30])}, cv=2)
    best = search.fit(features, people["colour"]).best_estimator_
    best.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.get_params() == best.get_params()
    assert {type(value) for value in again.get_params().values()} <= {int, bool, str, dict} | {
        type(None)
    }


def test_pickle_and_joblib(
    features: pd.DataFrame, classifier: DropoutClassifier, tmp_path: Path
) -> None:
    joblib.dump(classifier, tmp_path / "model.joblib")
    expected = classifier.predict_proba(features)
    for again in (pickle.loads(pickle.dumps(classifier)), joblib.load(tmp_path / "model.joblib")):
        assert (again.predict_proba(features) == expected).all()


# What is kept


def test_history_and_outcome(classifier: DropoutClassifier) -> None:
    assert classifier.history_ == classifier.outcome_.trials
    curve = classifier.history_[0].curves[0]
    assert len(curve.noisy) == len(curve.train) == len(curve.validation) == len(curve.epochs)


def test_a_report(classifier: DropoutClassifier, tmp_path: Path) -> None:
    classifier.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "dropkit.DropoutClassifier(budget=400).fit(X, y)" in page


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_saved_and_loaded(
    kind: str, features: pd.DataFrame, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert type(again) is type(model)
    assert again.get_params() == model.get_params()
    assert (again.predict(features) == model.predict(features)).all()
    assert again.history_ == model.history_
    assert again.outcome_ == model.outcome_
    again.report(tmp_path / "report.html")
    again.save(tmp_path / "again")
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("m", "again")
    )
    assert first == second


def test_the_command_reads_what_an_estimator_saved(
    features: pd.DataFrame, regressor: DropoutRegressor, tmp_path: Path
) -> None:
    regressor.save(tmp_path / "m")
    features.to_parquet(tmp_path / "t.parquet")
    ran = dropkit("predict", tmp_path / "m", tmp_path / "t.parquet")
    assert ran.code == 0, ran.err
    values = [float(line.rsplit(",", 1)[1]) for line in ran.out.splitlines()[1:]]
    assert values == regressor.predict(features).tolist()


def test_an_estimator_reads_what_the_command_saved(fitted: Path) -> None:
    model = load(fitted)
    assert isinstance(model, DropoutClassifier)
    table = pd.read_csv(fitted.parent / "people.csv").drop(columns="colour")
    ran = dropkit("predict", fitted, fitted.parent / "people.csv")
    red = [float(line.rsplit(",", 1)[1]) for line in ran.out.splitlines()[1:]]
    assert model.predict_proba(table)[:, 1].tolist() == red
    assert model.classes_.tolist() == ["blue", "red"]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (("0", "1"), [0, 1]),
        (("-3", "2", "10"), [-3, 2, 10]),
        (("0.5", "2"), [0.5, 2.0]),
        (("false", "true"), [False, True]),
        (("False", "True"), [False, True]),
        (("01", "02"), ["01", "02"]),
        (("0", "1.0"), ["0", "1.0"]),
        (("1", "1e5"), ["1", "1e5"]),
        (("0", "9007199254740993"), ["0", "9007199254740993"]),
        (("0", "inf"), ["0", "inf"]),
        (("1", "one"), ["1", "one"]),
        (("no", "yes"), ["no", "yes"]),
        (("False", "maybe", "true"), ["False", "maybe", "true"]),
    ],
)
def test_classes_of_the_command_come_back_as_pandas_reads_them(
    texts: tuple[str, ...], labels: list[Any]
) -> None:
    """Mutant: text that loses a zero, a digit or an exponent on the way."""
    found = _as_pandas_reads(texts).tolist()
    assert found == labels
    assert [type(label) for label in found] == [type(label) for label in labels]


@pytest.mark.parametrize("words", [("0", "1"), ("false", "true")])
def test_what_the_command_saved_can_be_scored(words: tuple[str, str], tmp_path: Path) -> None:
    people = [{**row, "colour": words[row["colour"] == "red"]} for row in rows()]
    ran = fit(write(tmp_path / "t.csv", people), "colour", "--out", tmp_path / "m")
    assert ran.code == 0, ran.err
    table = pd.read_csv(tmp_path / "t.csv")
    model = load(tmp_path / "m")
    assert model.score(table.drop(columns="colour"), table["colour"]) > 0.7


def test_the_ids_of_the_command_survive_a_second_save(fitted: Path, tmp_path: Path) -> None:
    load(fitted).save(tmp_path / "again")
    table = fitted.parent / "people.csv"
    ran = [dropkit("predict", model, table) for model in (fitted, tmp_path / "again")]
    assert ran[0].out == ran[1].out
    assert ran[0].out.startswith("key,")


def test_load_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="does not exist"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "estimator",
    [
        {"settings": {"budget": {"a": 1}}, "named": True, "labels": None},
        {"settings": {"no_such": 1}, "named": True, "labels": None},
        {"settings": {}, "named": True, "labels": {"kind": "O", "values": []}},
        {"settings": {}, "named": True, "labels": {"kind": "U", "values": ["a"]}},
        {"settings": [], "named": True, "labels": 3},
        3,
    ],
)
def test_load_refuses_a_forged_estimator(model: Path, estimator: object) -> None:
    from test_folder import edit

    edit(model, lambda about: about.update(estimator=estimator))
    with pytest.raises(ModelFolderError, match="no usable model folder"):
        load(model)


def test_a_time_cap() -> None:
    X = np.random.RandomState(0).normal(size=(200, 4))
    model = DropoutRegressor(budget="thorough", time="2s").fit(X, X[:, 0])
    assert model.fit_.stopped == "time"


def test_progress_is_shown_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    X = np.linspace(0, 1, 20).reshape(-1, 1)
    DropoutRegressor(budget=20).fit(X, X[:, 0])
    assert capsys.readouterr() == ("", "")


def test_a_file_and_a_frame_give_the_same_model(tmp_path: Path) -> None:
    table = pd.DataFrame(rows(60))
    table.to_csv(tmp_path / "t.csv", index=False)
    ran = fit(tmp_path / "t.csv", "price", "--out", tmp_path / "m", "--test-size", 0)
    assert ran.code == 0, ran.err
    features = table.drop(columns="price")
    model = DropoutRegressor(budget=BUDGET).fit(features, table["price"])
    assert (load(tmp_path / "m").predict(features) == model.predict(features)).all()
