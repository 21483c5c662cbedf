"""What is left when a fit is interrupted or killed, and how it goes on."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest

from command import FILES, dropkit, files, fit
from dropkit.apps import fitting
from dropkit.records import Progress
from dropkit.training.search import Search


class Killed(BaseException):
    """As sudden as a kill, for a process that goes on to look at what is left."""


def interfere(monkeypatch: pytest.MonkeyPatch, after: int, act: object) -> None:
    """Call `act` before advance number `after` of a search; each is followed by a checkpoint."""
    real, count = Search.advance, [0]

    def advance(search: Search) -> Progress:
        count[0] += 1
        if count[0] == after and callable(act):
            act()
        return real(search)

    monkeypatch.setattr(Search, "advance", advance)
    monkeypatch.setattr("dropkit.training.search._SLICE", 0.01)  # many short advances
    monkeypatch.setattr(fitting, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(fitting, "CHECKPOINT_APART", 0.0)


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("after", [2, 5])
def test_a_killed_run_resumes_to_the_same_bits(
    after: int, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(people, "colour", "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        interfere(patch, after, kill)
        with pytest.raises(Killed):
            fit(people, "colour", "--out", tmp_path / "killed")
    assert files(tmp_path / "killed") == {".search"}
    ran = dropkit("fit", "--resume", tmp_path / "killed")
    assert ran.code == 0, ran.err
    assert files(tmp_path / "killed") == FILES
    for name in ("model.safetensors", "test_predictions.csv"):
        whole, resumed = ((tmp_path / run / name).read_bytes() for run in ("whole", "killed"))
        assert whole == resumed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_can_go_on(
    number: signal.Signals, tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(people, "price", "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        interfere(patch, 3, lambda: os.kill(os.getpid(), number))
        ran = fit(people, "price", "--out", tmp_path / "model")
    assert ran.code == 130
    assert "Continue with: dropkit fit --resume" in ran.err
    assert files(tmp_path / "model") == {*FILES, ".search"}
    assert dropkit("predict", tmp_path / "model", people).code == 0
    assert dropkit("fit", "--resume", tmp_path / "model").code == 0
    assert files(tmp_path / "model") == FILES
    whole, resumed = (
        (tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "model")
    )
    assert whole == resumed


def test_a_second_interrupt_aborts(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    interfere(monkeypatch, 1, twice)
    ran = fit(people, "price", "--out", tmp_path / "model")
    assert ran.code == 130
    assert ran.err.rstrip().endswith("dropkit: interrupted.")
    assert not (tmp_path / "model").exists()


def test_the_old_handlers_come_back(tmp_path: Path, people: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert fit(people, "price", "--out", tmp_path / "model").code == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_a_checkpoint_that_does_not_fit_on_the_disk_costs_only_itself(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise fitting.FolderError("no space left on device")

    interfere(monkeypatch, 0, None)
    monkeypatch.setattr(fitting.checkpoint.saving, "write_file", full)
    ran = fit(people, "price", "--out", tmp_path / "model")
    assert ran.code == 0, ran.err
    assert "the search goes on" in ran.err
    assert files(tmp_path / "model") == FILES  # mutant: an empty .search is not ours


def test_a_checkpoint_that_does_not_fit_beside_the_model_costs_only_itself(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: an offer to continue what cannot be continued."""

    def full(*_: object) -> None:
        raise fitting.FolderError("no space left on device")

    monkeypatch.setattr(fitting.checkpoint, "write", full)
    ran = fit(people, "price", "--out", tmp_path / "model", "--time", "0.01s")
    assert ran.code == 0
    assert "cannot be continued" in ran.err and "Continue with" not in ran.err
    assert dropkit("predict", tmp_path / "model", people).code == 0


def test_a_kill_while_the_model_is_saved_leaves_the_search(
    unfinished: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: a folder that is replaced first, and gets its unfinished search afterwards."""
    with monkeypatch.context() as patch:
        interfere(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        patch.setattr(fitting.checkpoint, "write", lambda *_: kill())
        with pytest.raises(Killed):
            dropkit("fit", "--resume", unfinished)
    assert files(unfinished) == {".search"}
    assert dropkit("fit", "--resume", unfinished).code == 0


@pytest.fixture
def unfinished(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a search that was killed."""
    with monkeypatch.context() as patch:
        interfere(patch, 3, kill)
        with pytest.raises(Killed):
            fit(people, "colour", "--out", tmp_path / "unfinished")
    return tmp_path / "unfinished"


def test_an_unfinished_search_is_not_thrown_away(unfinished: Path, people: Path) -> None:
    before = {path.name: path.read_bytes() for path in (unfinished / ".search").iterdir()}
    ran = fit(people, "colour", "--out", unfinished)
    assert ran.code == 2
    assert f"dropkit fit --resume {unfinished}" in ran.err
    assert {path.name: path.read_bytes() for path in (unfinished / ".search").iterdir()} == before


def test_a_model_and_its_search_are_replaced_and_said(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "the model"
    assert "Continue with" in fit(people, "price", "--out", place, "--time", "0.01s").err
    ran = fit(people, "price", "--out", place)
    assert ran.code == 0
    assert "replacing the model" in ran.err
    assert files(place) == FILES


def test_what_a_cap_left_is_spent_by_the_command_that_is_offered(
    tmp_path: Path, people: Path
) -> None:
    """Mutant: a cap that holds for ever, so that each resumption ends where it began."""
    ran = fit(people, "price", "--out", tmp_path / "the model", "--time", "0.01s")
    assert "It was stopped before any network could be compared" in ran.err
    offered = next(line for line in ran.err.splitlines() if line.startswith("Continue with: "))
    ran = dropkit(*shlex.split(offered)[3:])
    assert ran.code == 0
    assert "stopped by" not in ran.err and files(tmp_path / "the model") == FILES


def test_resume_refuses_a_table_that_changed(unfinished: Path, people: Path) -> None:
    people.write_text(people.read_text().replace("Oslo", "Rome"))
    ran = dropkit("fit", "--resume", unfinished)
    assert ran.code == 2
    assert "its content changed" in ran.err


def test_resume_takes_the_table_from_elsewhere(unfinished: Path, people: Path) -> None:
    moved = people.rename(people.with_name("moved.csv"))
    assert dropkit("fit", "--resume", unfinished).code == 2
    assert dropkit("fit", moved, "--target", "colour", "--resume", unfinished).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", 1], "--seed cannot be changed"),
        (["--type", "city=category"], "--type cannot be changed"),
        (["--target", "price"], "expected --target colour"),
    ],
)
def test_resume_refuses_other_settings(unfinished: Path, options: list[object], words: str) -> None:
    ran = dropkit("fit", "--resume", unfinished, *options)
    assert ran.code == 2
    assert words in ran.err


@pytest.mark.parametrize("how", ["cut", "altered", "of another version"])
def test_resume_refuses_a_damaged_checkpoint(unfinished: Path, how: str) -> None:
    index = unfinished / ".search" / "search.json"
    text = index.read_text()
    if how == "cut":
        index.write_text(text[: len(text) // 2])
    elif how == "altered":
        index.write_text(text.replace('"seed": 0', '"seed": 1'))
    else:
        index.write_text(text.replace('"dropkit": "', '"dropkit": "9.'))
    ran = dropkit("fit", "--resume", unfinished)
    assert ran.code == 2
    assert "Start anew without --resume" in ran.err
