"""Steps of a tape that are not the operators that ran.

An operator that writes becomes one that gives; keys that layers ask for, one for each draw; and
attention, for which vmap has no rule, all draws as one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropkit.kernel import derive, signed

_aten = torch.ops.aten
ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu.default


@dataclass(frozen=True, slots=True)
class Keys:
    """The law of keys that layers ask for: the n-th of a draw, as `keyed` counts them."""

    key: int
    number: int
    device: torch.device

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """(count,)"""
        draws = range(first, first + count)
        words = [signed(derive(derive(self.key, draw), self.number)) for draw in draws]
        return torch.tensor(words, dtype=torch.int64, device=self.device)


@dataclass(frozen=True, slots=True)
class Attention:
    """Torch's attention on CPUs, of all draws as one batch."""

    options: tuple[Any, ...]
    named: dict[str, Any]

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """Of query, key, value and maybe a mask of scores, each (count, batch, ...)."""
        query, key, value, *masks = (x.flatten(0, 1) for x in values)
        named = dict(self.named)
        if masks:
            named["attn_mask"] = masks[0].expand(len(query), *masks[0].shape[1:])
        result: Tensor = ATTENTION(query, key, value, *self.options, **named)[0]
        return result.reshape(count, -1, *result.shape[1:])


class Copy:
    """The law of what is the same in each draw, at first: a copy for each, to be written into."""

    def __call__(self, first: int, count: int, *values: Tensor) -> Tensor:
        """The same values, in memory of their own."""
        return values[0].clone(memory_format=torch.contiguous_format)


Position = int | str
"""Of an argument: its place, or its name."""


def _call(func: Any, given: dict[Position, Any]) -> None:
    places = [value for at, value in given.items() if isinstance(at, int)]
    func(*places, **{at: value for at, value in given.items() if isinstance(at, str)})


class Written:
    """An operator that writes into one of its arguments, as one that gives a new value."""

    def __init__(self, func: Any, position: Position) -> None:
        self.func, self.position = func, position

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """What it writes."""
        given = dict(enumerate(args)) | kwargs
        given[self.position] = copy = given[self.position].clone()
        _call(self.func, given)
        return copy  # type: ignore[no-any-return]


class Partly:
    """An operator that writes into a part of one of its arguments, as one that gives the whole."""

    def __init__(
        self, func: Any, position: Position, shape: list[int], stride: list[int], offset: int
    ) -> None:
        self.func, self.position, self.place = func, position, (shape, stride, offset)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The whole that it writes into."""
        given = dict(enumerate(args)) | kwargs
        base: Tensor = given[self.position]
        given[self.position] = base.as_strided(*self.place)
        _call(self.func, given)
        return base


def twin(func: Any) -> Any:
    """The operator that gives what another writes: add for add_; None: there is none."""
    room, _, name = func._schema.name.partition("::")
    packet = getattr(_aten, name.removesuffix("_"), None) if room == "aten" else None
    return getattr(packet, func._overloadname, None) if name.endswith("_") else None


def giving(func: Any) -> Any:
    """The operator that gives what another writes to `out`; None: there is none."""
    room, _, name = func._schema.name.partition("::")
    packet = getattr(_aten, name, None) if room == "aten" else None
    wanted = _taken(func)
    for overload in packet.overloads() if packet is not None else ():
        other = getattr(packet, overload)
        if _taken(other) == wanted and not other._schema.is_mutable:
            return other
    return None


def _taken(func: Any) -> list[tuple[str, str]]:
    """Names and types of what an operator takes, but for where it writes."""
    taken = func._schema.arguments
    return [(one.name, str(one.type)) for one in taken if one.name != "out"]
