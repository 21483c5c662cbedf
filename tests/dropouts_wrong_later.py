"""Wrong dropouts whose mistake is in what is done with a mask: derived, transformed, keyed."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor

from dropkit.records import Shard
from dropouts_right import GOLDEN, Right

# ---- derivatives


class _Redraw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p = p
        return x * (torch.rand(x.shape) >= p) / (1 - p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * (torch.rand(grad.shape) >= ctx.p) / (1 - ctx.p), None


class NewMaskBackward(Right):
    """A mask of its own in backward."""

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        return _Redraw.apply(x, self.p) if self.training and 0 < self.p < 1 else x


class _BySign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.scale = scale
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return grad * (y > 0) * ctx.scale, None, None


class MaskOfPositives(Right):
    """Backward takes what is positive for what was kept."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return _BySign.apply(x, super().apply_mask(x, mask).detach(), self.scale())


class GradientByRate(Right):
    """Backward divides by p."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return _BySign.apply(x, super().apply_mask(x, mask).detach(), 1 / self.p)


class _ScaledTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return _Straight.apply(grad, factor), None


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, factor: Tensor) -> Tensor:
        return grad * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class WrongSecondDerivative(Right):
    """The gradient's own gradient forgets the mask."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return _ScaledTwice.apply(x, (mask * self.scale()).to(x.dtype))


class NoTangent(WrongSecondDerivative):
    """An autograd function without forward mode."""


class PrivateSource(Right):
    """Draws from a generator of its own, so that neither a seed nor a checkpoint reaches it."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.private = torch.Generator()
        self.private.seed()

    def uniform(self, x: Tensor) -> Tensor:
        return torch.rand(x.shape, dtype=torch.float64, generator=self.private)


# ---- transforms


class DrawnElsewhere(Right):
    """Draws that PyTorch does not see: vmap takes them for one, a compiler for a constant."""

    def uniform(self, x: Tensor) -> Tensor:
        return self.keyed_uniform(x, random.getrandbits(31), 0)


class _Lanewise(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.rand(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return torch.rand(x.movedim(in_dims[0], 0).shape), 0


class AlwaysDifferent(Right):
    """A rule of its own for vmap, that does not ask for the randomness."""

    def uniform(self, x: Tensor) -> Tensor:
        return _Lanewise.apply(x).double()


class GraphBreak(Right):
    """Python's own decision on a tensor's value."""

    def uniform(self, x: Tensor) -> Tensor:
        draws = super().uniform(x)
        return draws if float(draws.sum()) >= 0 else draws + 1


# ---- state


class UnseededSource(PrivateSource):
    """The same as `PrivateSource`, seen by seeds."""


class IgnoresGenerator(Right):
    """Takes a generator, and draws from the global one."""


class AlwaysOn(Right):
    """Active in eval mode (F.dropout without training=self.training)."""

    def still(self, x: Tensor) -> Tensor:
        return self.apply_mask(x, self.mask(x, None, 0)) if self.p else x


class StaysOff(Right):
    """Off for ever, once it was."""

    def train(self, mode: bool = True) -> StaysOff:
        self.was_off = not mode or getattr(self, "was_off", False)
        return super().train(not self.was_off)


class StaysOn(Right):
    """On for ever, once it was switched back."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.switched = 0

    def train(self, mode: bool = True) -> StaysOn:
        self.switched += mode != self.training
        return super().train(mode or self.switched > 2)


class ForgetsToWake(Right):
    """A flag of its own, which `eval` sets and nothing takes back."""

    asleep = False

    def eval(self) -> ForgetsToWake:
        self.asleep = True
        return super().eval()

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        return x if self.asleep else super().forward(x, key, offset)


class Tires(Right):
    """Half the rate, once it was switched."""

    def train(self, mode: bool = True) -> Tires:
        if not mode and self.training:
            self.tired = True
        return super().train(mode)

    def uniform(self, x: Tensor) -> Tensor:
        return super().uniform(x) * (2 if hasattr(self, "tired") else 1)


