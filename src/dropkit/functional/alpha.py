"""Dropout to SELU's negative end: the mean and the variance stay, not the mean alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropkit import kernel
from dropkit.functional.channels import check_channels
from dropkit.functional.checks import check_dropped, check_number, check_rate
from dropkit.functional.sharding import is_sharded, keyed_shard
from dropkit.kernel import Affine, Key
from dropkit.records import Shard

SATURATION = -1.7580993408473766
"""SELU of minus infinity: -lambda * alpha of Klambauer et al. 2017."""


def alpha_dropout(
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Set each element to SELU's value at minus infinity with probability p, and renormalize.

    .. math::
        y_i = a \, (m_i x_i + (1 - m_i) \alpha') + b, \qquad
        a = ((1 - p)(1 + p \alpha'^2))^{-1/2}, \qquad b = -a \, p \, \alpha'

    with :math:`\alpha' = -1.7580993408473766`, so that inputs of mean 0 and variance 1 stay so. At
    p = 1 the result is 0, as torch has it.

    Args:
        x: a floating-point tensor of any shape.
        p: the fraction dropped, a number from 0 to 1.
        training, inplace, shared, key, offset, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1], or a tensor.
        RuntimeError: integers or complex numbers in x.

    >>> import torch, dropkit.functional as F
    >>> F.alpha_dropout(torch.zeros(6), 0.5, key=3)
    tensor([-0.7792, -0.7792, -0.7792,  0.7792,  0.7792, -0.7792])

    Source: Klambauer et al. 2017, "Self-Normalizing Neural Networks". Unlike torch's function of
    this name it drops unless told that this is not training, as every other dropout does.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            alpha_dropout, (x,), x, p, training, inplace,
            shared=shared, key=key, offset=offset, generator=generator,
        )  # fmt: skip
    check_number(p)
    check_rate(p)
    if not training or p == 0:
        return x
    check_dropped(x)
    if x.is_complex():
        raise RuntimeError(f"alpha_dropout: expected a floating-point tensor; got {x.dtype}")
    affine = normalizing(p)
    if is_sharded(x):
        return keyed_shard(
            x, key, generator, lambda part, drawn, place: kernel.dropout(
                part, p, key=drawn, shared=shared, offset=place, affine=affine
            )
        )  # fmt: skip
    key = kernel.resolve_key(key, generator, x)
    return kernel.dropout(
        x, p, key=key, shared=shared, offset=offset, affine=affine, inplace=inplace
    )


def feature_alpha_dropout(
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`alpha_dropout` of whole channels.

    Args:
        x: (N, C, ...), floating-point.
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.
        p, training, inplace, key, offset, generator: as in `alpha_dropout`.

    Raises:
        SettingError: p outside [0, 1], or a tensor.
        RuntimeError: less than two axes; integers or complex numbers.

    >>> import torch, dropkit.functional as F
    >>> F.feature_alpha_dropout(torch.zeros(1, 3, 2), 0.5, key=2)
    tensor([[[ 0.7792,  0.7792],
             [-0.7792, -0.7792],
             [ 0.7792,  0.7792]]])

    Source: as of `alpha_dropout`; and as torch, which takes every x for a batch: (C, D, H, W) is
    (N, C, ...) to it, although its page says otherwise.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            feature_alpha_dropout, (x,), x, p, training, inplace,
            shared=shared, key=key, offset=offset, generator=generator,
        )  # fmt: skip
    check_number(p)
    check_rate(p)
    check_channels(x, p, training)
    return alpha_dropout(
        x, p, training, inplace,
        shared=(*range(2, x.dim()), *shared), key=key, offset=offset, generator=generator,
    )  # fmt: skip


def normalizing(p: float) -> Affine:
    """What becomes of the kept and of the dropped, so that mean 0 and variance 1 stay."""
    if p == 1:
        return Affine(0.0)
    scale = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * SATURATION * SATURATION))
    shift = -scale * p * SATURATION
    return Affine(scale, shift, scale * SATURATION + shift)
