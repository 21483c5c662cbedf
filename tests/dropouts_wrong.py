"""Wrong dropouts, each with one mistake that somebody has made: in its law, values or draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dropkit.records import Shard
from dropouts_right import ExactBlocks, ExactSubset, NormalNoise, Right

# ---- the law


class EightBits(Right):
    """A rate in 256ths: 0.1 becomes 26/256."""

    def uniform(self, x: Tensor) -> Tensor:
        byte = torch.randint(256, self.mask_shape(x))
        return torch.where(byte < round(self.p * 256), 0.0, 1.0).double()


class OneTooMany(Right):
    """Bytes compared by <= in place of <."""

    def uniform(self, x: Tensor) -> Tensor:
        word = torch.randint(1024, self.mask_shape(x))
        return torch.where(word <= round(self.p * 1024), 0.0, 1.0).double()


class KeepRate(Right):
    """The papers' p, which is kept, taken for the rate."""

    def uniform(self, x: Tensor) -> Tensor:
        return torch.where(super().uniform(x) < 1 - self.p, 0.0, 1.0)


class SparedBorder(Right):
    """The last column is never dropped."""

    def uniform(self, x: Tensor) -> Tensor:
        draws = super().uniform(x)
        draws[..., -1:] = 1.0
        return draws


class SeedsOfBlocks(ExactBlocks):
    """DropBlock by its paper's gamma, which ignores that blocks overlap, and spares borders."""

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        b = self.size
        *rest, height, width = x.shape
        inner = (height - b + 1) * (width - b + 1)
        gamma = self.p * height * width / b**2 / inner
        seeds = torch.rand(*rest, height - b + 1, width - b + 1, dtype=torch.float64) < gamma
        padded = nn.functional.pad(seeds.float(), (b - 1,) * 4)
        return nn.functional.max_pool2d(padded, b, stride=1) == 0


class TornBlocks(ExactBlocks):
    """Elements in place of blocks."""

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        return torch.rand(x.shape, dtype=torch.float64) >= self.p


class AboutSoMany(ExactSubset):
    """So many on average."""

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        rate = round(self.p * x.shape[1]) / x.shape[1]
        return (torch.rand(x.shape[:2]) >= rate)[..., None].expand(x.shape)


class TheFirst(ExactSubset):
    """The right number, and always the same ones."""

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        order = torch.arange(x.shape[1])[:, None]
        return (order >= round(self.p * x.shape[1])).expand(x.shape)


class FlatNoise(NormalNoise):
    """Uniform noise of the same variance."""

    def z(self, x: Tensor) -> Tensor:
        return (torch.rand(x.shape) - 0.5).to(x.dtype) * math.sqrt(12)


class NoiseOfRate(NormalNoise):
    """Variance p."""

    def std(self) -> float:
        return math.sqrt(self.p)


class LoudNoise(NormalNoise):
    """Noise that is not around zero."""

    def z(self, x: Tensor) -> Tensor:
        return super().z(x) + 0.1


# ---- the values


class Unscaled(Right):
    """The mask alone."""

    def scale(self) -> float:
        return 1.0


class ScaledByRate(Right):
    """Kept values divided by p."""

    def scale(self) -> float:
        return 1 / self.p


class Classic(Unscaled):
    """Classic scaling, in eval mode, under the name of the inverted one."""

    def still(self, x: Tensor) -> Tensor:
        return x * (1 - self.p)


class LeakyMask(Right):
    """Dropped values that are only nearly zero."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().apply_mask(x, mask) + 1e-7 * ~mask * x


class HalfScale(Right):
    """The scale rounded to the half first."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask.to(x.dtype).mul(self.scale())


class NotQuiteIdentity(Right):
    """Rate 0 that copies through another dtype."""

    def still(self, x: Tensor) -> Tensor:
        return x.half().to(x.dtype) if self.p == 0 else x


class DividedByZero(Right):
    """Rate 1 without a case of its own."""

    def nothing(self, x: Tensor) -> Tensor:
        return x * torch.zeros_like(x) / (1 - torch.tensor(self.p))


class Multiplies(Right):
    """A mask that multiplies, while selection is claimed."""


# ---- independence


class OneMask(Right):
    """The mask of the first call, for ever."""

    def uniform(self, x: Tensor) -> Tensor:
        if not hasattr(self, "kept") or self.kept.shape != x.shape:
            self.kept = super().uniform(x)
        return self.kept


class PeriodicCalls(Right):
    """Every second call repeats the one before it."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.calls = 0

    def uniform(self, x: Tensor) -> Tensor:
        if self.calls % 2 == 0 or self.kept.shape != x.shape:
            self.kept = super().uniform(x)
        self.calls += 1
        return self.kept


class OneStreamForAll(Right):
    """Every layer counts its calls from 0, and the count is the key."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.calls = torch.initial_seed() % 1000

    def uniform(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.keyed_uniform(x, self.calls, 0)


class OneForTheBatch(Right):
    """One mask for all rows, by a shape that was meant to broadcast."""

    def uniform(self, x: Tensor) -> Tensor:
        return super().uniform(x[:1]).expand(x.shape)


class Pairs(Right):
    """Two elements from the same bits."""

    def uniform(self, x: Tensor) -> Tensor:
        return (
            torch.rand(-(-x.numel() // 2), dtype=torch.float64)
            .repeat_interleave(2)[: x.numel()]
            .view(x.shape)
        )


class Short(Right):
    """Random numbers with a period of 2**16."""

    def uniform(self, x: Tensor) -> Tensor:
        draws = torch.rand(1 << 16, dtype=torch.float64)
        return draws.repeat(-(-x.numel() // (1 << 16)))[: x.numel()].view(x.shape)


class Elementwise2d(Right):
    """Dropout2d that drops elements."""


class WrongAxis(Right):
    """Shares a draw along the channels, where rows were meant."""

    shared = (1,)
