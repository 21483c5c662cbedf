"""Dropout with derivatives of any order, of which nothing is kept but the key.

Dropout is linear in x: each derivative is the same mask, drawn again, on what comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from dropkit.kernel import dispatch
from dropkit.kernel.context import rewritten, traced, transformed
from dropkit.kernel.mask import Affine, Mask, signed
from dropkit.kernel.operators import check_recordable, dropout_op, over_batch, tensor_key


def dropout(x: Tensor, mask: Mask, affine: Affine) -> Tensor:
    """`affine` of what the mask keeps, its fill for what it drops."""
    if rewritten(x):
        return drawn(x, mask, affine)
    if transformed():
        rate, rates = split(mask.rate)
        law = _Law(rate, affine, mask.strides, mask.base)
        return _apply(_Transformed, x, tensor_key(mask.key, x.device), rates, law)
    if x.requires_grad and torch.is_grad_enabled():
        return eager(x, mask, affine)
    return drawn(x, mask, affine)


def drawn(x: Tensor, mask: Mask, affine: Affine) -> Tensor:
    """The values alone: by an operator of torch, where one has to be seen."""
    if not traced(x):
        return dispatch.dropout(x, mask, affine)
    key = tensor_key(mask.key, x.device)
    rate, rates = split(mask.rate)
    check_recordable(*(mask.strides or ()))
    result: Tensor = dropout_op(x, key, rate, rates, *affine, mask.strides, signed(mask.base))
    return result


def dropout_(x: Tensor, mask: Mask, affine: Affine) -> Tensor:
    """The same in place."""
    if traced(x) or transformed():
        return x.copy_(dropout(x, mask, affine))
    if torch._debug_has_internal_overlap(x) == 1:
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    if not (x.requires_grad and torch.is_grad_enabled()):
        torch.autograd.graph.increment_version(x)
        return dispatch.dropout(x, mask, affine, out=x)
    if x.is_leaf or (x._base is not None and x._base.is_leaf):
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )
    return _apply(_InPlace, x, mask, affine)


def redrawn(x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
    """`x * factor(x)`; `factor` draws the same for all that is like x, so that it is not kept.

    Nor is x: what is handed to `factor` tells its shape, its type and its device.
    """
    return diagonal(x, lambda value: (value * factor(value)).to(value.dtype))


def diagonal(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """`run(x)`, which maps each element linearly and draws the same whenever it is called.

    So its derivative is `run` itself, and nothing is kept for it.
    """
    if rewritten(x) or transformed() or not (x.requires_grad and torch.is_grad_enabled()):
        return run(x)
    return _apply(_Diagonal, x, run)


def split(rate: float | Tensor) -> tuple[float, Tensor | None]:
    """A rate as an operator takes it: a number, and a tensor in its place."""
    return (0.0, rate) if isinstance(rate, Tensor) else (rate, None)


def _apply(function: type[Function], *inputs: Any) -> Tensor:
    result: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return result


def _keep_law(ctx: Any, mask: Mask, affine: Affine) -> None:
    ctx.mask, ctx.affine = mask, affine
    if isinstance(mask.rate, Tensor):  # as what is saved, so that a change of it is noticed
        ctx.mask = mask._replace(rate=0.0)
        ctx.save_for_backward(mask.rate)


def _kept_law(ctx: Any) -> tuple[Mask, Affine]:
    saved = ctx.saved_tensors
    return ctx.mask._replace(rate=saved[0]) if saved else ctx.mask, ctx.affine.linear


class _Eager(Function):
    """The short way: a third of the time of one that functorch can see through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask, affine: Affine) -> Tensor:
        _keep_law(ctx, mask, affine)
        return drawn(x, mask, affine)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return dropout(grad, *_kept_law(ctx)), None, None


# What Function.apply calls once it has seen that torch.func is not at work, as has been seen here.
eager: Callable[[Tensor, Mask, Affine], Tensor] = super(Function, _Eager).apply


class _InPlace(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask, affine: Affine) -> Tensor:
        _keep_law(ctx, mask, affine)
        ctx.mark_dirty(x)
        return dispatch.dropout(x, mask, affine, out=x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return dropout(grad, *_kept_law(ctx)), None, None


class _Diagonal(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.run = run
        return run(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return diagonal(grad, ctx.run), None


class _Law(NamedTuple):
    rate: float
    affine: Affine
    strides: Sequence[int] | None
    base: int

    @property
    def linear(self) -> _Law:
        return self._replace(affine=self.affine.linear)


class _Transformed(Function):
    """The way that torch.func and forward-mode differentiation can see through."""

    @staticmethod
    def forward(x: Tensor, key: Tensor, rates: Tensor | None, law: _Law) -> Tensor:
        result: Tensor = dropout_op(
            x, key, law.rate, rates, *law.affine, law.strides, signed(law.base)
        )
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, key, rates, ctx.law = inputs
        ctx.save_for_backward(key, rates)
        ctx.save_for_forward(key, rates)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _apply(_Transformed, grad, *ctx.saved_tensors, ctx.law.linear), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _apply(_Transformed, tangent, *ctx.saved_tensors, ctx.law.linear)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], x: Tensor, key: Tensor, rates: Tensor | None, law: _Law
    ) -> tuple[Tensor, int]:
        def run(x: Tensor, key: Tensor, rates: Tensor | None, strides: Any) -> Tensor:
            return _apply(_Transformed, x, key, rates, law._replace(strides=strides))

        return over_batch(run, info.batch_size, in_dims[:3], x, key, rates, law.strides)
