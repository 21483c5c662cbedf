"""Several ranks that train one trial together: rank 0 decides, all obey, and none is waited for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch import multiprocessing as processes

import dropkit
from dropkit.apps.tuning.trial import Trial
from tuning_objectives import SPACE

pytest.importorskip("optuna")

RANKS = 3


def mean(value: float) -> float:
    """A number that all ranks agree on: it hangs where one of them does not come."""
    total = torch.tensor([value])
    distributed.all_reduce(total)
    return float(total) / distributed.get_world_size()


def obedient(trial: Trial) -> float:
    """Each rank asserts that it was given the same trial."""
    rank = distributed.get_rank()
    assert mean(trial["x"]) == pytest.approx(trial["x"], rel=1e-6)
    assert mean(trial.number) == trial.number
    if trial.number == 1 and rank == 1:
        raise RuntimeError("rank 1 has no memory left")
    if trial.number == 2 and rank == 0:
        raise RuntimeError("rank 0 has no memory left")
    if trial.number == 3 and rank == 2:
        return 0.0  # ends while the others go on
    bad = trial.number >= 12
    for step in range(12):
        trial.report((5.0 if bad else 1.0) + 100 * rank, step)
        if trial.should_stop():
            break
    else:
        assert not bad
    if trial.number != 3:
        mean(1.0)
    return trial["x"] + 100 * rank


def part(rank: int, out: str) -> None:
    file = Path(out) / "meeting"
    distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS
    )
    found = dropkit.search(obedient, space=SPACE, trials=14, out=Path(out) / "search")
    seen: Any = [(t.number, t.place, t.score, t.why, t.params) for t in found.trials]
    (Path(out) / f"rank{rank}.json").write_text(json.dumps(seen))
    distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over a file")
def test_ranks_train_the_same_trials_and_hear_the_same_end(tmp_path: Path) -> None:
    """Caught: ranks that ask for settings of their own, or that wait for one which has failed."""
    processes.spawn(part, (str(tmp_path),), RANKS)
    seen = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(RANKS)]
    assert seen[0] == seen[1] == seen[2]
    trials = seen[0]
    assert [trial[0] for trial in trials] == list(range(14))
    places = [trial[1] for trial in trials]
    assert places[1] == places[2] == "failed"
    assert "rank 1 failed: RuntimeError: rank 1 has no memory left" in trials[1][3]
    assert trials[2][3] == "RuntimeError: rank 0 has no memory left"
    assert places[12] == places[13] == "stopped"
    assert places[4:12] == ["done"] * 8
    assert all(trial[2] == trial[4]["x"] for trial in trials[4:12])  # rank 0's score
