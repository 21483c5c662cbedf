"""The checklist for dropout, each line answered by running what it speaks of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dropkit.kernel import Stream
from dropkit.records import Check, Cocktail
from dropkit.training.doses import Doses, row_loss
from dropkit.training.encoding import Encoded
from dropkit.training.network import Inputs, Masks, decays, forward
from dropkit.training.optimizer import Optimizer
from dropkit.training.population import Material
from dropkit.training.rounds import Result

_ROWS, _PASS = 64, 4096
"""Rows looked at, and rows of one pass where all are."""
_DRAWS = 24
_ROUNDING = 1e-4
"""Float32 sums in another order differ by less."""


def checklist(
    material: Material,
    folds: Sequence[Tensor],
    winner: Result,
    predict: Callable[[Encoded], np.ndarray],
) -> tuple[Check, ...]:
    """Evidence for each line of the checklist that concerns a network on a table.

    `predict` is what the finished model says about encoded rows.
    """
    cocktail = winner.trial.cocktail
    return (
        _evaluation(material, predict),
        _placement(material, winner),
        _output(material, winner),
        _scaling(material, cocktail),
        _decay(material, winner),
        _curves(winner),
        _early(material, folds, winner),
    )


def _inputs(material: Material) -> Inputs:
    return _batch(material, torch.arange(min(_ROWS, len(material.rows))))


def _batch(material: Material, rows: Tensor) -> Inputs:
    some = material.rows[rows.to(material.truth.device).unsqueeze(0)]
    return Inputs(some.numbers, some.flags, some.codes)


def _masks(material: Material, cocktail: Cocktail, key: int) -> Masks:
    doses = Doses([cocktail], material.layout, material.truth.device)
    rows = min(_ROWS, len(material.rows))
    return doses.masks(material.shape, rows, Stream(key, material.truth.device))


def _evaluation(material: Material, predict: Callable[[Encoded], np.ndarray]) -> Check:
    rows = material.rows[:_ROWS].to("cpu")
    same = np.array_equal(predict(rows), predict(rows))
    evidence = "two predictions of the same rows gave " + ("equal bits" if same else "other values")
    return Check("Evaluation mode at prediction: nothing drops", same, evidence)


def _placement(material: Material, winner: Result) -> Check:
    """A factor of 2 on the last hidden layer doubles what the outputs add to their bias, exactly,
    if it acts behind the activation, which bends; before it, it would not."""
    last = len(material.shape.hidden)
    weights = {name: value[:1].clone() for name, value in winner.weights.items()}
    weights[f"bias.{last}"].zero_()
    weights[f"weight.{last}"].fill_(1.0)  # zeros, of a network that has not trained, would hide it
    rows = min(_ROWS, len(material.rows))
    ones = [
        torch.ones(1, rows, width, device=material.truth.device) for width in material.shape.hidden
    ]
    with torch.no_grad():
        plain, doubled = (
            forward(
                material.shape,
                weights,
                material.bins,
                _inputs(material),
                Masks(None, None, (*ones[:-1], factor * ones[-1])),
            )
            for factor in (1.0, 2.0)
        )
    after = bool(torch.equal(2.0 * plain, doubled))
    evidence = (
        "a factor of 2 on the last hidden layer's mask doubled the outputs exactly: the mask acts "
        "after the activation and before the next linear map; the network has no batch norm"
        if after
        else "a factor of 2 on the last hidden layer's mask did not double the outputs"
    )
    return Check("Dropout stands after the activation, before the next layer", after, evidence)


def _output(material: Material, winner: Result) -> Check:
    """Silencing the output weights leaves the bias, whatever the masks: none acts behind it."""
    cocktail = replace(winner.trial.cocktail, input_dropout=0.5, hidden_dropout=0.5)
    last = len(material.shape.hidden)
    silent = {name: value[:1].clone() for name, value in winner.weights.items()}
    silent[f"weight.{last}"].zero_()
    silent[f"bias.{last}"].fill_(1.0)
    with torch.no_grad():
        outputs = forward(
            material.shape, silent, material.bins, _inputs(material), _masks(material, cocktail, 0)
        )
    clean = bool((outputs == 1.0).all())
    evidence = (
        "in training mode, outputs whose layer was set to the constant 1 all stayed 1"
        if clean
        else "in training mode, some outputs of a layer set to the constant 1 were not 1"
    )
    return Check("No dropout on the output", clean, evidence)


def _scaling(material: Material, cocktail: Cocktail) -> Check:
    claim = "Inverted scaling: the mean activation in training is that of evaluation"
    if not cocktail.hidden_dropout:
        return Check(claim, None, "the winning cocktail has no hidden dropout")
    drawn = [_masks(material, cocktail, key).hidden or () for key in range(_DRAWS)]
    factor = torch.cat([mask.flatten() for masks in drawn for mask in masks]).double()
    mean = float(factor.mean())
    odds = cocktail.hidden_dropout / (1.0 - cocktail.hidden_dropout)
    noise = (odds / factor.numel()) ** 0.5
    passed = abs(mean - 1.0) < 5 * noise
    evidence = (
        f"mean of {factor.numel():,} factors of training at rate {cocktail.hidden_dropout:.3g}: "
        f"{mean:.4f} (5 standard errors are {5 * noise:.4f})"
    )
    return Check(claim, passed, evidence)


def _decay(material: Material, winner: Result) -> Check:
    """A step without a gradient moves what decays, towards zero, and nothing else."""
    claim = "Weight decay beside dropout: they address different failures"
    cocktail = winner.trial.cocktail
    if not cocktail.hidden_dropout:
        return Check(claim, None, "the winning cocktail has no hidden dropout")
    if not cocktail.weight_decay:
        return Check(claim, None, "validation chose dropout without weight decay")
    alone = Cocktail(weight_decay=cocktail.weight_decay, learning_rate=cocktail.learning_rate)
    doses = Doses([alone], material.layout, material.truth.device)
    weights = {name: torch.ones_like(value[:1]) for name, value in winner.weights.items()}
    nothing = {name: torch.zeros_like(value) for name, value in weights.items()}
    Optimizer(weights, doses, 1).step(weights, nothing, 1.0)
    shrunk = all(bool((value < 1.0).all()) for name, value in weights.items() if decays(name))
    spared = all(bool((value == 1.0).all()) for name, value in weights.items() if not decays(name))
    evidence = (
        f"weight decay {cocktail.weight_decay:.3g} at dropout rate {cocktail.hidden_dropout:.3g}: "
        f"a step without a gradient {'shrank' if shrunk else 'did not shrink'} the weights, and "
        f"{'left the biases' if spared else 'moved the biases too'}"
    )
    return Check(claim, shrunk and spared, evidence)


def _curves(winner: Result) -> Check:
    points = sum(len(curve.epochs) for curve in winner.trial.curves)
    evidence = (
        f"{points} points over {len(winner.trial.curves)} networks, each with three losses: as "
        "trained, training rows in evaluation mode, validation"
    )
    return Check("Training and validation loss are plotted", points > 0, evidence)


def _early(material: Material, folds: Sequence[Tensor], winner: Result) -> Check:
    """The weights that were kept have the lowest validation loss that was seen."""
    curves = winner.trial.curves
    kept = [_loss(material, winner, index, fold) for index, fold in enumerate(folds)]
    restored = all(
        math.isclose(loss, min(curve.validation), rel_tol=_ROUNDING, abs_tol=_ROUNDING)
        for loss, curve in zip(kept, curves, strict=True)
    )
    epochs = [curve.epochs[curve.best] for curve in curves]
    evidence = (
        f"the weights of epoch {min(epochs):.0f} to {max(epochs):.0f}, whose validation loss, "
        f"computed again, is {'the lowest' if restored else 'not the lowest'} of each curve"
    )
    return Check("Early stopping restores the best weights", restored, evidence)


def _loss(material: Material, winner: Result, index: int, fold: Tensor) -> float:
    """Validation loss of one of the winner's networks on its fold."""
    weights = {name: value[index : index + 1] for name, value in winner.weights.items()}
    total = 0.0
    for rows in torch.split(fold, _PASS):
        with torch.no_grad():
            outputs = forward(material.shape, weights, material.bins, _batch(material, rows))
        truth = material.truth[rows.to(material.truth.device)].unsqueeze(0)
        total += float(row_loss(outputs, truth).sum())
    return total / len(fold)
