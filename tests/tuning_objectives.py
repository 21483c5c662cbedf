"""Objectives that other processes import, and what the tests of the search share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dropkit.apps.tuning.results import Search
from dropkit.apps.tuning.trial import Trial

TESTS = Path(__file__).parent
SPACE: dict[str, Any] = {"x": (0.0, 1.0)}


def bowl(trial: Trial) -> float:
    return float((trial["x"] - 0.3) ** 2)


def slow_bowl(trial: Trial) -> float:
    """Notes where it runs, so that a test can count and kill."""
    note(trial, "began")
    time.sleep(float(os.environ.get("SLOW", "0.1")))
    note(trial, "ended")
    return bowl(trial)


def meets(trial: Trial) -> float:
    """Does not end before as many processes as MEET says have begun a trial."""
    note(trial, "began")
    deadline = time.monotonic() + 120
    while len({pid for *_, pid, _ in read(Path(os.environ["NOTES"]))}) < int(os.environ["MEET"]):
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.01)
    note(trial, "ended")
    return bowl(trial)


def note(trial: Trial, event: str) -> None:
    """One line in the file that the test named: appended at once, so that it survives a kill."""
    line = f"{event} {trial.number} {trial.seed} {os.getpid()} {int(trial.again)}\n"
    handle = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def hangs_at_2(trial: Trial) -> float:
    if trial.number == 2:
        time.sleep(600)
    return bowl(trial)


def dies_at_2(trial: Trial) -> float:
    """Once in number 2, and always in number 4."""
    if trial.number == 4 or (trial.number == 2 and not trial.again):
        os.kill(os.getpid(), signal.SIGKILL)
    return bowl(trial)


def dies(trial: Trial) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def search_elsewhere(code: str, **options: Any) -> subprocess.Popen[str]:
    """A process that runs this code after the usual imports."""
    head = "import dropkit, sys\nfrom tuning_objectives import *\n"
    path = os.pathsep.join([str(TESTS), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def read(notes: Path) -> list[tuple[str, int, int, int, bool]]:
    """What the trials noted: event, number, seed, process, whether it was made again."""
    found = []
    for line in notes.read_text().splitlines():
        event, number, seed, pid, again = line.split()
        found.append((event, int(number), int(seed), int(pid), again == "1"))
    return found


def check_exact(notes: Path, found: Search, trials: int) -> None:
    """Each number once to its end; a second attempt only where the first was cut off; same seed."""
    events = read(notes)
    assert [trial.number for trial in found.trials] == list(range(trials))
    ended = Counter(number for event, number, *_ in events if event == "ended")
    began = Counter(number for event, number, *_ in events if event == "began")
    assert all(trial.place in ("done", "failed") for trial in found.trials)
    for trial in found.trials:
        if trial.place == "done":
            assert ended[trial.number] >= 1
            assert began[trial.number] <= trial.attempts
        else:
            assert trial.attempts == 2, trial  # killed twice
        assert {seed for _, number, seed, *_ in events if number == trial.number} <= {trial.seed}


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
