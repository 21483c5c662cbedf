"""A stream of random draws that is a function of its key.

A `Stream` is made afresh for each use (a training step, a permutation), so nothing has to be
saved to replay a draw or to resume a run: the key, and what is asked in which order, say it all.
Another device, or another version of PyTorch, may draw other numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dropkit.kernel.keys import derive

_LANES = 1 << 16
"""Masks compare 16 random bits: a rate is realized as the nearest multiple of 2**-16."""


def realized(rate: Tensor) -> Tensor:
    """The rate that a mask really has when asked for `rate`: the nearest multiple of 2**-16."""
    return (rate * _LANES).round().clamp_max(_LANES - 1) / _LANES


def _threshold(rate: Tensor) -> Tensor:
    return ((rate * _LANES).round().clamp_max(_LANES - 1) - _LANES // 2).to(torch.int16)


class Stream:
    """Draws named by a key, on a device; streams of equal keys answer the same calls alike.

    >>> bool((Stream(7).normal((3,)) == Stream(7).normal((3,))).all())
    True
    """

    def __init__(self, key: int, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._generator = torch.Generator(self._device).manual_seed(derive(key))

    def mask(self, rate: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Booleans of `shape`, False with probability `rate` (which broadcasts against it).

        Rates in [0, 1). The realized rate is the nearest multiple of 2**-16.
        """
        return self._lanes(shape) >= _threshold(rate)

    def keep(self, rate: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Inverted dropout's factor: 0 with probability `rate`, else 1 / (1 - rate); mean 1."""
        factor = torch.empty(shape, device=self._device)
        torch.ge(self._lanes(shape), _threshold(rate), out=factor)  # 0.0 or 1.0, in one fast pass
        return factor.mul_(1.0 / (1.0 - realized(rate)))

    def _lanes(self, shape: tuple[int, ...]) -> Tensor:
        """16 random bits per element, as int16."""
        count = math.prod(shape)
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=self._device)
        words.random_(-(1 << 63), None, generator=self._generator)
        return words.view(torch.int16)[:count].view(shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws."""
        out = torch.empty(shape, device=self._device)
        return out.normal_(generator=self._generator)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draws from [0, 1)."""
        out = torch.empty(shape, device=self._device)
        return out.uniform_(generator=self._generator)

    def beta(self, alpha: Tensor) -> Tensor:
        """Draws from Beta(alpha, alpha), one per element; where alpha is 0, exactly 1."""
        words = self.integers(1 << 62, (1,))
        source = np.random.Generator(np.random.Philox(int(words)))
        shape = alpha.clamp_min(1e-3).cpu().numpy()
        draws = torch.from_numpy(source.beta(shape, shape)).to(alpha)
        return torch.where(alpha > 0, draws, torch.ones_like(draws))

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Integers from 0 to `high` - 1."""
        return torch.randint(high, shape, device=self._device, generator=self._generator)

    def permutation(self, count: int) -> Tensor:
        """The numbers 0 to `count` - 1 in random order."""
        return torch.randperm(count, device=self._device, generator=self._generator)