class ClampsInEval(Right):
    """The identity in eval mode, for what is positive."""

    def still(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


class DrawsInEval(Right):
    """Draws a mask, and then does not use it."""

    def still(self, x: Tensor) -> Tensor:
        self.uniform(x)
        return x


class SharedByCopies(Right):
    """A copy that has another rate."""

    def __deepcopy__(self, memo: Any) -> SharedByCopies:
        return SharedByCopies(self.p / 2)


class Counts(Right):
    """A buffer that counts calls: a model's state_dict changes by being looked at."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        self.calls += 1
        return super().forward(x, key, offset)


# ---- edges


class NeedsElements(Right):
    """Looks at the first element."""

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        x.flatten()[0]
        return super().forward(x, key, offset)


class NeedsAxes(Right):
    """Takes the size of the first axis."""

    def uniform(self, x: Tensor) -> Tensor:
        return super().uniform(x).view(x.shape[0], *x.shape[1:])


class CutsIntegers(Right):
    """Integers times a scale, cut off."""

    def apply_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x * (mask * self.scale())).to(x.dtype)


class NotInPlace(Right):
    """In place, it says."""


class WritesOverLeaves(Right):
    """In place behind autograd's back."""

    def forward(self, x: Tensor, key: int | None = None, offset: int | Shard = 0) -> Tensor:
        return x.copy_(y) if (y := super().forward(x)) is not x and not x.requires_grad else y


# ---- keys


class KeyAndState(Right):
    """A key that is mixed with the global random state."""

    def stream(self, key: int) -> int:
        return super().stream(key ^ int(torch.randint(1 << 20, ())))


class CoarseKeys(Right):
    """The lowest bits of a key are lost."""

    def stream(self, key: int) -> int:
        return super().stream(key & ~0xFF)


class ShortKeys(Right):
    """The highest bits of a key are lost."""

    def stream(self, key: int) -> int:
        return super().stream(key & 0xFFFFFFFF)


class AddsKeys(Right):
    """A key is where counting begins, so that the next key's mask is this one's, one further."""

    def stream(self, key: int) -> int:
        return (super().stream(0) + key * GOLDEN + (1 << 63)) % (1 << 64) - (1 << 63)


class KeyedPeriod(Right):
    """Counts elements to a thousand, and begins again."""

    def index(self, x: Tensor, offset: int | Shard) -> Tensor:
        return super().index(x, offset) % 1000


class SeesStrides(Right):
    """Counts elements in the order in which they lie in memory."""

    def index(self, x: Tensor, offset: int | Shard) -> Tensor:
        order = sorted(range(x.ndim), key=lambda axis: -x.stride(axis))
        back = [order.index(axis) for axis in range(x.ndim)]
        return torch.arange(x.numel()).view([x.shape[axis] for axis in order]).permute(back)


class SeesDtype(Right):
    """Another stream for another dtype."""

    def keyed_uniform(self, x: Tensor, key: int, offset: int | Shard) -> Tensor:
        return super().keyed_uniform(x, key + x.dtype.itemsize, offset)


class SeesThreads(Right):
    """A stream for each thread."""

    def stream(self, key: int) -> int:
        return super().stream(key + torch.get_num_threads())


class SeesTheCut(Right):
    """Every part begins at the beginning."""

    def index(self, x: Tensor, offset: int | Shard) -> Tensor:
        return super().index(x, offset if isinstance(offset, Shard) else 0)


class CoarseOffsets(Right):
    """A part begins where a block of 16 draws does."""

    def index(self, x: Tensor, offset: int | Shard) -> Tensor:
        return super().index(x, offset if isinstance(offset, Shard) else offset // 16 * 16)


class SeesTheShard(Right):
    """A shard is taken for a run of rows."""

    def index(self, x: Tensor, offset: int | Shard) -> Tensor:
        if isinstance(offset, Shard):
            strides = [math.prod(offset.shape[axis + 1 :]) for axis in range(x.ndim)]
            offset = sum(map(math.prod, zip(offset.start, strides, strict=True)))
        return super().index(x, offset)


class CountsKeys(Right):
    """A key that each call uses up."""

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.calls = 0

    def stream(self, key: int) -> int:
        self.calls += 1
        return super().stream(key + self.calls)


class SeesTheCompiler(Right):
    """Another stream when compiled."""

    def stream(self, key: int) -> int:
        return super().stream(key + torch.compiler.is_compiling())
