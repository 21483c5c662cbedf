"""The checklist answers by running: the true network passes, and each fault fails its own line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dropkit.records import Check, Cocktail
from dropkit.training.checks import checklist
from dropkit.training.encoding import Encoded
from dropkit.training.metrics import Judge
from dropkit.training.network import Inputs, forward
from dropkit.training.outputs import Readout
from dropkit.training.population import Pace
from dropkit.training.rounds import Result, Round
from mutants import (
    mask_before_activation,
    mask_on_output,
    masked_prediction,
    unscaled,
)
from workbench import material, trained

FOLDS = [torch.arange(32)[::2], torch.arange(32)[1::2]]
COCKTAIL = Cocktail(hidden_dropout=0.3, weight_decay=0.1, learning_rate=1e-2)


@functools.cache
def result(cocktail: Cocktail = COCKTAIL, outputs: int = 3, train: bool = True) -> Result:
    stuff = material(outputs=outputs)
    truth: Tensor = stuff.truth[torch.cat(FOLDS)]
    judge = Judge("log_loss" if outputs > 1 else "rmse", truth, 0)
    readout = Readout(outputs) if outputs > 1 else Readout(0, low=-9.0, high=9.0)
    one = Round(stuff, readout, FOLDS, judge, [cocktail], ["grid"], Pace(20, 8, 20, 1.0), 0)
    if train:
        trained(one.population)
    return one.results()[0]


def checked(found: Result, outputs: int = 3) -> tuple[Check, ...]:
    stuff = material(outputs=outputs)

    def predict(rows: Encoded) -> np.ndarray:
        inputs = Inputs(*(cells.unsqueeze(0) for cells in (rows.numbers, rows.flags, rows.codes)))
        weights = {name: value[:1] for name, value in found.weights.items()}
        return forward(stuff.shape, weights, stuff.bins, inputs).numpy()

    return checklist(stuff, FOLDS, found, predict)


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.claim for check in checks if check.passed is False]


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("train", [True, False])
def test_the_true_network_passes_each_line(outputs: int, train: bool) -> None:
    checks = checked(result(outputs=outputs, train=train), outputs)
    assert [check.passed for check in checks] == [True] * 7
    assert all(check.claim and check.evidence for check in checks)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.6])
def test_the_lines_hold_at_any_rate(rate: float) -> None:
    found = result(replace(COCKTAIL, hidden_dropout=rate))
    assert failed(checked(found)) == []


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "mutant, line",
    [
        (mask_before_activation, "Dropout stands after the activation, before the next layer"),
        (mask_on_output, "No dropout on the output"),
        (unscaled, "Inverted scaling: the mean activation in training is that of evaluation"),
    ],
)
def test_each_fault_fails_its_own_line_and_no_other(
    mutant: Callable[[pytest.MonkeyPatch], None],
    line: str,
    train: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = result(train=train)
    mutant(monkeypatch)
    assert failed(checked(found)) == [line]


@pytest.mark.parametrize("train", [True, False])
def test_dropout_at_prediction_is_said(train: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = result(train=train)
    masked_prediction(monkeypatch)
    assert "Evaluation mode at prediction: nothing drops" in failed(checked(found))


@pytest.mark.parametrize("wrong", [lambda name: False, lambda name: True])
def test_decay_of_the_wrong_parameters_is_said(
    wrong: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = result()
    monkeypatch.setattr("dropkit.training.optimizer.decays", wrong)
    assert failed(checked(found)) == [
        "Weight decay beside dropout: they address different failures"
    ]


def test_dropout_without_decay_is_no_fault() -> None:
    checks = checked(result(replace(COCKTAIL, weight_decay=0.0)))
    assert [check.passed for check in checks].count(None) == 1
    assert failed(checks) == []


def test_without_dropout_its_lines_do_not_apply() -> None:
    checks = checked(result(Cocktail()))
    assert [check.passed for check in checks].count(None) == 2
    assert failed(checks) == []


def test_weights_that_are_not_the_best_are_said() -> None:
    """Mutant: a population that notes its best losses and stores no weights."""
    stale = {name: value + 0.1 for name, value in result().weights.items()}
    found = replace(result(), weights=stale)
    assert failed(checked(found)) == ["Early stopping restores the best weights"]


def test_the_checklist_leaves_the_weights_alone() -> None:
    found = result()
    before = {name: value.clone() for name, value in found.weights.items()}
    checked(found)
    assert all(torch.equal(before[name], value) for name, value in found.weights.items())
