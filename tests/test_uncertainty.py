"""Draws in the main job: the command's columns, the estimators' `sample`, what is calibrated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from command import dropkit, fit, read, rows, write
from dropkit import DropoutClassifier, DropoutRegressor, load
from dropkit.apps import folder, uncertainty
from dropkit.apps.uncertainty import Reader, rows_within, seconds_of, threshold
from dropkit.errors import DropkitWarning, SettingError
from dropkit.kernel import Stream, derive
from dropkit.posterior.draws import Draws
from dropkit.training.columns import encode_target, infer_schema
from dropkit.training.search import Search
from dropkit.training.thinning import order
from test_folder import edit, refused
from workbench import finished, within

PLAIN = ["key", "prediction", "probability_blue", "probability_red"]
OF_CLASSES = ["entropy", "mutual_information", "variation_ratio", "set"]
OF_VALUES = ["mean", "std", "epistemic", "low", "high"]


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of prices, beside its table; not to be changed."""
    place = tmp_path_factory.mktemp("priced")
    table = write(place / "people.csv", rows())
    ran = fit(table, "price", "--out", place / "model", "--id", "key")
    assert ran.code == 0, ran.err
    return place / "model"


def sampled(model: Path, *options: object) -> list[dict[str, str]]:
    ran = dropkit("predict", model, model.parent / "people.csv", "--draws", 20, *options)
    assert ran.code == 0, ran.err
    return read(ran.out)


def asked(model: Path) -> Reader:
    stored = folder.load(model)
    assert stored.fit.uncertainty is not None
    return Reader(stored.model, stored.fit.uncertainty.calibration)


def numbers(table: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in table])


# ---- the command


