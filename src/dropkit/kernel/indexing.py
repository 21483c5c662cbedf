"""The number that each element of a tensor has in the stream of its mask.

An element with coordinates c has the mask index base + sum(c * strides). Along an axis that shares
one draw the stride is 0. A shard has the strides of the whole tensor, and another base; so a mask
does not depend on how the tensor is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, NamedTuple

import torch

from dropkit.errors import SettingError
from dropkit.records import Shard


class Indexing(NamedTuple):
    """The mask strides of a tensor (None: row-major), and the index of its first element."""

    strides: tuple[int, ...] | None
    base: int


FLAT = Indexing(None, 0)


def indexing(sizes: Sequence[int], shared: Sequence[int] = (), offset: int | Shard = 0) -> Indexing:
    """The indexing of a tensor of `sizes`, with axes that share a draw, within a whole.

    >>> indexing((2, 3, 4), shared=(1,))
    Indexing(strides=(4, 0, 1), base=0)
    >>> indexing((1, 4), offset=Shard((2, 8), (1, 4)))
    Indexing(strides=(8, 1), base=12)
    """
    if isinstance(offset, Shard):
        whole, start = offset.shape, offset.start
        _check_shard(sizes, whole, start)
    elif not shared:
        return Indexing(None, _whole(offset))
    else:
        whole, start = tuple(sizes), _coordinates(sizes, _whole(offset))
    strides = mask_strides(whole, axes(shared, len(sizes)))
    base = sum(first * stride for first, stride in zip(start, strides, strict=True))
    return Indexing(strides, base)


def _whole(offset: Any) -> int:
    """An offset, also one of NumPy's integers, or a compiler's symbol for one."""
    if not isinstance(offset, int | torch.SymInt) and not hasattr(offset, "__index__"):
        raise SettingError(f"offset: expected an integer, or a Shard; got {offset!r}")
    if isinstance(offset, torch.SymInt):
        return offset  # type: ignore[return-value]
    return index(offset)


def check_axes(shared: object) -> None:
    """Axes are a sequence: an array has no truth value, and what is gone through once is empty."""
    if not isinstance(shared, Sequence):
        raise SettingError(f"shared: expected axes, such as (1,); got {shared!r}")


def axes(shared: Sequence[int], rank: int) -> frozenset[int]:
    """Axes counted from either end, as numbers from 0."""
    check_axes(shared)
    for axis in shared:
        if not hasattr(axis, "__index__") or not -rank <= axis < rank:
            raise SettingError(
                f"shared: expected axes of a tensor with {rank} dimensions, from {-rank} to "
                f"{rank - 1}; got {axis}"
            )
    return frozenset(index(axis) % rank for axis in shared)


def mask_strides(sizes: Sequence[int], shared: frozenset[int]) -> tuple[int, ...]:
    """Row-major strides over the axes that do not share a draw; 0 along those that do."""
    strides, step = [], 1
    for axis in reversed(range(len(sizes))):
        strides.append(0 if axis in shared else step)
        step *= 1 if axis in shared else sizes[axis]
    return tuple(reversed(strides))


def mask_sizes(sizes: Sequence[int], shared: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the mask itself: 1 along each shared axis."""
    alike = axes(shared, len(sizes))
    return tuple(1 if axis in alike else size for axis, size in enumerate(sizes))


def _coordinates(sizes: Sequence[int], offset: int) -> tuple[int, ...]:
    """Where a tensor begins that is a run of whole rows of a longer one."""
    if isinstance(offset, int) and offset == 0:
        return (0,) * len(sizes)
    row = 1
    for size in sizes[1:]:
        row *= size
    if not sizes or row == 0:
        return (0,) * len(sizes)
    if offset % row:
        raise SettingError(
            f"offset: with shared axes, expected a multiple of the {row} elements of a row, since "
            f"a shared draw spans whole rows; got {offset}. For a cut along another axis, try "
            "offset=Shard(shape of the whole, start of this part)"
        )
    return (offset // row,) + (0,) * (len(sizes) - 1)


def _check_shard(sizes: Sequence[int], whole: Sequence[int], start: Sequence[int]) -> None:
    fits = len(sizes) == len(whole) == len(start) and all(
        first >= 0 and first + size <= total
        for size, total, first in zip(sizes, whole, start, strict=True)
    )
    if not fits:
        raise SettingError(
            f"offset: expected a Shard that holds this tensor of shape {tuple(sizes)}; got a whole "
            f"of shape {tuple(whole)} and a start of {tuple(start)}"
        )
