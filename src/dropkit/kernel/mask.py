"""What names a mask: a key, a rate, and the number that each element has in the stream."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ONE = 1 << 40
"""Rates are compared in steps of 2**-40: 8 bits at once, 32 more for one element in 256."""

WORD64 = (1 << 64) - 1

Key = int | Tensor
"""64 bits that name a stream. A tensor holds them where the host must not read them."""


class Mask(NamedTuple):
    """Which elements are dropped: all that is needed to draw the same mask again."""

    key: Key
    rate: float | Tensor
    """The fraction dropped; a tensor broadcasts against what is dropped."""
    strides: tuple[int, ...] | None = None
    """How far the mask index moves along each axis, 0 where a draw is shared; None: row-major."""
    base: int = 0
    """The mask index of the first element, modulo 2**64."""


class Affine(NamedTuple):
    """What becomes of x: `x * scale + shift` where kept, `fill` where dropped."""

    scale: float | None
    """None: the inverse of the probability to be kept, for each rate of a tensor."""
    shift: float = 0.0
    fill: float = 0.0

    @property
    def linear(self) -> Affine:
        """The derivative."""
        return Affine(self.scale) if self.shift or self.fill else self


def threshold(rate: float) -> int:
    """A draw of 40 bits below this drops; so the realized rate is off by at most 2**-41."""
    return round(float(rate) * ONE)


def thresholds(rates: Tensor) -> Tensor:
    """`threshold` of each rate, as int64."""
    return (rates.double() * ONE).round().clamp(0, ONE).to(torch.int64)


def inverted(rate: float | Tensor) -> Affine:
    """Inverted dropout: what is kept is divided by the probability to be kept."""
    if isinstance(rate, Tensor):
        return Affine(None)
    rate = float(rate)  # also one of NumPy's narrow numbers
    dropped_all = rate * ONE >= ONE - 0.5  # threshold(rate) == ONE
    return Affine(0.0 if dropped_all else 1.0 / (1.0 - rate))


def plain_scale(affine: Affine) -> float:
    """The scale where there is one rate for all."""
    if affine.scale is None:
        raise ValueError("expected a scale beside a rate that is a number")
    return affine.scale


def scales(rates: Tensor, affine: Affine) -> Tensor:
    """The scale for each rate, in float64."""
    if affine.scale is not None:
        return torch.full_like(rates, affine.scale, dtype=torch.float64)
    keep = 1.0 - rates.double()
    return torch.where(thresholds(rates) < ONE, keep, torch.inf).reciprocal()


def signed(word: int) -> int:
    """64 bits as the integer that an int64 holds."""
    if -(1 << 63) <= word < 1 << 63:
        return word  # and a compiler's symbol for a number is spared operations on bits
    word &= WORD64
    return word - (1 << 64) if word >> 63 else word
