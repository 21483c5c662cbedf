"""What a site does in several draws at once.

Draw k of a site is a run of its stream: `mask[k * n + i]` for the i-th of the n elements that one
draw has. So a draw is the same alone, beside others, and in whatever order.

A law is called with the number of the first draw, and with tensors whose first axis is the draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dropkit import functional, kernel
from dropkit.intercept import Operation
from dropkit.kernel import Key


class Law(Protocol):
    """Gives what becomes of tensors (count, ...) in the draws first, first + 1, ...."""

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """For draws first to first + count - 1."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Dropout of a value, by torch's name of it."""

    name: str
    rate: float
    key: Key
    shared: tuple[int, ...] = ()
    """Axes of one draw along which it is shared, beside those that the name says."""

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """x (count, ...) with a part dropped."""
        (x,) = values
        axes = tuple(axis + 1 for axis in self.shared)
        place: dict[str, Any] = {"key": self.key, "offset": first * math.prod(x.shape[1:])}
        if self.name.endswith("alpha_dropout"):
            return functional.alpha_dropout(x, self.rate, shared=axes, **place)
        return functional.dropout(x, self.rate, shared=axes, **place)


def dropping(call: Operation, rate: float, key: Key, batch: int | None = None) -> Law:
    """The law of a call; `batch`: an axis along which its masks are shared, too."""
    if call.is_attention:
        return Attend(call, rate, key, () if batch is None else (batch,))
    shared = set(_spatial(call.name, call.x.dim()))
    if batch is not None:
        shared.add(batch)
    name = call.name.removesuffix("_").removeprefix("feature_")
    return Drop(name, rate, key, tuple(sorted(shared)))


def _spatial(name: str, rank: int) -> range:
    """Axes behind the channels, of what is dropped by channels."""
    name = name.removesuffix("_")
    if name in ("dropout1d", "dropout2d", "dropout3d"):
        # As torch has it: without a batch the channels come first; not so for 2-d, where it warns.
        unbatched = rank == int(name[-2]) + 1 and name != "dropout2d"
        return range(1 if unbatched else 2, rank)
    return range(2, rank) if name.startswith("feature_") else range(0)


@dataclass(frozen=True, slots=True)
class Attend:
    """Attention that drops some of its weights."""

    call: Operation
    rate: float
    key: Key
    shared: tuple[int, ...] = ()
    """Axes of the weights of one draw along which a mask is shared."""

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """Of query, key and value (count, ..., length, width), and maybe a mask of scores."""
        query, key = values[:2]
        offset = first * math.prod(query.shape[1:-1]) * key.shape[-2]
        if self.shared:
            axes = tuple(axis + 1 for axis in self.shared)
            return self.by_parts(
                lambda weights: functional.dropout(
                    weights, self.rate, shared=axes, key=self.key, offset=offset
                ),
                *values,
            )
        return functional.scaled_dot_product_attention(
            *self._aligned(values), self.rate, dropout_key=self.key, offset=offset, **self._options
        )

    def by_parts(self, drop: Callable[[Tensor], Tensor], *values: Tensor) -> Tensor:
        """The same, whatever becomes of the weights (count, ..., length, length)."""
        return _attended(*self._aligned(values), self._options, drop)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: self.call.arguments[name] for name in ("is_causal", "scale", "enable_gqa")}

    def _aligned(self, values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        query, key, value, *masks = values
        return query, key, value, _aligned(masks[0], query.dim()) if masks else None


def _aligned(mask: Tensor, rank: int) -> Tensor:
    """A mask (count, ...) of fewer axes, which broadcasts behind the first."""
    return mask.reshape(mask.shape[0], *[1] * (rank - mask.dim()), *mask.shape[1:])


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: Any,
    drop: Callable[[Tensor], Tensor],
) -> Tensor:
    """Attention by its definition, with all weights at once."""
    if options["enable_gqa"]:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
    scale = options["scale"] or 1 / math.sqrt(query.shape[-1])
    scores = query @ key.mT * scale
    if options["is_causal"]:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    result: Tensor = drop(scores.softmax(-1).nan_to_num(0.0)) @ value
    return result


