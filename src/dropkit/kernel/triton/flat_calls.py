"""Masks of consecutive elements, alone and fused with what stands beside a dropout.

x and y are contiguous, and y may be x. The mask index of the first element is `base`; a threshold
is a rate in steps of 2**-40. y = kept ? x * scale + shift : fill, in float32 (float64: in float64).

Costs per element for bf16 at a rate of 0.1, counted in the machine code for sm_90, not measured: 21
instructions, 12 of them on the busiest pipe, which takes 64 per cycle and SM: 1.2e12 elements per
second on an H100. Memory at 3.35 TB/s moves 0.84e12, so it is the bound; on an H200 (4.8 TB/s,
1.2e12) the two meet. Rates that 8 bits decide, as 1/2, cost 13 and 6.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from dropkit.kernel.triton.launch import (
    available,
    draw,
    launch,
    limits,
    numbers,
    refines,
    supported,
    tile,
    tiles,
)

__all__ = [
    "activation",
    "activation_backward",
    "add",
    "available",
    "bias_add",
    "bias_add_backward",
    "flat",
    "relu",
    "relu_backward",
    "uniform",
    "words",
]

WARPS = 4
BLOCK = 4096
"""Elements in a tile: each of 128 threads draws two blocks of 16, which hide each other's latency,
and moves 64 bytes of a half, in 56 registers. Half of it would pay the loop's checks twice."""

SMALL_BLOCK = 2048
"""Where a tile of BLOCK would need twice the registers: float64, or two inputs of float32."""

PART = 512
"""The ends, in small parts: all threads' registers are counted where most are in use."""

KINDS = ("none", "relu", "gelu", "gelu_tanh", "silu")


def flat(
    x: Tensor,
    y: Tensor,
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
    shift: float = 0.0,
    fill: float = 0.0,
) -> None:
    """y = kept ? x * scale + shift : fill."""
    _run(x, y, key, base, threshold, (scale, shift, fill))


def relu(x: Tensor, y: Tensor, key: int | Tensor, base: int, threshold: int, scale: float) -> None:
    """y = kept ? max(x, 0) * scale : 0."""
    _run(x, y, key, base, threshold, (scale, 0.0, 0.0), kind="relu")


def relu_backward(grad: Tensor, y: Tensor, out: Tensor, scale: float) -> None:
    """out = y <= 0 ? 0 : grad * scale, for y of `relu`: it knows the mask."""
    supported(grad, y, out)
    wide, n = out.dtype == torch.float64, out.numel()
    if n:
        size = tile(_TILE, n)
        values = numbers(out.dtype, scale)
        kernel = _flat_kernels().passed_kernel
        launch(kernel, tiles(n, size), out, grad, y, out, n, *values, WIDE=wide, BLOCK=size)


def activation(
    x: Tensor,
    y: Tensor,
    kind: str,
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
) -> None:
    """y = kept ? f(x) * scale : 0, with f one of KINDS."""
    _run(x, y, key, base, threshold, (scale, 0.0, 0.0), kind=kind)


def activation_backward(
    grad: Tensor,
    x: Tensor,
    out: Tensor,
    kind: str,
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
) -> None:
    """out = kept ? grad * f'(x) * scale : 0. The mask is drawn again."""
    values = (scale, 0.0, 0.0)
    _run(x, out, key, base, threshold, values, kind=kind, second=grad, role="grad")


def add(
    x: Tensor,
    residual: Tensor,
    y: Tensor,
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
) -> None:
    """y = residual + (kept ? x * scale : 0)."""
    bias_add(x, None, residual, y, key, base, threshold, scale)


def bias_add(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
) -> None:
    """y = residual + (kept ? (x + bias) * scale : 0), with one bias for each column of x."""
    role = "none" if residual is None else "residual"
    values = (scale, 0.0, 0.0)
    _run(x, y, key, base, threshold, values, second=residual, role=role, bias=bias)


def bias_add_backward(
    grad: Tensor,
    grad_x: Tensor,
    grad_bias: Tensor | None,
    key: int | Tensor,
    base: int,
    threshold: int,
    scale: float,
) -> None:
    """grad_x = kept ? grad * scale : 0, and grad_bias its sum over rows (summed in float32)."""
    flat(grad, grad_x, key, base, threshold, scale)
    if grad_bias is not None:
        grad_bias.copy_(grad_x.view(-1, grad_bias.numel()).sum(0))


def words(y: Tensor, key: int | Tensor, base: int, domain: int) -> None:
    """y (int32) = the words of a domain, from index `base`."""
    n, lead, place = y.numel(), base & 3, draw(key, base)
    size = tile(_TILE, n)
    if n:
        launch(
            _word_kernels().word_kernel, tiles(n + lead, size), y, y, n, lead, *place,
            DOMAIN=domain, SKEW=lead != 0, HELD=isinstance(key, Tensor), BLOCK=size,
        )  # fmt: skip


def uniform(y: Tensor, key: int | Tensor, base: int) -> None:
    """y = numbers from [0, 1): 24 bits of each word for float32, all 32 for float64."""
    if y.dtype not in (torch.float32, torch.float64):
        raise NotImplementedError(f"expected float32 or float64; got {y.dtype}")
    words(y, key, base, 2)


_TILE = 1024
"""Elements in a tile that needs no Philox, or one per four: 8 for each thread."""


def _run(
    x: Tensor,
    y: Tensor,
    key: int | Tensor,
    base: int,
    threshold: int,
    values: tuple[float, float, float],
    *,
    kind: str = "none",
    second: Tensor | None = None,
    role: str = "none",
    bias: Tensor | None = None,
) -> None:
    supported(x, y, second, bias)
    if kind not in KINDS:
        raise NotImplementedError(f"expected one of {KINDS}; got {kind!r}")
    n, lead, wide = x.numel(), base & 15, y.dtype == torch.float64
    large = wide or (second is not None and second.itemsize > 2)
    size = tile(SMALL_BLOCK if large else BLOCK, n)
    columns = 1 if bias is None else bias.numel()
    if not n:
        return
    even = columns % 16 == 0 and not lead
    launch(
        _flat_kernels().flat_kernel, tiles(n + lead, size), y,
        x, x if second is None else second, x if bias is None else bias, y, n, lead, columns,
        *draw(key, base), *limits(threshold), *numbers(y.dtype, *values),
        KIND=kind, ROLE=role, BIAS="none" if bias is None else "even" if even else "any",
        SHIFT=values[1] != 0.0, REFINE=refines(threshold), WIDE=wide,
        HELD=isinstance(key, Tensor), SKEW=lead != 0, BLOCK=size, PART=tile(PART, size),
        num_warps=WARPS,
    )  # fmt: skip


@cache
def _flat_kernels() -> Any:
    from dropkit.kernel.triton import flat_kernels

    return flat_kernels


@cache
def _word_kernels() -> Any:
    from dropkit.kernel.triton import word_kernels

    return word_kernels
