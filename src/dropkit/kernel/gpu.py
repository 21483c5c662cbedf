"""The Triton kernels as functions of tensors. Each returns whether it could."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

from dropkit.kernel import triton
from dropkit.kernel.indexing import mask_strides
from dropkit.kernel.mask import Affine, Key, Mask, plain_scale, scales, threshold, thresholds

_P = ParamSpec("_P")


def available(device: torch.device) -> bool:
    """Whether there are kernels for a device."""
    return triton.available(device)


def _tried(call: Callable[_P, None]) -> Callable[_P, bool]:
    @wraps(call)
    def run(*args: _P.args, **settings: _P.kwargs) -> bool:
        try:
            call(*args, **settings)
        except NotImplementedError:
            return False
        return True

    return run


@_tried
def dropout(x: Tensor, y: Tensor, mask: Mask, affine: Affine) -> None:
    """y = what becomes of x. y may be x."""
    if mask.strides is None and _runs(x, y) and not isinstance(mask.rate, Tensor):
        key = _on(mask.key, x)
        triton.flat(x, y, key, mask.base, threshold(mask.rate), *_numbers(affine))
    else:
        _strided(x, x.stride(), y, mask, affine)


@_tried
def factor(y: Tensor, mask: Mask, affine: Affine) -> None:
    """y = the scale where the mask keeps, 0 where it drops."""
    _strided(None, (0,) * y.dim(), y, mask, affine)


def _strided(
    x: Tensor | None, x_strides: Sequence[int], y: Tensor, mask: Mask, affine: Affine
) -> None:
    """Any strides, any rates; x, or 1 everywhere."""
    place = (x, y, y.shape, x_strides, y.stride(), _strides(mask, y), _on(mask.key, y), mask.base)
    if isinstance(mask.rate, Tensor):
        limits, kept = thresholds(mask.rate), scales(mask.rate, affine)
        triton.rated(*place, limits, kept, limits.expand(y.shape).stride())
    else:
        triton.strided(*place, threshold(mask.rate), *_numbers(affine))


@_tried
def keep(y: Tensor, mask: Mask) -> None:
    """y = True where the mask keeps."""
    place = (y, y.shape, y.stride(), _strides(mask, y), _on(mask.key, y), mask.base)
    if isinstance(mask.rate, Tensor):
        limits = thresholds(mask.rate)
        triton.rated_keep(*place, limits, limits.expand(y.shape).stride())
    else:
        triton.keep(*place, threshold(mask.rate))


@_tried
def words(y: Tensor, base: int, key: Key, domain: int) -> None:
    """y = the words of a domain from index `base`, as int32."""
    triton.words(y, _on(key, y), base, domain)


@_tried
def relu_dropout(x: Tensor, y: Tensor, mask: Mask, affine: Affine) -> None:
    """y = the dropout of relu(x)."""
    _alike(x, y)
    triton.relu(x, y, *_law(mask, affine, x))


@_tried
def relu_gradient(grad: Tensor, y: Tensor, out: Tensor, scale: float) -> None:
    """out = the gradient through relu and dropout, from their result y."""
    _alike(grad, y, out)
    triton.relu_backward(grad, y, out, scale)


@_tried
def activation_dropout(x: Tensor, y: Tensor, name: str, mask: Mask, affine: Affine) -> None:
    """y = the dropout of activation(x)."""
    _alike(x, y)
    triton.activation(x, y, name, *_law(mask, affine, x))


@_tried
def activation_gradient(
    grad: Tensor, x: Tensor, out: Tensor, name: str, mask: Mask, affine: Affine
) -> None:
    """out = the gradient through activation and dropout, both computed again."""
    _alike(grad, x, out)
    triton.activation_backward(grad, x, out, name, *_law(mask, affine, x))


@_tried
def dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, y: Tensor, mask: Mask, affine: Affine
) -> None:
    """y = residual + dropout(x + bias)."""
    _alike(x, residual, y)
    if bias is None:
        triton.add(x, residual, y, *_law(mask, affine, x))
    else:
        triton.bias_add(x, bias.contiguous(), residual, y, *_law(mask, affine, x))


def _law(mask: Mask, affine: Affine, x: Tensor) -> tuple[Key, int, int, float]:
    """What the fused kernels take: one rate for all, row by row."""
    if mask.strides is not None or isinstance(mask.rate, Tensor):
        raise NotImplementedError
    return _on(mask.key, x), mask.base, threshold(mask.rate), plain_scale(affine)


def _alike(*tensors: Tensor) -> None:
    """The fused kernels take tensors that are alike, each one run of memory."""
    if not _runs(*tensors) or len({(x.shape, x.dtype, x.device) for x in tensors}) > 1:
        raise NotImplementedError


def _runs(*tensors: Tensor) -> bool:
    return all(x.is_contiguous() for x in tensors)


def _on(key: Key, x: Tensor) -> Key:
    return key.to(x.device) if isinstance(key, Tensor) else key


def _numbers(affine: Affine) -> tuple[float, float, float]:
    return plain_scale(affine), affine.shift, affine.fill


def _strides(mask: Mask, x: Tensor) -> tuple[int, ...]:
    return mask_strides(x.shape, frozenset()) if mask.strides is None else mask.strides
