"""A subject at work: its layers, inputs, and large samples of its masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from dropkit.bounds import hypergeometric_chance
from dropkit.kernel import derive
from dropkit.testing.circumstances import KINDS, PLAIN, Circumstance, circumstances
from dropkit.testing.effort import Effort, sizes
from dropkit.testing.report import Inapplicable
from dropkit.testing.seeding import random_state, reseed
from dropkit.testing.subject import Apply, Made, Subject

Found = TypeVar("Found")
Read = Callable[[float, Tensor, Tensor], Tensor]
"""From a rate, an input and an output, something of their shape."""

PLENTY = 512  # draws: equal masks, or half equal ones, are no accident
_REPEATS = 48  # calls: what comes again after a dozen of them is seen
_STRATA = ((0.002, 0.05), (0.05, 0.5), (0.5, 0.95), (0.95, 0.998))
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, less their whole part, never repeat


class Bench:
    """What the checks of one run share."""

    def __init__(self, subject: Subject, *, seed: int = 0, effort: Effort = "usual") -> None:
        self.subject = subject
        self.seed = seed
        self.sizes = sizes(effort)
        self.slim = cache(self._slim)
        """Slim draws at a rate; made once a run."""
        self.circumstances = circumstances(subject, seed)
        self.few = cache(self._few)
        """Draws in a circumstance, at a rate; made once a run."""
        self.unforeseen = tuple(self._between(*ends) for ends in _STRATA)
        """Rates that hang on the seed: not even those who know the suite know them."""

    # ---- layers and inputs

    def layer(self, p: float, *, training: bool = True) -> Apply:
        """A new layer of the subject, in training or eval mode."""
        return applied(self.subject.make(p), training)

    def called(self, how: Circumstance, p: float) -> Apply:
        """What is called in a circumstance: a new layer in training mode, or another form of it."""
        return self.layer(p) if how.make is None else how.make(p)

    def inplace(self, p: float, *, training: bool = True) -> Apply:
        """A new layer that works in place."""
        assert self.subject.inplace is not None
        return applied(self.subject.inplace(p), training)

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

    def repeated(self, apply: Apply, p: float, x: Tensor, calls: int) -> Tensor:
        """Independent bits of some calls."""
        masks = [self.arranged(self.mask(p, x, apply(x))) for _ in range(calls)]
        return self.untied(torch.stack(masks)).flatten(1)

    def moved(self, call: Callable[[], Found]) -> tuple[Found, bool]:
        """What a call returned, and whether the global random state moved for it."""
        before = random_state(self.subject.device)
        found = call()
        after = random_state(self.subject.device)
        return found, not all(map(torch.equal, before, after))

    def calls(self, elements: int) -> int:
        """How many calls with so many elements make a large sample."""
        fit = self.sizes.elements // 4 // max(1, elements)
        return max(1, min(self.sizes.calls, fit)) * self.sizes.times

    # ---- bits: True where an element was kept

    def mask(self, p: float, x: Tensor, y: Tensor) -> Tensor:
        """True where kept, from an input and its output; of their shape."""
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
        for place in self._tied:
            bits = bits.narrow(place, bits.shape[place] // 2, 1)
        return bits

    def units(self, bits: Tensor) -> Tensor:
        """Arranged bits (or a stack of them) as rows of what is tied: the rows are independent."""
        tied = self._tied
        return bits.movedim(tied, tuple(range(-len(tied), 0))).flatten(0, -1 - len(tied)).flatten(1)

    @property
    def _tied(self) -> tuple[int, ...]:
        """The tied axes of arranged bits, counted from the last."""
        free = [axis for axis in range(len(self.subject.shape)) if axis not in self.subject.shared]
        if self.rows is not None:
            free = [self.rows, *(axis for axis in free if axis != self.rows)]
        return tuple(sorted(free.index(axis) - len(free) for axis in self.subject.law.tied))

    @property
    def rows(self) -> int | None:
        """The axis that is made longer for a large sample."""
        return self.subject.rows

    def _between(self, low: float, high: float) -> float:
        share = derive(self.seed, 11, round(high * 2**10)) * 2.0**-64
        return low + (high - low) * share

    def _slim(self, p: float) -> Tensor:
        self.reseed(1, round(p * 2**40))
        return self.draws(p, slim=True)

    def _few(self, how: Circumstance, p: float) -> Tensor:
        self.reseed(12, round(p * 2**40), *how.name.encode())
        many_calls = how.lone or self.rows is None
        elements = self.sizes.few // 8 if many_calls else self.sizes.few
        elements *= 4 if self.subject.law.tied else 1
        return self.draws(p, slim=how.slim, how=how, elements=elements)

    def draws(
        self,
        p: float,
        *,
        slim: bool = False,
        how: Circumstance = PLAIN,
        elements: int | None = None,
        read: Read | None = None,
    ) -> Tensor:
        """Arranged bits of a large batch; or a stack of many calls' where a batch has its size.

        Args:
            p: The rate.
            slim: With a size of 1 along shared axes, where the subject takes such shapes.
            how: How it is called.
            elements: How many there are, about, by default those of a sample; a quarter where rows
                count, which are many.
            read: What is wanted in place of the bits.
        """
        unit, read = list(self.subject.shape), read or self.mask
        for axis in self.subject.shared if slim and self.subject.sizes == "any" else ():
            unit[axis] = 1
        elements = self.sizes.elements if elements is None else elements
        elements = elements // 4 if self.subject.law.tied else elements
        apply = self.called(how, p)
        if self.rows is not None:
            unit[self.rows] = 1
            rows = 1 if how.lone else max(1, elements // math.prod(unit))
            unit[self.rows] = rows - rows % KINDS if rows > KINDS else rows
        each = self.rows is None or how.lone
        calls = max(1, min(self.sizes.calls, elements // math.prod(unit))) if each else 1
        x = self.ones(tuple(unit))
        parts = [
            self.arranged(read(p, *how.call(apply, x))) for _ in range(calls * self.sizes.times)
        ]
        return torch.stack(parts) if self.rows is None else torch.cat(parts)

    def series(self, apply: Apply, p: float) -> Tensor:
        """Independent bits [calls, draws of a call], of as many calls as give enough of them."""
        each = math.prod(self.subject.shape[axis] for axis in self.subject.independent)
        calls = max(_REPEATS, min(self.sizes.calls, -(-self.sizes.bits // each)))
        return self.repeated(apply, p, self.input(), calls)


def dependence(first: Tensor, second: Tensor) -> float:
    """The chance of bits that agree so much, or so little, were they independent."""
    both = int(torch.count_nonzero(first & second))
    ones = (int(torch.count_nonzero(bits)) for bits in (first, second))
    return hypergeometric_chance(both, first.numel(), *ones)


def difference(first: Tensor, second: Tensor) -> float:
    """The chance of shares so different, were the bits of one law, whatever its rate."""
    ones = [int(torch.count_nonzero(bits)) for bits in (first, second)]
    draws = first.numel() + second.numel()
    return hypergeometric_chance(ones[0], draws, first.numel(), sum(ones))


def applied(made: Made, training: bool) -> Apply:
    """A layer in training or eval mode, or a function that is told so."""
    return made.train(training) if isinstance(made, nn.Module) else partial(_call, made, training)


def _call(function: Callable[[Tensor, bool], Tensor], training: bool, x: Tensor) -> Tensor:
    return function(x, training)
