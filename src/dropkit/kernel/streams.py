"""A stream of random draws that is a function of its key.

A `Stream` is made afresh for each use (a training step, a permutation), so nothing has to be
saved to replay a draw or to resume a run: the key, and what is asked in which order, say it all.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from dropkit.kernel import dispatch, reference
from dropkit.kernel.keys import derive
from dropkit.kernel.mask import Mask, inverted


class Stream:
    """Draws named by a key, on a device; streams of equal keys answer the same calls alike.

    >>> bool((Stream(7).normal((3,)) == Stream(7).normal((3,))).all())
    True
    """

    def __init__(self, key: int, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._keys = (derive(key, call) for call in itertools.count())

    def mask(self, rate: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Booleans of `shape`, False with probability `rate` (which broadcasts against it)."""
        return dispatch.keep(Mask(next(self._keys), rate), shape, self._device)

    def keep(self, rate: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Inverted dropout's factor: 0 with probability `rate`, else 1 / (1 - rate); mean 1."""
        mask = Mask(next(self._keys), rate)
        return dispatch.factor(mask, inverted(rate), shape, self._device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws."""
        count = math.prod(shape)
        pairs = self._words(count + count % 2).view(-1, 2)
        return reference.normal(pairs).view(-1)[:count].view(shape)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draws from [0, 1)."""
        return reference.uniform(self._words(math.prod(shape))).view(shape)

    def beta(self, alpha: Tensor) -> Tensor:
        """Draws from Beta(alpha, alpha), one per element; where alpha is 0, exactly 1."""
        source = np.random.Generator(np.random.Philox(key=next(self._keys)))
        shape = alpha.clamp_min(1e-3).cpu().numpy()
        draws = torch.from_numpy(source.beta(shape, shape)).to(alpha)
        return torch.where(alpha > 0, draws, torch.ones_like(draws))

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Integers from 0 to `high` - 1; a number is preferred by at most high / 2**63."""
        return (self._long_words(math.prod(shape)) % high).view(shape)

    def permutation(self, count: int) -> Tensor:
        """The numbers 0 to `count` - 1 in random order."""
        return self._long_words(count).argsort(stable=True)

    def _words(self, count: int) -> Tensor:
        return reference.unsigned(dispatch.words(count, 0, next(self._keys), self._device))

    def _long_words(self, count: int) -> Tensor:
        return reference.joined(self._words(2 * count).view(count, 2))
