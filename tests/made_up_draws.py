"""Draws whose law is known, for several tests."""

from __future__ import annotations

import torch
from torch import Tensor

WIDE = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def chance(*shape: int, seed: int = 0) -> Tensor:
    """Numbers from [0, 1) in float64."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def classes(shares: Tensor, seed: int = 0) -> Tensor:
    """A class for each row, drawn by its probabilities."""
    return (chance(len(shares), 1, seed=seed) > shares.cumsum(-1)[:, :-1]).sum(-1)
