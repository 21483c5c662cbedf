"""Dropout together with what stands beside it: an activation before, a bias, a residual after.

Each saves a pass over memory, or a tensor that backward would have needed. Programs that are
traced get the plain composition, which their compiler fuses itself. Where a mode looks on, what is
kept for backward stays the same, and each step is an operator of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from dropkit.kernel import autograd, dispatch
from dropkit.kernel.context import rewritten, traced, transformed
from dropkit.kernel.mask import Affine, Mask

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """As torch does it: its own kernel for it has no derivative."""
    if not torch.is_grad_enabled():
        result: Tensor = torch.ops.aten.silu_backward(grad, x)
        return result
    gate = torch.sigmoid(x)
    return grad * gate * (1 + x * (1 - gate))


_FORWARD: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
_BACKWARD: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_backward,
    "gelu_tanh": lambda grad, x: torch.ops.aten.gelu_backward(grad, x, approximate="tanh"),
    "silu": _silu_backward,
}
ACTIVATIONS = tuple(_FORWARD)


def activated(x: Tensor, activation: Activation) -> Tensor:
    """activation(x), as torch has it."""
    return _FORWARD[activation](x)


def activation_dropout(x: Tensor, activation: Activation, mask: Mask, affine: Affine) -> Tensor:
    """dropout(activation(x)), in one pass where there is a kernel for it."""
    if rewritten(x) or transformed():
        return autograd.dropout(_FORWARD[activation](x), mask, affine)
    function = _ReluDropout if activation == "relu" else _ActivationDropout
    return _apply(function, x, activation, mask, affine)


def dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, mask: Mask, affine: Affine
) -> Tensor:
    """residual + dropout(x + bias), in one pass where there is a kernel for it."""
    if rewritten(x) or transformed():
        return residual + autograd.dropout(x if bias is None else x + bias, mask, affine)
    return _apply(_DropoutAdd, x, bias, residual, mask, affine)


def _apply(function: type[Function], *inputs: Any) -> Tensor:
    result: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return result


class _ReluDropout(Function):
    """The result says where the gradient flows: no mask is needed, and nothing else is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _: Activation, mask: Mask, affine: Affine) -> Tensor:
        if traced(x):
            y = autograd.drawn(torch.relu(x), mask, affine)
        else:
            y = dispatch.relu_dropout(x, mask, affine)
        ctx.save_for_backward(y)
        ctx.scale = affine.scale
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _apply(_ReluGradient, grad, *ctx.saved_tensors, ctx.scale), None, None, None


class _ReluGradient(Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.scale = scale
        if traced(grad):
            return torch.where(y <= 0, 0.0, grad * scale)
        return dispatch.relu_gradient(grad, y, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _apply(_ReluGradient, grad, *ctx.saved_tensors, ctx.scale), None, None


class _ActivationDropout(Function):
    """Only the input is kept; the activation's result is dropped in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, mask: Mask, affine: Affine) -> Tensor:
        ctx.save_for_backward(x)
        ctx.law = activation, mask, affine
        if traced(x):
            return autograd.drawn(_FORWARD[activation](x), mask, affine)
        return dispatch.activation_dropout(x, activation, _FORWARD[activation], mask, affine)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,), (activation, mask, affine) = ctx.saved_tensors, ctx.law
        if not (torch.is_grad_enabled() or traced(grad)):
            whole = dispatch.activation_gradient(grad, x, activation, mask, affine)
            if whole is not None:
                return whole, None, None, None
        inner = autograd.dropout(grad, mask, affine)
        return _BACKWARD[activation](inner, x), None, None, None


class _DropoutAdd(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, residual: Tensor, mask: Mask, affine: Affine
    ) -> Tensor:
        ctx.law, ctx.of = (mask, affine), None if bias is None else bias.shape
        if traced(x):
            return autograd.drawn(x if bias is None else x + bias, mask, affine) + residual
        return dispatch.dropout_add(x, bias, residual, mask, affine)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        inner = autograd.dropout(grad, *ctx.law)
        bias = None if ctx.of is None else inner.sum_to_size(ctx.of)
        return inner, bias, grad, None, None
