"""`dropkit tune`: from a function in a file to a setting, and what is said on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command import dropkit

pytest.importorskip("optuna")

SOURCE = """
import time

SPACE = {"x": (0.0, 1.0)}
OTHER = {"x": (0.0, 1.0), "y": [1, 2]}

def objective(trial):
    if trial.number == 3:
        raise ValueError("no such file")
    return (trial["x"] - 0.3) ** 2

def slow(trial):
    time.sleep(0.3)
    return objective(trial)

def with_y(trial):
    return trial["x"] * trial["y"]

NUMBER = 3
"""

TOML = """
x = [0.1, 0.2]
decay = [1e-6, 1e-1, "log"]
optimizer = ["adamw", "sgd", "lion"]

["encoder.layer.0-5"]
kind = "rate"
low = 0.05
high = 0.3
optional = true
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_a_search_says_each_trial_and_the_best(mine: Path, tmp_path: Path) -> None:
    ran = dropkit("tune", f"{mine}:objective", "--trials", 6, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    lines = ran.err.splitlines()
    assert [line.split(":")[0].strip() for line in lines[:6]] == [f"trial {n}" for n in range(6)]
    assert "trial 3: failed: ValueError: no such file" in ran.err
    assert "Best of 5: trial" in ran.err
    assert "1 failed: ValueError: no such file." in ran.err
    assert "Next: " in ran.err
    assert (tmp_path / "out" / "study.jsonl").exists()


def test_a_search_goes_on_if_that_is_asked_for(mine: Path, tmp_path: Path) -> None:
    def tune(*options: object) -> tuple[int, str]:
        ran = dropkit("tune", f"{mine}:objective", "--out", tmp_path / "out", *options)
        return ran.code, ran.err

    assert tune("--trials", 2, "--quiet") == (0, "")
    code, said = tune("--trials", 4)
    assert code == 2
    assert "has 2 trials. Resume it" in said
    code, said = tune("--trials", 4, "--resume")
    assert code == 0
    assert "2 trials had ended before" in said
    assert "trial 2:" in said
    assert "trial 1:" not in said.split("Best")[0]


def test_workers_load_the_file_too(mine: Path, tmp_path: Path) -> None:
    ran = dropkit(
        "tune", f"{mine}:objective", "--trials", 6, "--workers", 2, "--out", tmp_path / "out"
    )
    assert ran.code == 0, ran.err
    assert "Best of 5" in ran.err


def test_a_space_may_stand_in_a_file_or_under_another_name(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(TOML)
    ran = dropkit(
        "tune", f"{mine}:objective", "--trials", 3, "--out", tmp_path / "a",
        "--space", tmp_path / "space.toml",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "encoder.layer.0-5 = " in ran.err
    ran = dropkit(
        "tune", f"{mine}:with_y", "--trials", 3, "--maximize", "--out", tmp_path / "b",
        "--space", f"{mine}:OTHER",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "y = " in ran.err


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[x]\nlow = 0\nhihg = 1", r"\[x\] has the field 'hihg'; expected choices"),
        ("[encoder.layer]\nlow = 0.0", r'A name with dots in it is quoted: \["encoder.layer"\]'),
        ("x = 3", "expected a Knob"),
        ("x = [", "is no TOML"),
        ("", "at least one knob"),
    ],
)
def test_a_space_that_is_none_is_said(mine: Path, tmp_path: Path, toml: str, said: str) -> None:
    import re

    (tmp_path / "space.toml").write_text(toml)
    ran = dropkit(
        "tune", f"{mine}:objective", "--trials", 3, "--space", tmp_path / "space.toml",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 2
    assert re.search(said, ran.err), ran.err


@pytest.mark.parametrize(
    ("objective", "options", "said"),
    [
        ("objective", (), "expected --trials, --time, or both"),
        ("objectiv", ("--trials", 3), "has no objectiv; it has objective"),
        ("NUMBER", ("--trials", 3), "to be a function of a trial; got a int"),
        ("objective", ("--time", "soon"), "expected a duration"),
        ("objective", ("--trials", 3, "--engine", "ray"), "a storage that all nodes reach"),
        ("objective", ("--trials", 3, "--space", "nothing"), "expected a space as file.toml"),
    ],
)
def test_what_cannot_be_searched_is_said(
    mine: Path, tmp_path: Path, objective: str, options: tuple[object, ...], said: str
) -> None:
    ran = dropkit("tune", f"{mine}:{objective}", "--out", tmp_path / "out", *options)
    assert ran.code == 2
    assert said in ran.err


def test_ctrl_c_ends_the_trials_that_run_and_stops(mine: Path, tmp_path: Path) -> None:
    """The whole group gets the signal, as from a terminal: workers let their parent decide."""
    out = tmp_path / "out"
    options = ["--trials", "40", "--workers", "2", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "dropkit", "tune", f"{mine}:slow", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "trial" in first
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 130, rest
    assert "Continue with: dropkit tune" in rest
    ran = dropkit("tune", f"{mine}:objective", "--trials", 40, "--resume", "--out", out)
    assert ran.code == 0, ran.err
    assert "made again" not in ran.err
    assert "Best of 39" in ran.err
