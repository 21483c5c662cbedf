"""Thinned networks whose masks are told, and not drawn.

Each element that a site may drop is a bit. The bits of all sites, in the order in which they act,
say which network it is. Where a law is asked for draws, it is here asked for networks by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropkit.errors import SamplingError
from dropkit.functional.alpha import normalizing
from dropkit.intercept import Operation
from dropkit.intercept.trace import Where
from dropkit.kernel import Affine, Key
from dropkit.posterior.choosing import Active, Plan
from dropkit.posterior.directing import Directing
from dropkit.posterior.laws import Attend, Drop, Law
from dropkit.posterior.recording import Recorder
from dropkit.records import Site

Pattern = Callable[[Tensor, Tensor], Tensor]
"""Of numbers of networks (N, 1) and numbers of bits (n,): which are dropped, (N, n)."""


@dataclass(frozen=True, slots=True)
class Bits:
    """The mask of a site, one of the times that it acts in a pass."""

    site: Site
    rate: float
    shape: tuple[int, ...]
    """1 along axes on which all is dropped together."""
    start: int
    """The number of the first of its bits."""

    @property
    def count(self) -> int:
        """How many may be dropped or kept: none at rate 1."""
        return 0 if self.rate == 1 else math.prod(self.shape)

    def dropped(self, networks: Tensor, pattern: Pattern) -> Tensor:
        """The mask in networks of these numbers (N,): True where it drops, (N, *shape)."""
        if self.rate == 1:
            shape = len(networks), *self.shape
            return torch.ones(shape, dtype=torch.bool, device=networks.device)
        own = torch.arange(self.start, self.start + self.count, device=networks.device)
        return pattern(networks[:, None], own).reshape(-1, *self.shape)


def binary(networks: Tensor, bits: Tensor) -> Tensor:
    """A network's number, in binary, has a 1 where a bit is dropped."""
    return (networks >> bits) & 1 == 1


def nothing(networks: Tensor, bits: Tensor) -> Tensor:
    """Nothing is dropped in any network."""
    return torch.zeros(len(networks), len(bits), dtype=torch.bool, device=bits.device)


@dataclass(frozen=True, slots=True)
class Told:
    """What a site does if it is told its mask."""

    law: Drop | Attend
    bits: Bits
    pattern: Pattern

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """In the networks first to first + count - 1."""
        networks = torch.arange(first, first + count, device=values[0].device)
        dropped = self.bits.dropped(networks, self.pattern)
        scale, shift, fill = self._affine()

        def drop(x: Tensor) -> Tensor:
            return torch.where(dropped, fill, x * (scale or 0.0) + shift)

        return self.law.by_parts(drop, *values) if isinstance(self.law, Attend) else drop(*values)

    def _affine(self) -> Affine:
        rate = self.bits.rate
        if isinstance(self.law, Drop) and self.law.name.endswith("alpha_dropout"):
            return normalizing(rate)
        return Affine(0.0 if rate == 1 else 1 / (1 - rate))


class Telling(Directing):
    """Tells each site its mask in a network, and notes which masks there are."""

    def __init__(
        self,
        plan: Plan,
        key: Key,
        draw: int,
        recorder: Recorder | None = None,
        *,
        pattern: Pattern = nothing,
        layout: Sequence[Bits] | None = None,
    ) -> None:
        """`layout`: the masks that there have to be; None: they are not known yet."""
        self.masks: list[Bits] = []
        self.others: list[Where] = []
        """Where something is drawn that nobody is told of."""
        self.pattern, self.layout = pattern, layout
        super().__init__(plan, key, draw, recorder)

    def mark(self, here: Where) -> None:
        """Something is drawn here."""
        self.others.append(here)

    def _act(
        self, site: Active, values: Sequence[Tensor], law: Callable[[Key, int | None], Law]
    ) -> Tensor:
        return super()._act(site, values, lambda key, batch: self._told(site, law(key, batch)))

    def _told(self, site: Active, law: Law) -> Told:
        """The law of a site, the shape of whose values was noted last."""
        if not isinstance(law, Drop | Attend):
            raise TypeError(f"expected a law that drops; got {law}")
        shape = list(self.shapes[site.number, self.calls[site.number] - 1])
        for axis in law.shared:
            shape[axis] = 1
        start = self.masks[-1].start + self.masks[-1].count if self.masks else 0
        bits = Bits(site.site, law.rate, tuple(shape), start)
        place = len(self.masks)
        if self.layout is not None and [bits] != list(self.layout[place : place + 1]):
            raise SamplingError(
                f"expected the same masks in all networks; {named(site.site)} drops {shape} in "
                f"network {self.number}, but not in the first. Leave it out with sites="
            )
        self.masks.append(bits)
        return Told(law, bits, self.pattern)


class Still(Directing):
    """Lets nothing drop, not even what always does."""

    def drop(self, call: Operation, where: Callable[[], Where]) -> Any:
        """As if its rate were 0."""
        return call.run(**{"dropout_p": 0.0} if call.is_attention else {"training": False})


def named(site: Site) -> str:
    """Where a site is."""
    return f"{site.path or 'the model itself'} ({site.owner})"
