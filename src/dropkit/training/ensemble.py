"""From trials to one predictor: greedy ensemble selection and temperature scaling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from dropkit.training.metrics import Judge

_STEPS = 25
_CANDIDATES = 12
"""Only the best trials are candidates: more of them fit the validation rows, not the task."""


def select(judge: Judge, predictions: Sequence[Tensor]) -> list[tuple[int, float]]:
    """Weights of an ensemble by greedy forward selection with replacement, best first.

    Source: Caruana et al. 2004, "Ensemble Selection from Libraries of Models". Ends when no
    candidate improves the validation loss.
    """
    losses = [judge.loss(prediction) for prediction in predictions]
    ranked = sorted(range(len(predictions)), key=lambda index: losses[index])[:_CANDIDATES]
    chosen, total = [ranked[0]], predictions[ranked[0]].clone()
    current = losses[ranked[0]]
    for step in range(1, _STEPS):
        trials = [judge.loss((total + predictions[index]) / (step + 1)) for index in ranked]
        best = min(range(len(ranked)), key=lambda place: trials[place])
        if trials[best] >= current:
            break
        current = trials[best]
        chosen.append(ranked[best])
        total = total + predictions[ranked[best]]
    counts = Counter(chosen)
    return [(index, count / len(chosen)) for index, count in counts.most_common()]


def blend(predictions: Sequence[Tensor], weights: Sequence[tuple[int, float]]) -> Tensor:
    """The weighted mean of predictions."""
    parts = [weight * predictions[index] for index, weight in weights]
    return torch.stack(parts).sum(0)


def temper(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities sharpened (below 1) or softened (above 1) by a temperature."""
    return (probabilities.clamp_min(1e-12).log() / temperature).softmax(-1)


def temperature(probabilities: Tensor, truth: Tensor) -> float:
    """The temperature in [0.5, 2] of least log-loss, to three digits (Guo et al. 2017)."""
    logs = probabilities.clamp_min(1e-12).log()
    grid = torch.logspace(-1, 1, 201, base=2.0, dtype=torch.float64)

    def loss(value: float) -> float:
        hit = (logs / value).log_softmax(-1).gather(1, truth.unsqueeze(1))
        return -float(hit.mean())

    return min((round(float(value), 3) for value in grid), key=loss)
