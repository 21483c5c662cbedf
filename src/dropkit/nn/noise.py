"""Layers that add or multiply Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropkit import functional
from dropkit.functional.noise import check_below_one, check_std
from dropkit.kernel import Key
from dropkit.nn.base import Layer
from dropkit.records import Shard


class GaussianDropout(Layer):
    r"""Multiply by normal draws that have the mean and variance of a dropout mask.

    .. math:: y_i = x_i (1 + \sigma z_i), \qquad z_i \sim N(0, 1), \qquad \sigma^2 = p / (1 - p)

    Args:
        p: the rate of the dropout that it stands for, below 1.
        shared: axes along which one draw is shared.

    Shape: any; the result has the input's. Called with `key=`, `offset=` or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: p outside [0, 1).
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> y = nn.GaussianDropout(0.2)(torch.ones(100, 100), key=2)
    >>> round(float(y.mean()), 2), round(float(y.std()), 2)
    (1.0, 0.5)

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", section 10.
    """

    law = functional.gaussian_dropout
    options = ("shared",)
    shared: tuple[int, ...] = ()

    def __init__(self, p: float = 0.5, *, shared: Sequence[int] = ()) -> None:
        super().__init__(p)
        check_below_one(p)
        self.shared = tuple(shared)


class GaussianNoise(nn.Module):
    r"""Add normal draws in training.

    .. math:: y_i = x_i + \sigma z_i, \qquad z_i \sim N(0, 1)

    Args:
        std: sigma, in the units of the input.
        shared: axes along which one draw is shared.

    Shape: any; the result has the input's. Called with `key=`, `offset=` or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: std below 0 or not finite.
        RuntimeError: integers or complex numbers.

    >>> import torch
    >>> from dropkit import nn
    >>> y = nn.GaussianNoise(0.5)(torch.ones(100, 100), key=2)
    >>> round(float(y.mean()), 2), round(float(y.std()), 2)
    (1.0, 0.5)

    Source: Bishop 1995, "Training with Noise is Equivalent to Tikhonov Regularization".
    """

    def __init__(self, std: float = 0.1, *, shared: Sequence[int] = ()) -> None:
        super().__init__()
        check_std(std)
        self.std, self.shared = std, tuple(shared)

    def forward(
        self,
        x: Tensor,
        *,
        key: Key | None = None,
        offset: int | Shard = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x with noise, in training."""
        return functional.gaussian_noise(
            x, self.std, self.training, shared=self.shared, key=key, offset=offset,
            generator=generator,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The spread; and the shared axes, if any."""
        return f"std={self.std}" + (f", shared={self.shared}" if self.shared else "")
