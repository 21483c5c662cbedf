"""Layers that drop to SELU's negative end."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.modules import dropout as torch_dropout

from dropkit import functional
from dropkit.nn.base import Layer


class _Alpha(Layer):
    """What these layers share: their constructor."""

    options = ("inplace", "shared")
    shared: tuple[int, ...] = ()

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, shared: Sequence[int] = ()
    ) -> None:
        super().__init__(p, inplace)
        self.shared = tuple(shared)


class AlphaDropout(_Alpha, torch_dropout.AlphaDropout):
    r"""Set elements to SELU's value at minus infinity, and keep mean 0 and variance 1.

    .. math:: y_i = a \, (m_i x_i + (1 - m_i) \alpha') + b

    A drop-in for `torch.nn.AlphaDropout`; a and b are those of `functional.alpha_dropout`.

    Args:
        p, inplace, shared: as in `Dropout`.

    Shape: any; the result has the input's.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: integers or complex numbers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.AlphaDropout(0.5)(torch.zeros(6), key=3)
    tensor([-0.7792, -0.7792, -0.7792,  0.7792,  0.7792, -0.7792])

    Source: Klambauer et al. 2017, "Self-Normalizing Neural Networks". Unlike torch's layer, which
    takes `inplace` and does nothing with it, this one works in place where asked to.
    """

    law = functional.alpha_dropout


class FeatureAlphaDropout(_Alpha, torch_dropout.FeatureAlphaDropout):
    """`AlphaDropout` of whole channels: a drop-in for `torch.nn.FeatureAlphaDropout`.

    Args:
        p, inplace: as in `Dropout`.
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.

    Shape: (N, C, ...); the result has the input's.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: less than two axes; integers or complex numbers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.FeatureAlphaDropout(0.5)(torch.zeros(1, 3, 2), key=2)
    tensor([[[ 0.7792,  0.7792],
             [-0.7792, -0.7792],
             [ 0.7792,  0.7792]]])

    Source, and where it differs from torch's: as of `AlphaDropout`.
    """

    law = functional.feature_alpha_dropout
