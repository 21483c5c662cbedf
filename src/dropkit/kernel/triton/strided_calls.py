"""Masks of any layout and of rates that differ from element to element.

Strides are in elements, one per size. A mask stride of 0 shares a draw along its axis; a rate
stride of 0 broadcasts. Where x is None every x is 1, so that y becomes the factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dropkit.kernel.triton.launch import (
    draw,
    launch,
    limits,
    numbers,
    refines,
    supported,
    tile,
    tiles,
)

RANK = 6
"""Axes that the kernel can walk, after those that move alike were merged."""

WARPS = 4
TILE = 1024
"""Elements in a tile that draws for each: 8 per thread, of which each costs two Philox."""

LINES = 128
"""Blocks of 16 in a tile that draws by blocks: one for each thread."""

Axis = tuple[int, int, int, int, int]
"""The size of an axis, and its strides in y, x, mask and rates."""


def strided(
    x: Tensor | None,
    y: Tensor,
    sizes: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
    shift: float = 0.0,
    fill: float = 0.0,
) -> None:
    """y = kept ? x * scale + shift : fill."""
    supported(x, y)
    axes = merged(sizes, y_strides, x_strides, mask_strides, (0,) * len(sizes))
    _run(x, y, None, None, axes, key, base, threshold, (scale, shift, fill))


def rated(
    x: Tensor | None,
    y: Tensor,
    sizes: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    key: int | Tensor,
    base: int,
    thresholds: Tensor,
    scales: Tensor,
    rate_strides: Sequence[int],
) -> None:
    """y = kept ? x * scale : 0, with a threshold (int64) and a scale for each element."""
    supported(x, y, scales)
    axes = merged(sizes, y_strides, x_strides, mask_strides, rate_strides)
    _run(x, y, thresholds, scales, axes, key, base, None, (1.0, 0.0, 0.0))


def keep(
    y: Tensor,
    sizes: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    key: int | Tensor,
    base: int,
    threshold: int,
) -> None:
    """y (bool) = kept."""
    none = (0,) * len(sizes)
    axes, flags = merged(sizes, y_strides, none, mask_strides, none), y.view(torch.uint8)
    _run(None, flags, None, None, axes, key, base, threshold, (1.0, 0.0, 0.0))


def rated_keep(
    y: Tensor,
    sizes: Sequence[int],
    y_strides: Sequence[int],
    mask_strides: Sequence[int],
    key: int | Tensor,
    base: int,
    thresholds: Tensor,
    rate_strides: Sequence[int],
) -> None:
    """y (bool) = kept, with a threshold (int64) for each element."""
    axes = merged(sizes, y_strides, (0,) * len(sizes), mask_strides, rate_strides)
    flags = y.view(torch.uint8)
    _run(None, flags, thresholds, None, axes, key, base, None, (1.0, 0.0, 0.0))


def merged(
    sizes: Sequence[int],
    y: Sequence[int],
    x: Sequence[int],
    mask: Sequence[int],
    rates: Sequence[int],
) -> list[Axis]:
    """The same elements in few axes: in the order of memory, none of size 1, runs joined.

    >>> merged((2, 3, 4), (12, 4, 1), (12, 4, 1), (3, 1, 0), (0, 0, 0))
    [(6, 4, 4, 1, 0), (4, 1, 1, 0, 0)]
    """
    axes: list[Axis] = []
    every = zip(sizes, y, x, mask, rates, strict=True)
    for axis in sorted((a for a in every if a[0] != 1), key=lambda a: -a[1]):
        size, *steps = axis
        if axes and list(axes[-1][1:]) == [size * step for step in steps]:
            axes[-1] = (axes[-1][0] * size, *axis[1:])
        else:
            axes.append(axis)
    return axes or [(1, 0, 0, 0, 0)]


def _run(
    x: Tensor | None,
    y: Tensor,
    thresholds: Tensor | None,
    scales: Tensor | None,
    axes: list[Axis],
    key: int | Tensor,
    base: int,
    threshold: int | None,
    values: tuple[float, float, float],
) -> None:
    if len(axes) > RANK:
        raise NotImplementedError(f"expected at most {RANK} axes after merging; got {len(axes)}")
    if not y.numel():
        return
    lines, inner = 1, axes[-1][0]
    for axis in axes[:-1]:
        lines *= axis[0]
    draws = "rated" if threshold is None else _draws(axes, base)
    rows, columns = _shape(draws, inner, lines)
    across = tiles(inner, columns)
    programs = tiles(lines * across, rows) if draws == "block" else tiles(lines, rows) * across
    size, *strides = zip(*[(1, 0, 0, 0, 0)] * (RANK - len(axes)), *axes, strict=True)
    limit = 0 if threshold is None else threshold
    launch(
        _kernels().strided_kernel, programs, y,
        y if x is None else x, y, y if thresholds is None else thresholds,
        y if scales is None else scales, lines, *size[1:],
        *strides[1], *strides[0], *strides[2], *strides[3],
        *draw(key, base), *limits(limit), *numbers(y.dtype, *values),
        DRAWS=draws, RANK=len(axes), LOADED=x is not None, SCALED=scales is not None,
        SHIFT=values[1] != 0.0, REFINE=threshold is None or refines(limit),
        WIDE=y.dtype == torch.float64, HELD=isinstance(key, Tensor),
        LARGE=programs * rows >= 1 << 31, ROWS=rows, COLS=columns, num_warps=WARPS,
    )  # fmt: skip


def _draws(axes: list[Axis], base: int) -> str:
    """How often the kernel draws along the last axis."""
    *outer, (size, _, _, step, _) = axes
    if step == 0:
        return "line"
    aligned = base % 16 == 0 and all(axis[3] % 16 == 0 for axis in outer)
    return "block" if step == 1 and size >= 16 and aligned else "each"


def _shape(draws: str, inner: int, lines: int) -> tuple[int, int]:
    """Rows and columns of a tile, powers of two: as many columns as the lines can fill."""
    if draws == "block":
        return tile(LINES * 16, lines * inner) // 16, 16
    size = tile(TILE, lines * inner)
    columns = min(1 << (inner - 1).bit_length(), size // 4)
    return size // columns, columns


@cache
def _kernels() -> Any:
    from dropkit.kernel.triton import strided_kernels

    return strided_kernels
