"""Dropout fused with its neighbours: one pass over memory where there would be two or three."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_choice, check_dropped, check_rate
from dropkit.functional.dropout import dropout
from dropkit.functional.sharding import is_sharded
from dropkit.kernel import Activation, Key
from dropkit.records import Shard


def activation_dropout(
    x: Tensor,
    activation: Activation = "relu",
    p: float = 0.5,
    training: bool = True,
    *,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Dropout of an activation, the usual pair of a hidden layer, in one pass.

    .. math:: y_i = \phi(x_i) \, m_i / (1 - p)

    Nothing but x is kept for backward, and of relu only the result, which the next layer keeps
    anyway: the gradient flows where y > 0, so that no mask is drawn again.

    Args:
        x: a floating-point tensor of any shape.
        activation: "relu", "gelu", "gelu_tanh" or "silu".
        p, training, key, offset, generator: as in `dropout`; p is a number.

    Raises:
        SettingError: another activation; p outside [0, 1].

    >>> import torch, dropkit.functional as F
    >>> x = torch.linspace(-1, 1, 8)
    >>> y = F.activation_dropout(x, "gelu", key=3)
    >>> torch.equal(y, F.dropout(torch.nn.functional.gelu(x), key=3))
    True
    """
    check_choice("activation", activation, kernel.ACTIVATIONS)
    p = _number(p)
    check_rate(p)
    check_dropped(x)
    if not training or p == 0:
        return kernel.activated(x, activation)
    if is_sharded(x):
        return dropout(kernel.activated(x, activation), p, key=key, generator=generator)
    key = kernel.resolve_key(key, generator, x)
    return kernel.activation_dropout(x, activation, p, key=key, offset=offset)


def dropout_add(
    x: Tensor,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    bias: Tensor | None = None,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A residual branch with dropout added to its trunk, with the bias of its last layer.

    .. math:: y_i = r_i + (x_i + b_j) \, m_i / (1 - p)

    Nothing is kept for backward but the key.

    Args:
        x: the branch, a floating-point tensor of any shape.
        residual: the trunk, of x's shape.
        bias: added to the last axis of x before it is dropped.
        p, training, key, offset, generator: as in `dropout`; p is a number.

    Raises:
        SettingError: shapes that do not fit; p outside [0, 1].

    >>> import torch, dropkit.functional as F
    >>> F.dropout_add(torch.ones(5), torch.full((5,), 10.0), 0.5, key=3)
    tensor([10., 10., 10., 12., 12.])
    """
    p = _number(p)
    check_rate(p)
    check_dropped(x)
    _check_shapes(x, residual, bias)
    if not training or p == 0:
        return residual + (x if bias is None else x + bias)
    alike = residual.dtype == x.dtype and (bias is None or bias.dtype == x.dtype)
    if is_sharded(x) or x.is_complex() or not alike:  # types are promoted as torch does it
        whole = x if bias is None else x + bias
        return residual + dropout(whole, p, key=key, offset=offset, generator=generator)
    key = kernel.resolve_key(key, generator, x)
    return kernel.dropout_add(x, bias, residual, p, key=key, offset=offset)


def _number(p: object) -> float:
    if isinstance(p, Tensor):
        raise SettingError(
            "p: expected a number, since the fused forms have one rate for all; got a tensor. Try "
            "dropkit.functional.dropout"
        )
    return p  # type: ignore[return-value]


def _check_shapes(x: Tensor, residual: Tensor, bias: Tensor | None) -> None:
    if residual.shape != x.shape:
        raise SettingError(
            f"residual: expected x's shape, {tuple(x.shape)}; got {tuple(residual.shape)}"
        )
    if bias is not None and (not x.dim() or bias.shape != x.shape[-1:]):
        raise SettingError(
            f"bias: expected as many numbers as x's last axis has, for x of shape "
            f"{tuple(x.shape)}; got shape {tuple(bias.shape)}"
        )