@dataclass(frozen=True, slots=True)
class Noise:
    """Values that hang on nothing: of the uniform law, the normal one, or 1 with a probability."""

    name: str
    shape: tuple[int, ...]
    key: Key
    dtype: torch.dtype
    device: torch.device
    low: float = 0.0
    """Of the uniform law: where it begins; of the normal one: its mean."""
    width: float = 1.0
    """Of the uniform law: how far it goes; of the normal one: its deviation."""
    probability: float = 0.5

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """(count, ...); `values`: probabilities (count, ...), where they differ."""
        shape = (count, *self.shape)
        place: dict[str, Any] = {"key": self.key, "offset": first * math.prod(self.shape)}
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        if self.name == "binary" and not values:
            kept = kernel.keep(shape, 1 - self.probability, device=self.device, **place)
            return kept.to(self.dtype)
        if self.name == "normal":
            drawn = kernel.normal(shape, device=self.device, dtype=wide, **place)
        else:
            drawn = kernel.uniform(shape, device=self.device, dtype=wide, **place)
        if values:
            return (drawn < values[0]).to(self.dtype)
        return (drawn * self.width + self.low).to(self.dtype)


def noise(
    function: Any, args: Sequence[Any], kwargs: Any, key: Key
) -> tuple[Noise, tuple[Tensor, ...]] | None:
    """A call that draws as a law, with what it hangs on; None: of another form."""
    name = function.__name__
    if {"generator", "out"} & kwargs.keys():
        return None
    if name in ("rand", "randn"):
        return _made(name, args, kwargs, key)
    x = args[0]
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    rest = [*args[1:], *(value for word, value in kwargs.items() if word != "memory_format")]
    dtype = kwargs.get("dtype") or x.dtype
    law = Noise(_LAWS[name], tuple(x.shape), key, dtype, x.device)
    if name in ("rand_like", "randn_like"):
        return (law, ()) if kwargs.keys() <= {"dtype"} else None
    if name == "bernoulli" and not rest:
        return law, (x,)
    if name in ("bernoulli", "bernoulli_"):
        return _binary(law, rest)
    if not all(type(value) in (int, float) for value in rest) or len(rest) > 2 or kwargs:
        return None
    low, high = (*rest, 0.0, 1.0)[:2] if len(rest) != 1 else (rest[0], 1.0)
    width = high - low if law.name == "uniform" else high
    return Noise(law.name, law.shape, key, dtype, x.device, float(low), float(width)), ()


_LAWS = {
    "rand_like": "uniform",
    "uniform_": "uniform",
    "randn_like": "normal",
    "normal_": "normal",
    "bernoulli": "binary",
    "bernoulli_": "binary",
}


def _binary(law: Noise, rest: Sequence[Any]) -> tuple[Noise, tuple[Tensor, ...]] | None:
    chance = rest[0] if rest else 0.5
    if isinstance(chance, Tensor):
        return law, (chance.expand(law.shape),)
    fields = (law.name, law.shape, law.key, law.dtype, law.device)
    return Noise(*fields, probability=float(chance)), ()


def _made(
    name: str, args: Sequence[Any], kwargs: Any, key: Key
) -> tuple[Noise, tuple[Tensor, ...]] | None:
    """torch.rand and torch.randn: sizes, dtype and device."""
    sizes = kwargs.get("size", args[0] if len(args) == 1 and not isinstance(args[0], int) else args)
    if kwargs.keys() - {"size", "dtype", "device", "requires_grad", "layout", "pin_memory"}:
        return None
    if not all(isinstance(size, int) for size in sizes):
        return None
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    device = torch.device(kwargs.get("device") or torch.get_default_device())
    law = "uniform" if name == "rand" else "normal"
    return Noise(law, tuple(sizes), key, dtype, device), ()
