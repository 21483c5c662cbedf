"""The C++ kernels as functions of tensors. Each returns whether it could."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.kernel import native
from dropkit.kernel.indexing import mask_strides
from dropkit.kernel.mask import (
    WORD64,
    Affine,
    Key,
    Mask,
    scales,
    threshold,
    thresholds,
)

NATIVE: Any = native.load()
_threads = torch.get_num_threads


def why() -> str | None:
    """Why there is no kernel for the CPU; None where that was asked for."""
    return None if native.forced() == "reference" else native.missing()


def dropout(x: Tensor, y: Tensor, mask: Mask, affine: Affine) -> bool:
    """y = what becomes of x. y may be x."""
    code = native.DTYPES.get(x.dtype)
    if code is None or y.dtype != x.dtype:
        return False
    key, rate, strides, base = mask
    runs = strides is None and x.is_contiguous() and y.is_contiguous()
    if runs and not isinstance(rate, Tensor):
        NATIVE.flat(
            x.data_ptr(), y.data_ptr(), code, x.numel(), base & WORD64, _host(key),
            threshold(rate), *affine, _threads(),
        )  # fmt: skip
    else:
        _strided(x.data_ptr(), x.stride(), y, mask, affine)
    return True


def factor(y: Tensor, mask: Mask, affine: Affine) -> bool:
    """y = the scale where the mask keeps, 0 where it drops."""
    _strided(0, (0,) * y.dim(), y, mask, affine)
    return True


def _strided(x: int, x_strides: Sequence[int], y: Tensor, mask: Mask, affine: Affine) -> None:
    """Any strides, any rates; x at an address, or 1 everywhere."""
    code, strides = native.DTYPES[y.dtype], _strides(mask, y)
    place = (x, y.data_ptr(), code, tuple(y.shape), x_strides, y.stride(), strides)
    stream = (mask.base & WORD64, _host(mask.key))
    if isinstance(mask.rate, Tensor):
        limits, kept = thresholds(mask.rate), scales(mask.rate, affine)
        reach = limits.expand(y.shape).stride()
        NATIVE.rated(*place, *stream, limits.data_ptr(), kept.data_ptr(), reach, _threads())
    else:
        NATIVE.strided(*place, *stream, threshold(mask.rate), *affine, _threads())


def keep(y: Tensor, mask: Mask) -> bool:
    """y = True where the mask keeps."""
    sizes, base, key = tuple(y.shape), mask.base & WORD64, _host(mask.key)
    place = (y.data_ptr(), sizes, y.stride(), _strides(mask, y), base, key)
    if isinstance(mask.rate, Tensor):
        limits = thresholds(mask.rate)
        NATIVE.rated_keep(*place, limits.data_ptr(), limits.expand(sizes).stride(), _threads())
    else:
        NATIVE.keep(*place, threshold(mask.rate), _threads())
    return True


def words(y: Tensor, base: int, key: Key, domain: int) -> bool:
    """y = the words of a domain from index `base`, as int32."""
    NATIVE.words(y.data_ptr(), y.numel(), base & WORD64, _host(key), domain, _threads())
    return True


def relu_dropout(x: Tensor, y: Tensor, mask: Mask, affine: Affine) -> bool:
    """y = the dropout of relu(x)."""
    code = _flat(x, y)
    if code is None or mask.strides is not None or isinstance(mask.rate, Tensor):
        return False
    NATIVE.relu_flat(
        x.data_ptr(), y.data_ptr(), code, x.numel(), mask.base & WORD64, _host(mask.key),
        threshold(mask.rate), affine.scale, _threads(),
    )  # fmt: skip
    return True


def relu_gradient(grad: Tensor, y: Tensor, out: Tensor, scale: float) -> bool:
    """out = the gradient through relu and dropout, from their result y."""
    code = _flat(grad, y, out)
    if code is None:
        return False
    NATIVE.relu_backward_flat(
        grad.data_ptr(), y.data_ptr(), out.data_ptr(), code, y.numel(), scale, _threads()
    )
    return True


def dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, y: Tensor, mask: Mask, affine: Affine
) -> bool:
    """y = residual + dropout(x + bias)."""
    code = _flat(x, residual, y)
    if code is None or mask.strides is not None or isinstance(mask.rate, Tensor):
        return False
    law = (mask.base & WORD64, _host(mask.key), threshold(mask.rate), affine.scale, _threads())
    if bias is None:
        NATIVE.add_flat(x.data_ptr(), residual.data_ptr(), y.data_ptr(), code, x.numel(), *law)
        return True
    if not x.numel() or bias.dtype != x.dtype or not bias.is_contiguous():
        return False
    columns = bias.numel()
    NATIVE.bias_add(
        x.data_ptr(), bias.data_ptr(), residual.data_ptr(), y.data_ptr(), code,
        x.numel() // columns, columns, *law,
    )  # fmt: skip
    return True


def _flat(*tensors: Tensor) -> int | None:
    """The number of the type of tensors that are alike, and each one run; None: they are not."""
    first = tensors[0]
    alike = all(
        t.is_cpu
        and t.dtype == first.dtype
        and t.shape == first.shape
        and t.is_contiguous()
        and not t.is_neg()
        for t in tensors
    )
    return native.DTYPES.get(first.dtype) if alike else None


def _host(key: Key) -> int:
    return int(key) & WORD64


def _strides(mask: Mask, x: Tensor) -> tuple[int, ...]:
    return mask_strides(x.shape, frozenset()) if mask.strides is None else mask.strides
