"""What the mean of many draws is worth, and their mixture: in float64, and never kept."""

from __future__ import annotations

import math

import torch
from benchmarks.uci.population import Weights, forward
from benchmarks.uci.tables import Material
from torch import Tensor

from dropkit.kernel import derive

CELLS = 1 << 19
"""Activations of one pass: what the cache holds."""


class Mixture:
    """Draws of a prediction as they come: their mean, and log p(truth) with normal noise.

    log p = logsumexp(-tau (y - y_t)^2 / 2) - log T - log(2 pi) / 2 + log(tau) / 2, over draws t.
    """

    def __init__(self, truth: Tensor, tau: Tensor) -> None:
        """`truth` is (members, rows), and `tau` (precisions, members): any number for each."""
        self._truth, self._tau, self._count = truth, tau[:, :, None], 0
        self._sum = torch.zeros_like(truth)
        self._log = torch.full((len(tau), *truth.shape), -torch.inf, dtype=truth.dtype)

    def add(self, draws: Tensor) -> None:
        """Take in (members, draws, rows)."""
        self._count += draws.shape[1]
        self._sum += draws.sum(1)
        squares = (draws - self._truth[:, None]).square_().mul_(-0.5)
        for log, tau in zip(self._log, self._tau, strict=True):
            torch.logaddexp(log, (squares * tau[:, None]).logsumexp(1), out=log)

    def rmse(self) -> Tensor:
        """Of the mean of the draws: (members,)."""
        return (self._sum / self._count - self._truth).square().mean(1).sqrt()

    def log_likelihood(self) -> Tensor:
        """Mean over the rows: (precisions, members)."""
        constant = -math.log(self._count) - 0.5 * math.log(2.0 * math.pi)
        return (self._log + constant + 0.5 * self._tau.log()).mean(2)


@torch.no_grad()
def judged(
    weights: Weights, material: Material, rate: float, tau: Tensor, draws: int, key: int
) -> tuple[Tensor, Tensor]:
    """RMSE, (copies, splits), and log-likelihood, as `tau`: (precisions, copies, splits)."""
    precisions, copies, splits = tau.shape
    rows = material.truth.shape[1]
    cells = rows * weights.hidden
    members = max(1, min(copies * splits, CELLS // cells))
    stride = max(1, min(draws, CELLS // (cells * members)))
    taus, found = tau.flatten(1).double(), []
    for start in range(0, copies * splits, members):
        part = slice(start, min(start + members, copies * splits))
        of = torch.arange(part.start, part.stop) % splits
        mixture = Mixture(material.truth[of], taus[:, part])
        x, network = material.judged_x[of][:, :, None], weights.part(part)
        middle, spread = material.middle[of, None], material.spread[of, None]
        for at in range(0, draws, stride):
            count = min(stride, draws - at)
            tiled = x.expand(-1, -1, count, -1).flatten(2)
            outputs = forward(network, tiled, rate, derive(key, start, at))[2]
            mixture.add((outputs * spread + middle).unflatten(1, (count, rows)))
        found.append(torch.cat([mixture.rmse()[None], mixture.log_likelihood()]))
    rmse, *likelihoods = torch.cat(found, 1).view(1 + precisions, copies, splits)
    return rmse, torch.stack(likelihoods)
