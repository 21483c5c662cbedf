"""What a dropout may claim about its masks.

A law says which axes are tied (neither independent nor equal), with what probability an element
is dropped, and how to read a bit per element off an output. Axes that share one draw are the
subject's (`Subject.shared`), since every law can have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_NEAR = 16  # units in the last place between a value that is dropped and one that is not


class Affine(NamedTuple):
    """y = x * scale + shift where kept, and `fill` where dropped."""

    scale: float
    shift: float = 0.0
    fill: float = 0.0


@dataclass(frozen=True)
class Bernoulli:
    """Each element (each group of elements, with shared axes) is dropped on its own, at rate p."""

    tied: tuple[int, ...] = ()

    def rate(self, p: float, shape: tuple[int, ...]) -> float:
        """The probability that an element is dropped, when `p` is asked for."""
        del shape
        return p

    def bits(self, x: Tensor, y: Tensor, affine: Affine) -> Tensor:
        """True where kept; for any x whose scaled value is not the fill itself."""
        near = _NEAR * torch.finfo(y.dtype).eps
        if not affine.fill:
            return (y / x).abs_() > near
        return (y - affine.fill).abs_() > near * (x.abs() + abs(affine.fill))


@dataclass(frozen=True)
class Block(Bernoulli):
    """Squares of `size` are dropped along the tied axes, so that each element is at rate p."""

    size: int = 1
    clipped: bool = True
    """May a square hang over the border? If not, all of them lie within."""


@dataclass(frozen=True)
class Subset(Bernoulli):
    """Of the elements along the one tied axis exactly `count(p, n)` of n are dropped."""

    count: Callable[[float, int], int] = lambda p, n: round(p * n)

    def rate(self, p: float, shape: tuple[int, ...]) -> float:
        """Each subset is equally likely, so the rate is count / n."""
        size = shape[self.tied[0]]
        return self.count(p, size) / size


@dataclass(frozen=True)
class Gaussian:
    """Noise: y = x (1 + s z), or x + s z where additive; z standard normal, s = std(p)."""

    std: Callable[[float], float] = lambda p: math.sqrt(p / (1 - p))
    additive: bool = False
    tied: tuple[int, ...] = ()

    def rate(self, p: float, shape: tuple[int, ...]) -> float:
        """Nothing is dropped; half of the noise is negative."""
        del p, shape
        return 0.5

    def bits(self, x: Tensor, y: Tensor, affine: Affine) -> Tensor:
        """True where the noise is positive."""
        del affine
        return y > x if self.additive else y / x > 1

    def noisy(self, p: float, x: Tensor, y: Tensor) -> Tensor:
        """What is normal with a standard deviation of s; exact where x is a power of two."""
        del p
        return y if self.additive else y / x

    def centre(self, x: Tensor) -> Tensor:
        """The mean of what is normal, where all of x is one value."""
        return x if self.additive else torch.ones_like(x)


Law = Bernoulli | Gaussian
