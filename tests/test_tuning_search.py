"""A search says of each trial what became of it, is exact to the trial, and can be continued."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import dropkit
from dropkit.apps.tuning.results import Search, Tried
from dropkit.apps.tuning.trial import Trial
from dropkit.errors import SettingError, StudyError, TrialStopped
from dropkit.records import Knob, Space
from tuning_objectives import SPACE, bowl

pytest.importorskip("optuna")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "search"


def tune(objective: Any, out: Path, trials: int | None = 6, **options: Any) -> Search:
    options.setdefault("space", SPACE)
    return dropkit.search(objective, trials=trials, out=out, **options)


# ---- scores


def test_a_bowl_is_descended(out: Path) -> None:
    found = tune(bowl, out, 30)
    assert [trial.number for trial in found.trials] == list(range(30))
    assert found.best is not None
    assert found.best.score == min(trial.score or 0 for trial in found.trials)
    assert abs(found.best.params["x"] - 0.3) < 0.05


def test_more_is_better_where_it_is_said(out: Path) -> None:
    found = tune(lambda trial: -bowl(trial), out, 10, direction="maximize")
    assert found.best is not None
    assert found.best.score == max(trial.score or -9 for trial in found.trials)


def test_a_score_may_come_with_its_error_or_by_reports(out: Path) -> None:
    import torch

    def objective(trial: Trial) -> Any:
        if trial.number == 0:
            return 0.5, 0.1
        if trial.number == 1:
            return torch.tensor(0.25)
        trial.report(0.9, 1)
        trial.report(0.75, 5, error=0.2)
        return None

    found = tune(objective, out, 3, stopping=None)
    told = [(trial.score, trial.error) for trial in found.trials]
    assert told == [(0.5, 0.1), (0.25, None), (0.75, 0.2)]
    assert found.trials[2].curve == ((1, 0.9, None), (5, 0.75, 0.2))


def test_what_is_not_to_be_told_from_the_best_is_said(out: Path) -> None:
    scores = [(0.50, 0.1), (0.45, 0.1), (0.90, 0.1)]
    found = tune(lambda trial: scores[trial.number], out, 3)
    assert [trial.number for trial in found.tied] == [0]
    repeated = tune(
        lambda trial: [1.0, 1.2, 1.1][trial.number], out / "b", 3, space={"x": (0.5, 0.5)}
    )
    assert repeated.noise == pytest.approx(0.1)


# ---- failures


def failing(trial: Trial) -> Any:
    match trial.number:
        case 1:
            raise ZeroDivisionError("by nought")
        case 2:
            return float("nan")
        case 3:
            return math.inf
        case 4:
            return "good"
        case 5:
            return None
        case 6:
            raise SystemExit(3)
        case 7:
            trial.report(float("nan"), 3)
        case 8:
            return 0.5, -1.0
    return bowl(trial)


def test_what_fails_is_recorded_with_its_reason_and_the_search_goes_on(out: Path) -> None:
    found = tune(failing, out, 12)
    assert [trial.number for trial in found.of("failed")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [trial.number for trial in found.of("done")] == [0, 9, 10, 11]
    why = {trial.number: trial.why for trial in found.of("failed")}
    assert why[1] == "ZeroDivisionError: by nought"
    assert "in failing" in found.trials[1].traceback
    assert why[2] == "the score is nan"
    assert why[3] == "the score is inf"
    assert "got 'good'" in why[4]
    assert "had reported nothing" in why[5]
    assert why[6] == "SystemExit: 3"
    assert why[7] == "the score is nan at step 3"
    assert "standard error of 0 or more; got -1.0" in why[8]


def test_nothing_but_failures_stops_the_search_and_shows_the_last(out: Path) -> None:
    def broken(trial: Trial) -> float:
        raise RuntimeError("no such file")

    with pytest.raises(StudyError, match=r"(?s)none of the first 3.*no such file.*in broken"):
        tune(broken, out, 50, failures=3)

    def corrected(trial: Trial) -> float:  # what failed before is forgiven
        return math.nan if trial.number == 3 else bowl(trial)

    found = tune(corrected, out, 7, resume=True, failures=3)
    assert [trial.place for trial in found.trials] == ["failed"] * 4 + ["done"] * 3


def test_fewer_trials_than_failures_are_enough(out: Path) -> None:
    with pytest.raises(StudyError, match="none of the first 2"):
        tune(lambda trial: math.nan, out, 2)


def test_failures_after_a_success_are_borne(out: Path) -> None:
    found = tune(lambda trial: 0.0 if trial.number == 0 else math.nan, out, 12)
    assert len(found.of("failed")) == 11


def test_a_disk_that_fills_while_weights_are_kept_stops_the_search(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dropkit.apps.tuning import keeping
    from dropkit.errors import FolderError

    def full(path: Path, content: bytes) -> None:
        raise FolderError(f"cannot write to {path}: no space left on device")

    def objective(trial: Trial) -> float:
        if trial.number == 2:
            monkeypatch.setattr(keeping, "write_file", full)
        trial.keep(b"weights")
        return bowl(trial)

    with pytest.raises(FolderError, match="no space left"):
        tune(objective, out)
    monkeypatch.undo()
    found = tune(bowl, out, resume=True)
    assert len(found.of("done")) == 6
    assert found.trials[2].attempts == 2


# ---- stopping


def test_a_trial_that_is_told_to_stop_may_return_or_raise(out: Path) -> None:
    def objective(trial: Trial) -> float:
        bad = trial.number >= 8
        for step in range(30):
            trial.report((5.0 if bad else 1.0) + 0.001 * trial.number, step)
            if trial.should_stop():
                if trial.number == 8:
                    raise TrialStopped
                return 0.0
        return 1.0

    found = tune(objective, out, 10)
    assert [trial.number for trial in found.of("stopped")] == [8, 9]
    assert all("without hope at step 1" in trial.why for trial in found.of("stopped"))
    assert found.best is not None
    assert found.best.number < 8
    again = tune(objective, out / "never", 10, stopping=None)
    assert len(again.of("done")) == 10


def test_time_ends_a_search(out: Path) -> None:
    def endless(trial: Trial) -> float:
        step = 0
        while not trial.should_stop():
            trial.report(1.0, step := step + 1)
        return 0.0

    found = tune(endless, out, None, seconds=0.5)
    assert found.ended == "time"
    assert found.trials[-1].place == "stopped"
    assert found.trials[-1].why == "the time is up"


def test_someone_may_ask_to_stop(out: Path) -> None:
    found: list[Search] = []
    last = tune(bowl, out, watch=found.append, stop=lambda: len(found) > 4)
    assert last.ended == "stopped"
    assert 0 < len(last.of("done")) < 6
    assert len(tune(bowl, out, resume=True).of("done")) == 6


def test_what_is_broken_off_is_made_again_when_the_search_goes_on(out: Path) -> None:
    def interrupted(trial: Trial) -> float:
        if trial.number == 3:
            raise KeyboardInterrupt
        return bowl(trial)

    with pytest.raises(KeyboardInterrupt):
        tune(interrupted, out)
    seen: list[Trial] = []

    def watched(trial: Trial) -> float:
        seen.append(trial)
        return bowl(trial)

    found = tune(watched, out, resume=True)
    assert [(trial.number, trial.again) for trial in seen] == [(3, True), (4, False), (5, False)]
    assert [trial.place for trial in found.trials] == ["done"] * 6
    assert [trial.attempts for trial in found.trials] == [1, 1, 1, 2, 1, 1]


# ---- the same search


def test_the_same_key_asks_the_same_and_goes_on_as_if_it_had_not_stopped(out: Path) -> None:
    """Caught: a sampler whose draws depend on how often the search was called."""
    whole = tune(bowl, out / "a", 16)
    tune(bowl, out / "b", 5)
    tune(bowl, out / "b", 12, resume=True)
    parts = tune(bowl, out / "b", 16, resume=True)

    def asked(found: Search) -> list[tuple[dict[str, Any], int]]:
        return [(trial.params, trial.seed) for trial in found.trials]

    assert asked(whole) == asked(parts)
    assert asked(tune(bowl, out / "c", 16, key=1)) != asked(whole)
    assert len({trial.seed for trial in whole.trials}) == 16


def test_a_study_with_trials_is_not_continued_unasked(out: Path) -> None:
    tune(bowl, out, 2)
    with pytest.raises(StudyError, match=r"has 2 trials\. Resume it, or name another place"):
        tune(bowl, out, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"space": {"y": (0.0, 1.0)}}, "another model or space: it has x; it lacks y"),
        ({"space": {"x": (0.0, 2.0)}}, "the range of x is another"),
        ({"direction": "maximize"}, "expected to minimize"),
    ],
)
def test_a_study_of_another_search_is_refused(
    out: Path, options: dict[str, Any], said: str
) -> None:
    tune(bowl, out, 2)
    with pytest.raises(StudyError, match=said):
        tune(lambda trial: 0.0, out, 4, resume=True, **options)


def test_where_a_range_comes_from_is_no_matter(out: Path) -> None:
    tune(bowl, out, 2)
    reasoned = Space((Knob("x", 0.0, 1.0, reason="the guide", default=0.5),))
    assert len(tune(bowl, out, 4, resume=True, space=reasoned).trials) == 4


def test_a_study_of_strangers_is_refused(out: Path) -> None:
    import optuna

    from dropkit.apps.tuning.storage import calm, open_storage

    out.mkdir()
    storage = open_storage(str(out / "study.jsonl"))
    with calm():
        stranger = optuna.create_study(study_name="search", storage=storage)
        stranger.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="not of dropkit's making"):
        tune(bowl, out)


def test_an_unreachable_storage_is_asked_again_and_then_said(out: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StudyError, match=r"postgresql://me:\*\*\*@127.0.0.1:1/no has not answered"):
        tune(bowl, out, storage="postgresql://me:secret@127.0.0.1:1/no", patience=0.5)


def test_a_cluster_that_is_not_there_is_said_at_once(out: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(StudyError, match=r"no cluster of Ray at 127.0.0.1:1: .*refused"):
        tune(bowl, out, storage=str(out / "s"), engine="ray", address="127.0.0.1:1")


# ---- knobs


def test_optional_knobs_are_two_questions(out: Path) -> None:
    knobs = {
        "hidden": Knob("hidden", 0.05, 0.6, kind="rate", optional=True),
        "decay": Knob("decay", 1e-6, 1e-1, log=True, optional=True),
        "optimizer": ["adamw", "sgd"],
        "layers": (1, 4),
    }
    seen: list[Trial] = []

    def objective(trial: Trial) -> float:
        seen.append(trial)
        return trial["hidden"] + trial["decay"]

    found = tune(objective, out, 40, space=knobs)
    for name, low in (("hidden", 0.05), ("decay", 1e-6)):
        values = [trial.params[name] for trial in found.trials]
        assert 0.0 in values
        assert all(value == 0.0 or value >= low for value in values)
        assert len(set(values)) > 5
    assert all(trial.rates == {"hidden": trial["hidden"]} for trial in seen)
    assert {trial.params["optimizer"] for trial in found.trials} == {"adamw", "sgd"}
    assert all(isinstance(trial.params["layers"], int) for trial in found.trials)


def test_defaults_are_tried_first(out: Path) -> None:
    knobs = Space(
        (
            Knob("x", 0.0, 1.0, default=0.25),
            Knob("decay", 1e-6, 1e-1, log=True, optional=True, default=0.0),
        )
    )
    found = tune(bowl, out, 3, space=knobs)
    assert found.trials[0].params == {"x": 0.25, "decay": 0.0}


def test_an_unknown_knob_is_an_error_of_the_objective(out: Path) -> None:
    with pytest.raises(StudyError, match="expected one of x; got 'lr'"):
        tune(lambda trial: trial["lr"], out)


# ---- weights


def test_the_weights_of_the_best_are_kept_and_no_others(out: Path) -> None:
    import torch
    from safetensors.torch import load_file

    def objective(trial: Trial) -> float:
        shared = torch.full((3,), float(trial.number))
        trial.keep({"a": shared, "tied": shared, "part": torch.arange(6.0).reshape(2, 3).T})
        if trial.number == 5:
            raise RuntimeError
        return bowl(trial)

    found = tune(objective, out, 8, keep=2)
    best = {trial.number for trial in found.ranked[:2]}
    assert set(found.weights) == best
    assert len(list((out / "weights").iterdir())) == 2
    for number, file in found.weights.items():
        assert load_file(file)["tied"].tolist() == [number] * 3


def test_no_object_of_a_stranger_is_kept(out: Path) -> None:
    found = tune(
        lambda trial: trial.keep({"steps": 3}) or 1.0 if trial.number == 1 else 0.0, out, 2
    )
    assert "expected a dictionary of tensors; got 'steps': int" in found.trials[1].why


# ---- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": None}, "expected an end"),
        ({"trials": 0}, "trials: expected a whole number"),
        ({"seconds": -1.0}, "seconds: expected seconds above 0"),
        ({"direction": "down"}, "direction: expected minimize or maximize"),
        ({"workers": 0}, "workers: expected"),
        ({"engine": "spark"}, "engine: expected local or ray"),
        ({"engine": "ray"}, "expected a storage that all nodes reach"),
        ({"address": "here"}, "address: expected with"),
        ({"workers": 2, "objective": lambda trial: 0.0}, "at the top level of a module"),
        ({"objective": 3}, "expected a function of a trial; got 3"),
        ({"objective": "tuning_objectives:bowel"}, "has no bowel; it has .*bowl"),
        ({"space": {}}, "at least one knob"),
        ({"space": {"x": (1.0, 0.0)}}, "low <= high"),
        ({"space": {"x": (0.0, 1.0, "log")}}, "low above 0 where log is set"),
        ({"space": {"x": (0.0, 1.0, "lin")}}, "expected a Knob"),
        ({"space": {"x": Knob("x", 0.0, 1.0, kind="rate")}}, "rates from 0 to below 1"),
        ({"space": {"x": Knob("x", 0, 1.5, kind="int")}}, "whole numbers"),
        ({"space": {"x": ["a", "a"]}}, "each once"),
        ({"space": {"x": Knob("y")}}, "a knob called 'x'"),
        ({"space": Space((Knob("x"), Knob("x")))}, "'x' twice"),
        ({"space": {"x": Knob("x", 0.0, 1.0, default=2.0)}}, "a default that it can be set to"),
        ({"space": [1, 2]}, "space: expected a dropkit Space"),
        ({"storage": "nosuch://x/y"}, "storage: expected a file, or a URL"),
    ],
)
def test_what_cannot_be_searched_is_said(out: Path, options: dict[str, Any], said: str) -> None:
    options = {"trials": 3, "objective": bowl, **options}
    with pytest.raises(SettingError, match=said):
        tune(options.pop("objective"), out, options.pop("trials"), **options)


def test_reports_go_forward(out: Path) -> None:
    def objective(trial: Trial) -> float:
        trial.report(1.0, 3)
        trial.report(1.0, 3)
        return 0.0

    with pytest.raises(StudyError, match="expected a whole step above 3; got 3"):
        tune(objective, out, 1)


def test_a_space_goes_through_json_and_knows_itself() -> None:
    space = Space(
        (
            Knob("lr", 1e-5, 1e-1, log=True, default=1e-3, reason="usual"),
            Knob("act", kind="choice", choices=("relu", None, 3), optional=True),
        )
    )
    again = Space.from_dict(json.loads(json.dumps(space.as_dict())))
    assert again == space
    assert again.fingerprint == space.fingerprint == Space(space.knobs[::-1]).fingerprint
    assert space.fingerprint != Space(space.knobs[:1]).fingerprint


def test_results_are_values() -> None:
    assert Tried(0, "done", {}, 1, score=1.0) == Tried(0, "done", {}, 1, score=1.0)
    empty = Search(Space(()), "minimize", ())
    assert (empty.best, empty.noise, empty.tied) == (None, None, ())
