"""The space of a model's regularization, and a search of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dropkit
from dropkit.errors import SettingError
from dropkit.planning.discovering import discover


def net(first: float = 0.5, second: float = 0.5) -> nn.Sequential:
    drops = nn.Dropout(first), nn.Dropout(second)
    return nn.Sequential(
        *(nn.Linear(4, 8), nn.ReLU(), drops[0]), *(nn.Linear(8, 8), nn.ReLU(), drops[1]),
        nn.Linear(8, 2),
    )  # fmt: skip


X = torch.ones(2, 4)


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.0, 0.07), (0.95, 0.5), (0.01, 0.99)])
def test_the_search_may_begin_where_the_model_is(
    rates: tuple[float, float], tmp_path: Path
) -> None:
    """Caught: a mean below the range, where some sites are at 0."""
    seen: list[dict[str, float]] = []

    def objective(trial: Any) -> float:
        seen.append(trial.rates)
        return 0.0

    dropkit.search(objective, model=net(*rates), inputs=[X], trials=1, out=tmp_path)
    mean = sum(rates) / 2
    assert seen[0]["hidden"] == pytest.approx(mean, abs=0.06)
    assert (seen[0]["hidden"] == 0) == (mean == 0)


def test_a_plan_is_a_space_and_takes_what_is_tried(tmp_path: Path) -> None:
    plan = dropkit.rates(net(), X)

    def objective(trial: Any) -> float:
        plan.update(trial.rates)
        with plan.applied(prove=False):
            assert plan.model[2].p == trial.rates["hidden"]
        return abs(trial.rates["hidden"] - 0.2)

    found = dropkit.search(objective, space=plan, trials=12, out=tmp_path)
    assert found.space == discover(plan)
    assert len(found.trials) == 12


def test_labels_are_smoothed_where_there_are_classes(tmp_path: Path) -> None:
    found = dropkit.search(
        lambda _: 0.0, model=net(), inputs=[X], classes=True, trials=1, out=tmp_path
    )
    assert "label_smoothing" in found.space.names


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "got neither"),
        ({"space": {"lr": (0.1, 1.0)}, "model": net()}, "got both"),
        ({"space": 3}, "the plan of a model, or a dictionary"),
    ],
)
def test_a_search_needs_one_of_both(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=says):
        dropkit.search(lambda _: 0.0, trials=1, out=tmp_path, **given)


@pytest.mark.parametrize("normed", [True, False])
def test_what_is_usual_is_as_recommended(normed: bool) -> None:
    """Mutant: a table of its own, in which convolutions beside batch norm are as others."""
    beside = nn.BatchNorm2d(4) if normed else nn.Identity()
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), beside, nn.ReLU(), nn.Dropout2d(0.1), nn.Flatten(),
                         nn.Linear(144, 2))  # fmt: skip
    (said,) = dropkit.recommend(conv, x := torch.ones(2, 1, 8, 8)).advice
    knob = next(iter(discover(dropkit.rates(conv, x))))
    assert f"usual: {said.low:g} to {said.high:g} for " in knob.reason
