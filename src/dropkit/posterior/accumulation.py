"""Sums over draws that can be merged: what was added in parts is what was added at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropkit.posterior.entropies import entropy, log_probabilities, wide

MOST_CLASSES = 32
"""Up to here the products of all pairs of classes are kept: 8 KiB for each row."""


@dataclass(frozen=True, slots=True)
class Central:
    """Count, mean, and sums of the powers of what is off the mean, in float64."""

    count: int
    mean: Tensor
    m2: Tensor
    m3: Tensor
    m4: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> Central:
        """Of draws (k, ...)."""
        x = wide(draws)
        mean = x.mean(0)
        off = x - mean
        square = off.square()
        return cls(
            len(x), mean, square.sum(0), (square * off).sum(0), square.square().sum(0)
        )  # fmt: skip

    def merged(self, other: Central) -> Central:
        """Of the draws of both.

        Source: Chan, Golub & LeVeque 1979 for the mean and the squares; Pébay 2008, "Formulas for
        Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order Statistical
        Moments", for the higher powers.
        """
        a, b = self.count, other.count
        n = a + b
        step = other.mean - self.mean
        part = step / n
        m2 = self.m2 + other.m2 + step * part * (a * b)
        m3 = (
            self.m3 + other.m3 + step * part.square() * (a * b * (a - b))
            + 3 * part * (a * other.m2 - b * self.m2)
        )  # fmt: skip
        m4 = (
            self.m4 + other.m4 + step * part**3 * (a * b * (a * a - a * b + b * b))
            + 6 * part.square() * (a * a * other.m2 + b * b * self.m2)
            + 4 * part * (a * other.m3 - b * self.m3)
        )  # fmt: skip
        return Central(n, self.mean + part * b, m2, m3, m4)


@dataclass(frozen=True, slots=True)
class Classes:
    """What is known of draws of classes; the classes lie along the last axis.

    A draw is taken as the vector of its probabilities with its entropy behind them.
    """

    count: int
    mean: Tensor
    m2: Tensor
    products: Tensor | None
    """Sums of products of what is off the mean, of each pair; None: too many classes."""
    votes: Tensor
    """How many draws gave each class the largest probability."""

    @classmethod
    def of(cls, draws: Tensor, outputs: str, axis: int) -> Classes:
        """Of draws (k, ...) with the classes along an axis of theirs."""
        logs = log_probabilities(draws, outputs, axis)
        vectors = torch.cat([logs.exp(), entropy(logs).unsqueeze(-1)], -1)
        mean = vectors.mean(0)
        off = vectors - mean
        few = logs.shape[-1] <= MOST_CLASSES
        products = torch.einsum("t...i,t...j->...ij", off, off) if few else None
        return cls(len(off), mean, off.square().sum(0), products, _votes(logs))

    def merged(self, other: Classes) -> Classes:
        """Of the draws of both."""
        n = self.count + other.count
        step = other.mean - self.mean
        share = self.count * other.count / n
        products = None
        if self.products is not None and other.products is not None:
            outer = step.unsqueeze(-1) * step.unsqueeze(-2)
            products = self.products + other.products + outer * share
        return Classes(
            n, self.mean + step * (other.count / n),
            self.m2 + other.m2 + step.square() * share, products, self.votes + other.votes,
        )  # fmt: skip


def _votes(logs: Tensor) -> Tensor:
    said = logs.argmax(-1).movedim(0, -1)
    counts = torch.zeros(logs.shape[1:], dtype=torch.int64, device=logs.device)
    return counts.scatter_add_(-1, said, torch.ones_like(said))
