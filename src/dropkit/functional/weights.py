"""DropConnect: dropout of weights in place of activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from dropkit import kernel
from dropkit.functional.checks import check_dropped, check_number, check_rate
from dropkit.kernel import Key


def drop_connect(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    p: float = 0.5,
    training: bool = True,
    *,
    drop_bias: bool = False,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A linear layer each of whose weights is dropped with probability p.

    .. math:: y = x \, (W \odot M)^T / (1 - p) + b, \qquad P(M_{ij} = 0) = p

    One mask serves the whole call. The weights themselves are not touched.

    Args:
        x: shape (..., in_features).
        weight: shape (out_features, in_features).
        bias: shape (out_features,), or None.
        p: the fraction of weights dropped, from 0 to 1.
        training: if False, a linear layer with all of its weights.
        drop_bias: whether elements of the bias are dropped too, as in the paper.
        key, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1].

    >>> import torch, dropkit.functional as F
    >>> weight = torch.ones(2, 3)
    >>> F.drop_connect(torch.ones(1, 3), weight, p=0.5, key=1)
    tensor([[2., 4.]])
    >>> F.dropout(weight, 0.5, key=1).sum(1)
    tensor([2., 4.])

    Source: Wan et al. 2013, "Regularization of Neural Networks using DropConnect". They draw a
    mask for each sample, drop the bias, and sample a Gaussian at inference; here a mask is shared
    by the batch, so that it costs one draw for each weight and one product of matrices (a mask for
    each sample costs a draw for each sample and weight, and reads as many weights), and inference
    uses the weights as they are. What EfficientNet calls drop connect is stochastic depth.
    """
    weight, bias = dropped(weight, bias, p, training, drop_bias, key, generator)
    return linear(x, weight, bias)


def dropped(
    weight: Tensor,
    bias: Tensor | None,
    p: float,
    training: bool,
    drop_bias: bool,
    key: Key | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor | None]:
    """The weights of one call: those of the bias follow the others in the stream."""
    check_number(p)
    check_rate(p)
    if not training or p == 0:
        return weight, bias
    check_dropped(weight)
    key = kernel.resolve_key(key, generator, weight)
    if drop_bias and bias is not None:
        bias = kernel.dropout(bias, p, key=key, offset=weight.numel())
    return kernel.dropout(weight, p, key=key), bias