def test_without_draws_nothing_is_sampled(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default prediction is what it was before there were draws: mutant, a mean of draws."""
    people = fitted.parent / "people.csv"
    stored = folder.load(fitted)
    expected = stored.model.predict(pd.read_csv(people))
    monkeypatch.setattr(type(stored.model), "draws", None)
    found = read(dropkit("predict", fitted, people).out)
    assert list(found[0]) == PLAIN
    shares = np.array([[float(row[name]) for name in PLAIN[2:]] for row in found])
    assert np.array_equal(shares, expected)


def test_the_columns_of_draws_come_behind_the_plain_ones(fitted: Path) -> None:
    plain = read(dropkit("predict", fitted, fitted.parent / "people.csv").out)
    found = sampled(fitted)
    assert list(found[0]) == [*PLAIN, *OF_CLASSES]
    assert [{name: row[name] for name in PLAIN} for row in found] == plain


def test_the_columns_of_classes_are_those_of_the_draws(fitted: Path) -> None:
    """By hand from the samples. Mutants: draws that are not tempered; another key; a set whose
    threshold is that of another level."""
    reader, found = asked(fitted), sampled(fitted, "--seed", 3)
    frame = pd.read_csv(fitted.parent / "people.csv")
    drawn = reader.model.draws(reader.model.encode(frame), 20, key=3).numpy()
    sharp = drawn ** (1 / reader.calibration.temperature)
    sharp /= sharp.sum(-1, keepdims=True)
    mean = sharp.mean(0)
    entropy = -(mean * np.log(mean)).sum(-1)
    within_draws = -(sharp * np.log(sharp)).sum(-1).mean(0)
    votes = sharp.argmax(-1)
    assert np.allclose(numbers(found, "entropy"), entropy, atol=1e-9)
    assert np.allclose(numbers(found, "mutual_information"), entropy - within_draws, atol=1e-9)
    most = np.maximum((votes == 0).mean(0), (votes == 1).mean(0))
    assert np.allclose(numbers(found, "variation_ratio"), 1 - most)
    limit = sorted(reader.calibration.scores)[math.ceil((reader.calibration.rows + 1) * 0.9) - 1]
    for row, shares in zip(found, mean, strict=True):
        inside = [
            name
            for name, share in zip(("blue", "red"), shares, strict=True)
            if 1 - share <= limit or share == shares.max()
        ]
        assert row["set"] == " | ".join(inside)


def test_the_columns_of_values_are_those_of_the_draws(priced: Path) -> None:
    reader, found = asked(priced), sampled(priced, "--interval", "0.8")
    assert list(found[0]) == ["key", "prediction", *OF_VALUES]
    frame = pd.read_csv(priced.parent / "people.csv")
    drawn = reader.model.draws(reader.model.encode(frame), 20, key=0).numpy()
    mean, epistemic = drawn.mean(0), drawn.std(0, ddof=1)
    total = np.hypot(epistemic, reader.calibration.noise)
    limit = sorted(reader.calibration.scores)[math.ceil((reader.calibration.rows + 1) * 0.8) - 1]
    for name, expected in (
        ("mean", mean),
        ("std", total),
        ("epistemic", epistemic),
        ("low", mean - limit * total),
        ("high", mean + limit * total),
    ):
        assert np.allclose(numbers(found, name), expected, rtol=1e-9), name


def test_a_higher_level_is_wider(priced: Path, fitted: Path) -> None:
    widths = [
        numbers(found, "high") - numbers(found, "low")
        for found in (sampled(priced, "--interval", level) for level in ("0.5", "0.9"))
    ]
    assert (widths[0] < widths[1]).all()
    sizes = [
        sum(" | " in row["set"] for row in sampled(fitted, "--interval", level))
        for level in ("0.3", "0.95")
    ]
    assert sizes[0] < sizes[1]


def test_the_seed_names_the_draws(fitted: Path) -> None:
    assert sampled(fitted) == sampled(fitted, "--seed", 0) != sampled(fitted, "--seed", 1)


def test_a_rows_draws_do_not_depend_on_the_other_rows(priced: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few.csv", rows()[7:9])
    found = read(dropkit("predict", priced, few, "--draws", 20).out)
    for name in OF_VALUES:
        assert np.allclose(numbers(found, name), numbers(sampled(priced)[7:9], name), rtol=1e-9)


def test_a_table_without_rows(priced: Path) -> None:
    reader = asked(priced)
    nothing = pd.read_csv(priced.parent / "people.csv").iloc[:0]
    said = reader.say(reader.model.encode(nothing), 5, key=0)
    assert said.mean.shape == (0, 1) and len(said.total) == len(said.epistemic) == 0


def test_rows_are_sampled_in_parts_as_they_are_at_once(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = asked(fitted)
    encoded = reader.model.encode(pd.read_csv(fitted.parent / "people.csv"))
    at_once = reader.say(encoded, 10, key=1)
    monkeypatch.setattr(uncertainty, "_NUMBERS", 10 * 2 * 7)
    parts = reader.say(encoded, 10, key=1)
    for name in ("mean", "total", "epistemic", "variation"):
        assert np.allclose(getattr(parts, name), getattr(at_once, name), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--draws", 1), "expected 2 draws or more"),
        (("--draws", 0), "expected 2 draws or more"),
        (("--draws", -5), "expected 2 draws or more"),
        (("--seed", 1), "expected --draws beside --seed"),
        (("--interval", 0.5), "expected --draws beside --interval"),
        (("--draws", 9, "--interval", 0), "expected an interval above 0"),
        (("--draws", 9, "--interval", 1), "of at most 0.98"),
        (("--draws", 9, "--interval", 90), "of at most 0.98"),
        (("--draws", 9, "--interval", "nan"), "expected an interval above 0"),
    ],
)
def test_what_cannot_be_asked_for(
    options: tuple[object, ...], words: str, fitted: Path, people: Path
) -> None:
    ran = dropkit("predict", fitted, people, *options)
    assert ran.code == 2 and words in ran.err and not ran.out
    assert ran.err.count("\n") == 1


def test_a_class_with_a_bar_in_its_name_is_quoted() -> None:
    from dropkit.apps.predicting import joined

    assert joined(["a|b", "c", "d"], [True, False, True]) == '"a|b" | "d"'
    assert joined(["a", "c", "d"], [True, False, True]) == "a | d"


# ---- older folders, and folders of strangers


def older(model: Path) -> None:
    """Make a folder what it was before rates were kept."""
    history = json.loads((model / "history.json").read_text())
    del history["uncertainty"]
    (model / "history.json").write_text(json.dumps(history))

    def change(about: dict[str, Any]) -> None:
        about["format"] = 1
        del about["description"]["rates"]

    edit(model, change)


def test_an_older_folder_predicts_and_says_why_it_cannot_be_sampled(
    model: Path, people: Path
) -> None:
    before = dropkit("predict", model, people).out
    older(model)
    assert dropkit("predict", model, people).out == before
    ran = dropkit("predict", model, people, "--draws", 10)
    assert ran.code == 2 and "Fit it again" in ran.err
    found = load(model)
    with pytest.raises(SettingError, match="Fit it again"):
        found.sample(pd.read_csv(people).drop(columns="colour"), draws=10)
    found.save(model.parent / "again")
    assert load(model.parent / "again").model_.rates is None


def test_a_folder_of_this_format_without_rates_is_refused(model: Path) -> None:
    edit(model, lambda about: about["description"].pop("rates"))
    refused(model, "rates")


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a temperature of 0": lambda u: u["calibration"].update(temperature=0.0),
    "a noise below 0": lambda u: u["calibration"].update(noise=-1.0),
    "no scores": lambda u: u["calibration"].update(scores=[], rows=0),
    "scores of other rows": lambda u: u["calibration"].update(rows=3),
    "scores that are not sorted": lambda u: u["calibration"]["scores"].reverse(),
    "a score that is no number": lambda u: u["calibration"]["scores"].__setitem__(-1, "NaN"),
    "rows that are missing": lambda u: u["total"].pop(),
    "a class too many": lambda u: u["prediction"][0].append(0.0),
    "an entropy below 0": lambda u: u["total"].__setitem__(0, -1.0),
    "an entropy of text": lambda u: u["total"].__setitem__(0, "high"),
    "no made-up rows": lambda u: u["strange"][0].update(epistemic=[]),
    "an unknown cause": lambda u: u.update(varied="luck"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_calibration_is_refused_when_it_is_read(model: Path, name: str) -> None:
    history = json.loads((model / "history.json").read_text())
    FORGERIES[name](history["uncertainty"])
    (model / "history.json").write_text(json.dumps(history))
    edit(model, lambda about: None)
    refused(model, "no usable model folder")


# ---- calibration


@pytest.mark.parametrize(("count", "level"), [(9, 0.9), (19, 0.9), (30, 0.75), (4, 0.8)])
def test_a_threshold_keeps_its_promise(count: int, level: float) -> None:
    """Over 4,000 simulated fits, one new row each: hits are Binomial(4000, k / (n + 1)) exactly.

    Mutants: the quantile of n rather than n + 1 scores; the score below; the mean of two.
    """
    scores = Stream(derive(7, count)).normal((4000, count + 1)).abs().double()
    ordered = scores[:, :-1].sort(1).values.tolist()
    hits = sum(
        new <= threshold(one, level)
        for one, new in zip(ordered, scores[:, -1].tolist(), strict=True)
    )
    chance = math.ceil((count + 1) * level - 1e-9) / (count + 1)
    assert within(hits, 4000, chance)


@pytest.mark.parametrize(("count", "level"), [(8, 0.9), (4, 0.81), (9, 0.0), (9, 1.0), (9, -0.5)])
def test_a_level_that_cannot_be_promised(count: int, level: float) -> None:
    with pytest.raises(SettingError, match=f"{count} validation rows"):
        threshold([0.1 * place for place in range(count)], level)


def simulated(count: int, key: int) -> pd.DataFrame:
    """Noise whose spread grows with x."""
    stream = Stream(key)
    x, z = stream.uniform((count,)).double().numpy(), stream.normal((count,)).double().numpy()
    return pd.DataFrame({"x": x, "y": 3 * x + (0.2 + x) * z})


def test_intervals_hold_the_truth_of_simulated_rows() -> None:
    """Of 2,000 new rows, beside 300 that set the threshold: as many as 90 % promises, within what
    both samples explain but once in a million fits (4.9 standard errors).

    Mutants: scores of the rows that were trained on; a std without the noise; scores of draws of
    another temperature or unit.
    """
    table, new = simulated(300, 1), simulated(2000, 2)
    schema = infer_schema(table, "y")
    search = finished(Search(table, encode_target(table["y"], schema), schema, budget=600, seed=0))
    model = search.model()
    found = uncertainty.calibrate(search, model.scale, 0, seed=0, most=1000)
    reader = Reader(model, found)
    said = reader.say(model.encode(new), 50, key=5)
    for level in (0.5, 0.9):
        reach = reader.limit(level) * said.total
        held = float((np.abs(said.mean[:, 0] - new.y.to_numpy()) <= reach).mean())
        chance = math.sqrt(level * (1 - level) * (1 / 300 + 1 / 2000))
        assert abs(held - level) < 4.9 * chance


def test_a_calibration_is_of_validation_rows() -> None:
    """The noise is near that of the simulation, which training rows would understate."""
    table = simulated(400, 3).assign(y=lambda frame: 3 * frame.x)
    noisy = table.assign(y=table.y + 0.5 * Stream(9).normal((400,)).double().numpy())
    schema = infer_schema(noisy, "y")
    search = finished(Search(noisy, encode_target(noisy["y"], schema), schema, budget=800))
    found = uncertainty.calibrate(search, search.model().scale, 0, seed=0, most=1000)
    assert found.rows == 400 and len(found.scores) == 400
    assert 0.42 < found.noise < 0.58  # 4 standard errors of a deviation of 400 rows are 0.07


def test_a_calibration_does_not_depend_on_the_unit() -> None:
    """Mutants: squares of 1e200, or of 1e-200; a noise in the unit of the networks."""
    scores = []
    for unit in (1.0, 2.0**600, 2.0**-600):
        table = simulated(80, 4)
        table["y"] *= unit
        schema = infer_schema(table, "y")
        search = finished(Search(table, encode_target(table["y"], schema), schema, budget=400))
        found = uncertainty.calibrate(search, search.model().scale, 0, seed=0, most=1000)
        scores.append((found.noise / unit, *found.scores))
    assert np.allclose(scores[1], scores[0], rtol=1e-4)
    assert np.allclose(scores[2], scores[0], rtol=1e-4)


def test_perfect_draws_are_not_certain() -> None:
    """Mutant: a noise of 0, by which every score would be divided."""
    truth = torch.arange(9.0, dtype=torch.float64)
    assert uncertainty._noise(truth.expand(5, 9), truth) > 0


def test_time_that_is_short_samples_fewer_rows() -> None:
    assert rows_within(None, 10**6) == rows_within(10**4, 10**5) == 1000
    assert rows_within(0.001, 10**6) == 50
    for cap in (10.0, 60.0):
        rows = rows_within(cap, 10**5)
        assert 50 < rows < 1000
        assert 0.09 * cap < seconds_of(rows, 10**5) <= 0.1 * cap


# ---- made-up rows


def test_shuffled_rows_keep_every_column_and_no_row() -> None:
    frame = pd.DataFrame({"a": range(50), "b": range(50), "c": ["x", "y"] * 25, "y": 0.5})
    schema = infer_schema(
        frame.assign(y=np.linspace(0, 1, 50)), "y", types={"a": "number", "b": "number"}
    )
    ((_, _, made),) = uncertainty._permuted(frame, schema, seed=0)
    for name in frame:
        assert sorted(made[name]) == sorted(frame[name])
    assert (made.a != made.b).mean() > 0.8


def test_far_rows_lie_beyond_all_that_training_saw() -> None:
    train = pd.DataFrame({"a": [1.0, 3.0, np.nan] * 9, "c": ["x", "y", "z"] * 9})
    train["y"] = np.linspace(0, 1, 27)
    schema = infer_schema(train, "y")
    ((_, _, made),) = uncertainty._far(train, train, schema, seed=0)
    assert set(made.a) == {5.0, -1.0}
    assert list(made.c) == list(train.c)
    words = train.drop(columns="a")
    assert not list(uncertainty._far(words, words, infer_schema(words, "y"), seed=0))


# ---- estimators


def test_an_estimator_samples_as_the_command_does(fitted: Path, priced: Path) -> None:
    people = pd.read_csv(fitted.parent / "people.csv")
    drawn = load(fitted).sample(people.drop(columns="colour"), draws=20, random_state=3)
    assert isinstance(drawn, Draws) and drawn.count == 20 and drawn.outputs == "probabilities"
    found = sampled(fitted, "--seed", 3)
    assert np.allclose(drawn.entropy.numpy(), numbers(found, "entropy"), rtol=1e-9)
    values = load(priced).sample(people.drop(columns="price"), draws=20, random_state=0)
    std = (values.epistemic + values.aleatoric).sqrt().numpy()
    assert np.allclose(std, numbers(sampled(priced), "std"), rtol=1e-9)


def test_the_classes_of_draws_are_those_of_the_probabilities() -> None:
    X = np.linspace(-1, 1, 60).reshape(-1, 1)
    model = DropoutClassifier(budget=900).fit(X, np.where(X[:, 0] > 0, "up", "down"))
    drawn = model.sample([[-0.9], [0.9]], draws=10)
    assert [model.classes_[code] for code in drawn.mean.argmax(-1)] == ["down", "up"]


def test_samples_survive_the_folder(tmp_path: Path) -> None:
    X = np.linspace(-1, 1, 60).reshape(-1, 1)
    model = DropoutRegressor(budget=900, random_state=5).fit(X, 3 * X[:, 0])
    model.save(tmp_path / "m")
    drawn, again = (one.sample(X, draws=7) for one in (model, load(tmp_path / "m")))
    assert torch.equal(drawn.samples, again.samples)
    assert torch.equal(drawn.aleatoric, again.aleatoric)
    with pytest.raises(SettingError, match="2 draws or more"):
        model.sample(X, draws=1)


def still(model: DropoutRegressor, networks: int) -> DropoutRegressor:
    """The model with its first networks alone, and without dropout."""
    tensors, description = model.model_.state()
    tensors = {name: value[:networks] for name, value in tensors.items()}
    description |= {"shares": [1 / networks] * networks, "rates": [[0.0, 0.0]] * networks}
    model.model_ = type(model.model_).restore(tensors, description)
    return model


def test_networks_without_dropout_are_the_draws_and_that_is_said() -> None:
    X = np.linspace(-1, 1, 60).reshape(-1, 1)
    model = still(DropoutRegressor(budget=900).fit(X, 3 * X[:, 0]), 3)
    with pytest.warns(DropkitWarning, match="networks without dropout"):
        drawn = model.sample(X, draws=9)
    assert len(torch.unique(drawn.samples, dim=0)) == 3
    turns = torch.tensor(order([1 / 3] * 3, 9))
    for place in range(3):
        of_one = drawn.samples[turns == place]
        assert torch.equal(of_one, of_one[:1].expand_as(of_one))


def test_a_single_network_without_dropout_is_refused() -> None:
    X = np.linspace(-1, 1, 60).reshape(-1, 1)
    model = still(DropoutRegressor(budget=900).fit(X, 3 * X[:, 0]), 1)
    with pytest.raises(SettingError, match="single network without dropout"):
        model.sample(X)


def test_a_fit_without_rows_set_aside_is_calibrated(tmp_path: Path, people: Path) -> None:
    ran = fit(people, "price", "--out", tmp_path / "m", "--test-size", 0)
    assert ran.code == 0, ran.err
    found = folder.load(tmp_path / "m").fit.uncertainty
    assert found is not None and found.rows == () and found.calibration.rows == 80
    assert dropkit("predict", tmp_path / "m", people, "--draws", 5).code == 0


def test_a_model_that_cannot_differ_is_not_sampled(priced: Path) -> None:
    stored = folder.load(priced)
    tensors, description = stored.model.state()
    one = {name: value[:1] for name, value in tensors.items()}
    model = type(stored.model).restore(one, {**description, "shares": [1.0], "rates": [[0.0, 0.0]]})
    nothing: Any = None
    assert uncertainty.uncertainty(model, nothing, nothing, None, 0) is None
    assert replace(stored.fit, uncertainty=None).uncertainty is None
