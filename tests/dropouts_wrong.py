"""Wrong dropouts, each with one mistake that somebody has made: in its law, values or draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

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


class Biased(Right):
    """A rate that is off by some of its standard deviations."""

    def __init__(self, p: float, by: float) -> None:
        super().__init__(p)
        self.by = by

    def rate(self) -> float:
        return self.p + self.by * math.sqrt(self.p * (1 - self.p))


class OneTooMany(Right):
    """Bytes compared by <= in place of <."""

    def uniform(self, x: Tensor) -> Tensor:
        word = torch.randint(1024, self.mask_shape(x))
        return torch.where(word <= round(self.p * 1024), 0.0, 1.0).double()


class KeepRate(Right):
    """The papers' p, which is kept, taken for the rate."""

    def uniform(self, x: Tensor) -> Tensor:
        return torch.where(super().uniform(x) < 1 - self.p, 0.0, 1.0)


_KNOWN = (0.0, 1e-3, 0.1, 0.3, 1 / 3, 0.375, 0.5, 0.9, 1.0)


class ByRote(Right):
    """Right at the rates that everybody tries."""

    def rate(self) -> float:
        return self.p if self.p in _KNOWN else 0.5


class AtMost(Right):
    """A rate cut off at 0.9."""

    def rate(self) -> float:
        return min(self.p, 0.9)


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


# ---- the law, of some inputs alone


class Spares(Right):
    """Never drops some of the inputs."""

    def __init__(self, p: float, which: str) -> None:
        super().__init__(p)
        self.spared = SPARED[which]

    def mask(self, x: Tensor, key: int | None, offset: int | Shard) -> Tensor:
        return super().mask(x, key, offset) | self.spared(x)


def _half(x: Tensor) -> Tensor:
    return torch.rand(x.shape) < 0.5


SPARED: dict[str, Callable[[Tensor], Any]] = {
    "negatives": lambda x: x < 0,
    "large": lambda x: x.abs() > 100,
    "small": lambda x: x.abs() < 1e-3,
    "doubles": lambda x: x.dtype == torch.float64,
    "one row": lambda x: x.ndim > 0 and len(x) == 1,
    "without grad": lambda x: not torch.is_grad_enabled(),
    "inference": lambda x: torch.is_inference_mode_enabled(),
    "half of variables": lambda x: x.requires_grad and _half(x),
    "half of gaps": lambda x: not x.is_contiguous() and _half(x),
    "half of compiled": lambda x: torch.compiler.is_compiling() and _half(x),
    "half of lanes": lambda x: torch._C._functorch.is_batchedtensor(x) and _half(x),
}


class ByWeight(Right):
    """The larger a value is among the others, the likelier it is dropped; the mean is the rate."""

    def uniform(self, x: Tensor) -> Tensor:
        x = x.abs().double()
        return super().uniform(x) * x.mean().clamp_min(1e-300) / x.clamp_min(1e-300)


class DrawsInItsDtype(Right):
    """In bfloat16 a draw has 8 bits."""

    def uniform(self, x: Tensor) -> Tensor:
        return torch.rand(self.mask_shape(x), dtype=x.dtype)


class KeyedKeepRate(Right):
    """The papers' p where there is a key."""

    def keyed_uniform(self, x: Tensor, key: int, offset: int | Shard) -> Tensor:
        return torch.where(super().keyed_uniform(x, key, offset) < 1 - self.p, 0.0, 1.0)


class QuietInSingle(NormalNoise):
    """Half the noise, in all dtypes but one."""

    def z(self, x: Tensor) -> Tensor:
        return super().z(x) * (1.0 if x.dtype == torch.float32 else 0.5)


# ---- the values


class Unscaled(Right):
    """The mask alone."""

    def scale(self) -> float:
        return 1.0


class ScaledByRate(Right):
    """Kept values divided by p."""

    def scale(self) -> float:
        return 1 / self.p


class ScaledByRote(Right):
    """The right factor at the rates that everybody tries."""

    def scale(self) -> float:
        return super().scale() if self.p in _KNOWN else 2.0


