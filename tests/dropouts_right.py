"""Right dropouts in plain torch, one of each law; mutants override one of their steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.kernel import derive
from dropkit.records import Shard
from dropkit.testing import Subject

GOLDEN = -0x61C8864680B583EB


class Right(nn.Module):
    """Inverted dropout, elementwise unless axes share a draw."""

    shared: tuple[int, ...] = ()

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        if not self.training or self.p == 0:
            return self.still(x)
        if self.p == 1:
            return self.nothing(x)
        return self.apply_mask(x, self.mask(x, key, offset))

    def still(self, x: Tensor) -> Tensor:
        return x

    def nothing(self, x: Tensor) -> Tensor:
        return x * 0.0

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        draws = self.uniform(x) if key is None else self.keyed_uniform(x, key, offset)
        return draws >= self.rate()

    def rate(self) -> float:
        return self.p

    def uniform(self, x: Tensor) -> Tensor:
        return torch.rand(self.mask_shape(x), dtype=torch.float64)

    def mask_shape(self, x: Tensor) -> list[int]:
        return [1 if axis in self.shared else size for axis, size in enumerate(x.shape)]

    def keyed_uniform(self, x: Tensor, key: int, offset: int | Shard) -> Tensor:
        """53 bits of SplitMix64 of the key and an element's place in the whole."""
        state = self.index(x, offset) * GOLDEN + self.stream(key)
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
            state = (state ^ (state >> shift & (1 << 64 - shift) - 1)) * factor
        return (state ^ (state >> 31 & (1 << 33) - 1) & (1 << 53) - 1).remainder(1 << 53) * 2.0**-53

    def index(self, x: Tensor, offset: int | Shard) -> Tensor:
        whole, start = x.shape, (0,) * x.ndim
        if isinstance(offset, Shard):
            whole, start = offset.shape, offset.start
        place = torch.zeros((), dtype=torch.int64) + (offset if isinstance(offset, int) else 0)
        for axis, first in enumerate(start):
            steps = torch.arange(first, first + x.shape[axis]) * math.prod(whole[axis + 1 :])
            place = place[..., None] + steps
        return place

    def stream(self, key: int) -> int:
        return derive(key) - (1 << 63)

    def scale(self) -> float:
        return 1 / (1 - self.p)

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        if x.is_floating_point() and x.dtype.itemsize == 2:
            return (x.float() * (mask.double() * self.scale()).float()).to(x.dtype)
        if not x.is_floating_point():
            raise TypeError("expected floating point")
        return x * (mask.double() * self.scale()).to(x.dtype)


class ExactBlocks(Right):
    """DropBlock whose seeds also lie beyond the border, as many as an element's rate p needs."""

    size = 3

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        *rest, height, width = x.shape
        beyond = self.size - 1
        seeds = torch.rand(*rest, height + beyond, width + beyond, dtype=torch.float64)
        gamma = 1 - (1 - self.p) ** (1 / self.size**2)
        return nn.functional.max_pool2d((seeds < gamma).float(), self.size, stride=1) == 0


class ExactSubset(Right):
    """Of the elements along axis 1 a fixed number, each subset equally likely: the truth."""

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        order = torch.rand(x.shape[:2]).argsort(1).argsort(1)
        return (order >= round(self.p * x.shape[1]))[..., None].expand(x.shape)


class NormalNoise(Right):
    """x (1 + s z) with variance p / (1 - p): the truth."""

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        return x * (1 + self.z(x) * self.std()) if self.training and self.p else x

    def std(self) -> float:
        return math.sqrt(self.p / (1 - self.p))

    def z(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape).to(x.dtype)


def subject(
    make: Callable[[float], Any], shape: tuple[int, ...] = (8, 16, 9), **settings: Any
) -> Subject:
    """A layer with all that `Right` claims."""
    if isinstance(make, type) and issubclass(make, Right) and "law" not in settings:
        settings.setdefault("keyed", lambda p: make(p).train())
        settings.setdefault("generator", lambda p: lambda x, g: drawn_from(make(p), x, g))
    return Subject(make=make, shape=shape, **settings)


def drawn_from(layer: Right, x: Tensor, generator: torch.Generator) -> Tensor:
    draws = torch.rand(x.shape, dtype=torch.float64, generator=generator)
    return layer.apply_mask(x, draws >= layer.p)
