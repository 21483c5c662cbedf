"""Gaussian noise, on what it multiplies or on what it is added to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_dropped, check_fits, check_rate
from dropkit.kernel import Key
from dropkit.records import Shard


def gaussian_dropout(
    x: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Multiply each element by a normal draw that has the mean and variance of a dropout mask.

    .. math:: y_i = x_i (1 + \sigma z_i), \qquad z_i \sim N(0, 1), \qquad \sigma^2 = p / (1 - p)

    Nothing is kept for backward but the key: the noise is drawn again.

    Args:
        x: a floating-point or complex tensor of any shape.
        p: the rate of the dropout that it stands for, from 0 to below 1; or a tensor of rates that
            broadcasts against x.
        training, shared, key, offset, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1); of a tensor of rates, only what is on the CPU is looked at.
        RuntimeError: integers in x.

    >>> import torch, dropkit.functional as F
    >>> y = F.gaussian_dropout(torch.ones(100, 100), 0.2, key=2)
    >>> round(float(y.mean()), 2), round(float(y.std()), 2)
    (1.0, 0.5)

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", section 10.
    """
    check_rate(p, x)
    check_below_one(p)
    if not isinstance(p, Tensor) and p == 0:
        return x
    if not training:
        return x
    check_dropped(x)
    drawn = kernel.resolve_key(key, generator, x)
    std = (p / (1.0 - p)) ** 0.5
    return kernel.redrawn(x, lambda like: 1.0 + std * _normal(like, drawn, shared, offset))


def gaussian_noise(
    x: Tensor,
    std: float | Tensor = 0.1,
    training: bool = True,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Add a normal draw to each element.

    .. math:: y_i = x_i + \sigma z_i, \qquad z_i \sim N(0, 1)

    Args:
        x: a floating-point tensor of any shape.
        std: sigma, in the units of x; or a tensor that broadcasts against x, which may be learned.
        training, shared, key, offset, generator: as in `dropout`.

    Raises:
        SettingError: std a number that is below 0 or not finite, or too wide a tensor.
        RuntimeError: integers or complex numbers in x.

    >>> import torch, dropkit.functional as F
    >>> y = F.gaussian_noise(torch.ones(100, 100), 0.5, key=2)
    >>> round(float(y.mean()), 2), round(float(y.std()), 2)
    (1.0, 0.5)

    Source: Bishop 1995, "Training with Noise is Equivalent to Tikhonov Regularization".
    """
    if not isinstance(std, Tensor):
        check_std(std)
        if std == 0:
            return x
    if not training:
        return x
    check_dropped(x)
    if x.is_complex():
        raise RuntimeError(f"gaussian_noise: expected a floating-point tensor; got {x.dtype}")
    if isinstance(std, Tensor):
        check_fits("std", std, x)
    key = kernel.resolve_key(key, generator, x)
    return (x + std * _normal(x, key, shared, offset)).to(x.dtype)


def check_below_one(p: float | Tensor) -> None:
    """p is the rate of a mask that has a finite variance."""
    if isinstance(p, Tensor):
        p = float(p.max()) if p.numel() and kernel.readable(p) else 0.0
    if p == 1:
        raise SettingError(
            "p: expected a rate below 1, since Gaussian noise that stands for it has the variance "
            f"p / (1 - p); got {p}. Try dropkit.functional.dropout"
        )


def check_std(std: float) -> None:
    """std is the spread of a normal law."""
    if not 0.0 <= std < float("inf"):
        raise SettingError(f"std: expected a finite standard deviation, 0 or above; got {std}")


def _normal(x: Tensor, key: Key, shared: Sequence[int], offset: int | Shard) -> Tensor:
    """Normal draws that broadcast against x."""
    wide = torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32
    return kernel.normal(
        x.shape, key=key, shared=shared, offset=offset, device=x.device, dtype=wide
    )
