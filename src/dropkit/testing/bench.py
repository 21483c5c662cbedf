"""A subject at work: its layers, inputs, and large samples of its masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from dropkit.kernel import derive
from dropkit.testing.bounds import hypergeometric_chance
from dropkit.testing.report import Inapplicable
from dropkit.testing.seeding import random_state, reseed
from dropkit.testing.subject import Subject

Apply = Callable[[Tensor], Tensor]

ELEMENTS = 1 << 22  # of one sample: 16 MB, and 40 ms of PyTorch's own dropout
PLENTY = 512  # draws: equal masks, or half equal ones, are no accident
CALLS = 2048  # of one sample, where every call gives few draws
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, less their whole part, never repeat


class Bench:
    """What the checks of one run share."""

    def __init__(self, subject: Subject, *, seed: int = 0, thorough: bool = False) -> None:
        self.subject = subject
        self.seed = seed
        self.times = 16 if thorough else 1
        """How many times the usual sample; 16 halve the smallest bias that is seen, twice."""
        self.slim = cache(self._slim)
        """Slim draws at a rate; made once a run."""

    # ---- layers and inputs

    def layer(self, p: float, *, training: bool = True) -> Apply:
        """A new layer of the subject, in training or eval mode."""
        return _applied(self.subject.make(p), training)

    def inplace(self, p: float, *, training: bool = True) -> Apply:
        """A new layer that works in place."""
        assert self.subject.inplace is not None
        return _applied(self.subject.inplace(p), training)

    def seeded(self, apply: Apply, seed: int = 0) -> Apply:
        """The same function, with the global random state set before each call."""

        def run(x: Tensor) -> Tensor:
            self.reseed(seed)
            return apply(x)

        return run

    def reseed(self, *words: int) -> None:
        """Set the global random state, to another one for other words."""
        reseed(derive(self.seed, *words))

    def input(
        self, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Values in [1, 2], no two alike (in as far as the dtype has so many)."""
        sizes = self.subject.shape if shape is None else shape
        steps = torch.arange(math.prod(sizes), dtype=torch.float64) * _GOLDEN % 1.0
        return (1 + steps).reshape(sizes).to(self.subject.device, dtype or self.subject.dtype)

    def plenty(self) -> Tensor:
        """Such an input, of a batch with `PLENTY` of independent draws where there may be one."""
        shape = list(self.subject.shape)
        draws = math.prod(shape[axis] for axis in self.subject.independent)
        if self.rows is not None:
            shape[self.rows] *= -(-PLENTY // draws)
        elif draws < 64:
            raise Inapplicable("too few draws in a call to tell")
        return self.input(tuple(shape))

    def ones(self, shape: tuple[int, ...]) -> Tensor:
        """The input whose output is the factor itself."""
        return torch.ones(shape, dtype=self.subject.dtype, device=self.subject.device)

    def moved(self, apply: Apply, x: Tensor) -> tuple[Tensor, bool]:
        """An output, and whether the global random state moved for it."""
        before = random_state(self.subject.device)
        y = apply(x)
        after = random_state(self.subject.device)
        return y, not all(map(torch.equal, before, after))

    def calls(self, elements: int) -> int:
        """How many calls with so many elements make a large sample."""
        return max(1, min(CALLS, ELEMENTS // 4 // max(1, elements))) * self.times

    # ---- bits: True where an element was kept

    def mask(self, p: float, x: Tensor, y: Tensor) -> Tensor:
        """True where kept, from an input in [1, 2] and its output; of their shape."""
        return self.subject.law.bits(x, y, self.subject.affine(p))

    def arranged(self, mask: Tensor) -> Tensor:
        """A mask without the shared axes, and with the axis of the rows first."""
        for axis in sorted(self.subject.shared, reverse=True):
            mask = mask.select(axis, 0)
        if self.rows is None:
            return mask
        return mask.movedim(self.rows - sum(s < self.rows for s in self.subject.shared), 0)

    def untied(self, bits: Tensor) -> Tensor:
        """Arranged bits (or a stack of them), the middle one along tied axes: all independent."""
        free = [axis for axis in range(len(self.subject.shape)) if axis not in self.subject.shared]
        if self.rows is not None:
            free = [self.rows, *(axis for axis in free if axis != self.rows)]
        for axis in sorted(self.subject.law.tied, key=free.index):
            place = free.index(axis) - len(free)
            bits = bits.narrow(place, bits.shape[place] // 2, 1)
        return bits

    @property
    def rows(self) -> int | None:
        """The axis that is made longer for a large sample."""
        independent = self.subject.independent
        if self.subject.sizes == "any":
            return independent[0] if independent else None
        return 0 if self.subject.sizes == "batch" and 0 in independent else None

    def _slim(self, p: float) -> Tensor:
        self.reseed(1, round(p * 2**40))
        return self.draws(p, slim=True)

    def draws(self, p: float, *, slim: bool = False) -> Tensor:
        """Arranged bits of a large batch; or a stack of many calls' where a batch has its size.

        Slim: with a size of 1 along shared axes, where the subject takes such shapes.
        """
        unit = list(self.subject.shape)
        for axis in self.subject.shared if slim and self.subject.sizes == "any" else ():
            unit[axis] = 1
        elements = ELEMENTS // 4 if self.subject.law.tied else ELEMENTS  # rows count, and are many
        apply = self.layer(p)
        if self.rows is None:
            calls = min(CALLS, max(1, elements // math.prod(unit))) * self.times
            x = self.ones(tuple(unit))
            return torch.stack([self.arranged(self.mask(p, x, apply(x))) for _ in range(calls)])
        unit[self.rows] = 1
        unit[self.rows] = max(1, elements // math.prod(unit))
        x = self.ones(tuple(unit))
        return torch.cat([self.arranged(self.mask(p, x, apply(x))) for _ in range(self.times)])

    def series(self, apply: Apply, p: float, *, least: int = 4096) -> Tensor:
        """Independent bits [calls, draws of a call], of as many calls as give enough of them."""
        x = self.input()
        first = self.untied(self.arranged(self.mask(p, x, apply(x)))).flatten()
        calls = max(2, min(CALLS, -(-least // max(1, first.numel()))))
        rest = (
            self.untied(self.arranged(self.mask(p, x, apply(x)))).flatten() for _ in range(1, calls)
        )
        return torch.stack([first, *rest])


def dependence(first: Tensor, second: Tensor) -> float:
    """The chance of bits that agree so much, or so little, were they independent."""
    both = int(torch.count_nonzero(first & second))
    ones = (int(torch.count_nonzero(bits)) for bits in (first, second))
    return hypergeometric_chance(both, first.numel(), *ones)


def _applied(made: nn.Module | Callable[[Tensor, bool], Tensor], training: bool) -> Apply:
    return made.train(training) if isinstance(made, nn.Module) else partial(_call, made, training)


def _call(function: Callable[[Tensor, bool], Tensor], training: bool, x: Tensor) -> Tensor:
    return function(x, training)
