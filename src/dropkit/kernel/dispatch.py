"""Picks the kernel that draws: C++ on CPUs, Triton on GPUs, plain torch anywhere. The same bits.

The environment variable DROPKIT_KERNEL forces one for tensors on the CPU: reference, portable,
avx2, avx512 or neon; or triton, if TRITON_INTERPRET=1 is set too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from dropkit.errors import DropkitWarning
from dropkit.kernel import cpu, native, reference
from dropkit.kernel.mask import Affine, Key, Mask

INTERPRETED = native.forced() == "triton"


def dropout(x: Tensor, mask: Mask, affine: Affine, out: Tensor | None = None) -> Tensor:
    """`affine` of what the mask keeps, its fill for what it drops; into `out` if given.

    Where the rate is a tensor, inverted dropout: the scale is 1 / (1 - rate).
    """
    y = torch.empty_like(x) if out is None else out
    kernel = _kernel(x)
    if kernel is None or not kernel.dropout(x, y, mask, affine):
        y.copy_(reference.dropout(x, mask, affine))
    return y


def keep(mask: Mask, sizes: Sequence[int], device: torch.device) -> Tensor:
    """Booleans of `sizes`: True where the mask keeps."""
    y = torch.empty(tuple(sizes), dtype=torch.bool, device=device)
    kernel = _kernel(y)
    if kernel is None or not kernel.keep(y, mask):
        y.copy_(reference.keep(mask, sizes, device))
    return y


def factor(mask: Mask, affine: Affine, sizes: Sequence[int], device: torch.device) -> Tensor:
    """What dropout multiplies by: a scale where the mask keeps, 0 where it drops; in float32."""
    y = torch.empty(tuple(sizes), device=device)
    kernel = _kernel(y)
    if kernel is None or not kernel.factor(y, mask, affine):
        y.copy_(reference.dropout(torch.ones_like(y), mask, affine))
    return y


def words(
    count: int, base: int, key: Key, device: torch.device, domain: int = reference.WORDS
) -> Tensor:
    """32 random bits for each index from `base`, as int32."""
    y = torch.empty(count, dtype=torch.int32, device=device)
    kernel = _kernel(y)
    if kernel is None or not kernel.words(y, base, key, domain):
        y.copy_(reference.words(reference.indices((count,), None, base, device), key, domain))
    return y


# ---- fused: each a composition where there is no kernel for it


def relu_dropout(x: Tensor, mask: Mask, affine: Affine) -> Tensor:
    """The dropout of relu(x)."""
    y = torch.empty_like(x)
    kernel = _kernel(x)
    if kernel is None or not kernel.relu_dropout(x, y, mask, affine):
        dropout(torch.relu(x), mask, affine, out=y)
    return y


def relu_gradient(grad: Tensor, y: Tensor, scale: float) -> Tensor:
    """The gradient through relu and dropout, from their result; nan passes it, as torch has it."""
    kernel = _kernel(y)
    out = torch.empty_like(y)
    if kernel is not None and kernel.relu_gradient(grad, y, out, scale):
        return out
    return torch.where(y <= 0, 0.0, grad * scale)


def activation_dropout(
    x: Tensor, name: str, activation: Callable[[Tensor], Tensor], mask: Mask, affine: Affine
) -> Tensor:
    """The dropout of activation(x)."""
    kernel = _kernel(x)
    if kernel is not None and hasattr(kernel, "activation_dropout"):
        y = torch.empty_like(x)
        if kernel.activation_dropout(x, y, name, mask, affine):
            return y
    y = activation(x)
    return dropout(y, mask, affine, out=y)


def activation_gradient(
    grad: Tensor, x: Tensor, name: str, mask: Mask, affine: Affine
) -> Tensor | None:
    """The gradient through the activation and its dropout in one pass, where a kernel can."""
    kernel = _kernel(x)
    if kernel is None or not hasattr(kernel, "activation_gradient"):
        return None
    out = torch.empty_like(x)
    return out if kernel.activation_gradient(grad, x, out, name, mask, affine) else None


def dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, mask: Mask, affine: Affine
) -> Tensor:
    """residual + dropout(x + bias)."""
    kernel = _kernel(x)
    y = torch.empty_like(x)
    if kernel is not None and kernel.dropout_add(x, bias, residual, y, mask, affine):
        return y
    whole = x if bias is None else x + bias
    return dropout(whole, mask, affine, out=y).add_(residual)


# ---- which kernel


def _kernel(x: Tensor) -> ModuleType | None:
    """What draws where x is; None: the reference."""
    if x.is_neg():  # what lies in memory is not what it means
        return None
    if x.is_cpu and not INTERPRETED:
        return cpu if cpu.NATIVE is not None else _none(cpu.why())
    return _gpu(x.device)


@cache
def _gpu(device: torch.device) -> ModuleType | None:
    module = import_module("dropkit.kernel.gpu")
    if module.available(device):
        return module
    if device.type == "cuda":
        return _none("Triton is not installed, or this GPU is older than it knows")
    return _none(f"devices of type {device.type} have no kernel of their own")


@cache
def _none(why: str | None) -> None:
    """No kernel; said once for each reason."""
    if why is not None:
        warnings.warn(
            f"dropkit draws its masks with plain torch, which is right but slow: {why}",
            DropkitWarning,
            stacklevel=2,
        )