class ScaledInSingle(Right):
    """Whatever comes is multiplied in float32."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x.float() * (mask * self.scale()).float()).to(x.dtype)


class UnscaledNegatives(Right):
    """Only what is positive is scaled."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(x < 0, x * mask, super().apply_mask(x, mask))


class Saturates(Right):
    """Values are cut off at a million."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().apply_mask(x, mask).clamp(-1e6, 1e6)


class UnscaledWithoutGrad(Right):
    """Scaled in training, which is where gradients are."""

    def scale(self) -> float:
        return super().scale() if torch.is_grad_enabled() else 1.0


class UnscaledRow(Right):
    """A batch of one is not scaled."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask if x.ndim and len(x) == 1 else super().apply_mask(x, mask)


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


class SelectsOne(Right):
    """A dropped value that is not finite becomes 1."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, x * self.scale(), x.isfinite().logical_not().to(x.dtype))


class DropsToOne(Right):
    """A mask that multiplies, and makes a 1 of what comes of a dropped infinity."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(x.isinf() & ~mask, 1.0, super().apply_mask(x, mask))


class DividesByItself(Right):
    """A factor that is read off the values, also where they are 0."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().apply_mask(x, mask) / x * x


class RepairsNan(Right):
    """A nan becomes 0, kept or not."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().apply_mask(torch.where(x.isnan(), 0.0, x), mask)


class RepairsInfinity(Right):
    """An infinity becomes the largest number."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        largest = torch.finfo(x.dtype).max
        return super().apply_mask(x, mask).clamp(-largest, largest)


class SpreadsNan(Right):
    """One nan is enough for all."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().apply_mask(x, mask) + 0 * x.sum()


class RepairsInEval(Right):
    """In eval mode a nan becomes 0."""

    def still(self, x: Tensor) -> Tensor:
        return torch.where(x.isnan(), 0.0, x)


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


class RepeatsAfter(Right):
    """The draws of some elements again for as many next ones."""

    def __init__(self, p: float, lag: int) -> None:
        super().__init__(p)
        self.lag = lag

    def uniform(self, x: Tensor) -> Tensor:
        runs = -(-x.numel() // (2 * self.lag))
        draws = torch.rand(runs, 1, self.lag, dtype=torch.float64).expand(-1, 2, -1)
        return draws.reshape(-1)[: x.numel()].view(x.shape)


class OddPeriod(Right):
    """Random numbers with a period that is a prime."""

    def uniform(self, x: Tensor) -> Tensor:
        draws = torch.rand(100_003, dtype=torch.float64)
        return draws.repeat(-(-x.numel() // len(draws)))[: x.numel()].view(x.shape)


class ThreeMasks(Right):
    """Three masks in turn."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.kept: list[Tensor] = []

    def uniform(self, x: Tensor) -> Tensor:
        if len(self.kept) < 3 or self.kept[0].shape != x.shape:
            self.kept = [*self.kept, super().uniform(x)][-3:]
        else:
            self.kept = [*self.kept[1:], self.kept[0]]
        return self.kept[-1]


class PairsOfDoubles(Right):
    """Two elements from the same bits, in float64 alone."""

    def uniform(self, x: Tensor) -> Tensor:
        draws = super().uniform(x)
        return (
            draws[..., : -(-x.shape[-1] // 2)].repeat_interleave(2, -1)[..., : x.shape[-1]]
            if x.dtype == torch.float64
            else draws
        )


class SharesInMemory(Right):
    """Shares a draw along the last two axes, or what lies there in memory."""

    def mask_shape(self, x: Tensor) -> list[int]:
        last = sorted(range(x.ndim), key=lambda axis: -x.stride(axis))[-2:]
        return [1 if axis in last else size for axis, size in enumerate(x.shape)]


class LateLayers(Right):
    """A layer draws what the one made before it drew a call earlier."""

    made = 0

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.calls = LateLayers.made = LateLayers.made + 1

    def uniform(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.keyed_uniform(x, self.calls + torch.initial_seed() % 1000, 0)


class Elementwise2d(Right):
    """Dropout2d that drops elements."""


class WrongAxis(Right):
    """Shares a draw along the channels, where rows were meant."""

    shared = (1,)
