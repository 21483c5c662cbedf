"""The same study over a real PostgreSQL and a real cluster of Ray. Run by `make test-cluster`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dropkit
from cluster import Postgres, cluster, postgres
from tuning_objectives import (
    SPACE,
    TESTS,
    bowl,
    check_exact,
    kill,
    read,
    search_elsewhere,
    slow_bowl,
)

pytestmark = pytest.mark.skipif("CLUSTER" not in os.environ, reason="run by make test-cluster")

SEARCH = """
found = dropkit.search({objective}, space=SPACE, trials={trials}, storage={storage!r}, out={out!r},
    resume=True, {options})
print(len(found.trials), flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("NOTES", str(path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path_to = os.pathsep.join([str(TESTS), str(TESTS.parent / "src"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path_to)
    return path


def code(trials: int, storage: str, out: Path, study: str, options: str) -> str:
    options = f"study={study!r}, {options}"
    return SEARCH.format(
        objective="slow_bowl", trials=trials, storage=storage, out=str(out), options=options
    )


def test_workers_that_are_killed_lose_nothing_in_a_database(
    server: Postgres, tmp_path: Path, notes: Path
) -> None:
    parent = search_elsewhere(code(40, server.url, tmp_path, "killed", "workers=8"))
    shot: set[int] = set()
    while parent.poll() is None:
        began = [pid for event, *_, pid, _ in read(notes) if event == "began"]
        fresh = [pid for pid in began if pid not in shot]
        if fresh and len(shot) < 8 and len(began) > 4 * len(shot):
            time.sleep(0.03 * (len(shot) % 4))
            shot.add(fresh[-1])
            kill(fresh[-1])
        time.sleep(0.01)
    said, errors = parent.communicate()
    assert said.strip() == "40", errors
    assert len(shot) == 8
    found = dropkit.search(
        slow_bowl, space=SPACE, trials=40, storage=server.url, study="killed", out=tmp_path,
        resume=True,
    )  # fmt: skip
    check_exact(notes, found, 40)


def test_a_database_that_crashes_and_comes_back_costs_no_trial(
    server: Postgres, tmp_path: Path, notes: Path
) -> None:
    parent = search_elsewhere(code(30, server.url, tmp_path, "crash", "workers=4"))
    while len(read(notes)) < 20:
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.01)
    server.stop("immediate")
    time.sleep(2.0)
    server.start()
    said, errors = parent.communicate()
    assert said.strip() == "30", errors
    found = dropkit.search(
        slow_bowl, space=SPACE, trials=30, storage=server.url, study="crash", out=tmp_path,
        resume=True,
    )  # fmt: skip
    check_exact(notes, found, 30)
    assert [trial.place for trial in found.trials] == ["done"] * 30


def test_eight_that_begin_at_once_make_one_study(
    server: Postgres, tmp_path: Path, notes: Path
) -> None:
    """Of an empty database: tables, study and first trial are made by all of them at once."""
    other = server.url.replace("/postgres", "/template1")
    several = [search_elsewhere(code(24, other, tmp_path, "race", "")) for _ in range(8)]
    answers = [process.communicate() for process in several]
    assert [said.strip() for said, _ in answers] == ["24"] * 8, answers
    events = read(notes)
    assert len(events) == 48
    assert {number for _, number, *_ in events} == set(range(24))


def test_a_study_of_another_space_is_refused_there_too(server: Postgres, tmp_path: Path) -> None:
    options = {"trials": 2, "storage": server.url, "study": "other", "out": tmp_path}
    dropkit.search(bowl, space=SPACE, **options)  # type: ignore[arg-type]
    with pytest.raises(dropkit.StudyError, match="another model or space"):
        dropkit.search(bowl, space={"y": (0.0, 1.0)}, resume=True, **options)  # type: ignore[arg-type]


def test_nodes_of_a_cluster_come_and_go(
    server: Postgres, tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes: workers are shot, one node is killed, another joins; the count is exact."""
    monkeypatch.setenv("SLOW", "0.5")
    with cluster(os.environ, 2, 2) as ray:
        options = f"engine='ray', address={ray.address!r}"
        parent = search_elsewhere(code(60, server.url, tmp_path, "ray", options))
        for count in (10, 25, 40):
            while len(read(notes)) < count or read(notes)[-1][0] != "began":
                assert parent.poll() is None, parent.communicate()
                time.sleep(0.01)
            kill(read(notes)[-1][3])
        ray.kill(ray.nodes[1])
        ray.add(3)
        said, errors = parent.communicate()
        assert said.split()[-1] == "60", errors  # Ray itself prints too
        found = dropkit.search(
            slow_bowl, space=SPACE, trials=60, storage=server.url, study="ray", out=tmp_path,
            resume=True,
        )  # fmt: skip
        check_exact(notes, found, 60)
        assert any(trial.attempts == 2 for trial in found.trials)
        assert all(trial.place == "done" for trial in found.trials)
