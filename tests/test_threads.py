"""With how many threads a fit and a prediction compute, and what is left of that afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dropkit.apps import devices, folder
from dropkit.apps.predicting import predictions


@pytest.mark.parametrize(
    ("told", "threads"),
    [("", 4), ("1", 1), ("3", 3), ("9", 4), ("2,1", 2), (" 2 ", 2), ("0", 4), ("-1", 4), ("x", 4)],
)
def test_a_fit_takes_no_more_than_it_is_told(
    told: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: all cores, whatever OMP_NUM_THREADS says."""
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert devices.usual_threads() == threads


def test_a_prediction_computes_as_the_fit_did(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutants: as many as OMP_NUM_THREADS says; two threads that are left behind."""
    held = folder.load(fitted)
    two = replace(held, fit=replace(held.fit, threads=2))
    seen: list[int] = []
    before = torch.get_num_threads()
    monkeypatch.setattr(folder, "load", lambda _: two)
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    predictions(fitted, str(fitted.parent / "people.csv"))
    assert seen == [2, before]
