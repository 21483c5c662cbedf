"""Layers that drop whole channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch.nn.modules import dropout as torch_dropout

from dropkit import functional
from dropkit.functional.checks import SCALINGS, check_choice
from dropkit.kernel import Scaling
from dropkit.nn.base import Layer


class _Channels(Layer):
    """What these layers share: their constructor."""

    options: ClassVar[tuple[str, ...]] = ("inplace", "shared", "scaling")
    shared: tuple[int, ...] = ()
    scaling: Scaling = "inverted"

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        shared: Sequence[int] = (),
        scaling: Scaling = "inverted",
    ) -> None:
        super().__init__(p, inplace)
        check_choice("scaling", scaling, SCALINGS)
        self.shared, self.scaling = tuple(shared), scaling


class Dropout1d(_Channels, torch_dropout.Dropout1d):
    """Drop whole channels of sequences: a drop-in for `torch.nn.Dropout1d`.

    Args:
        p, inplace, scaling: as in `Dropout`.
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.

    Shape: (N, C, L) or (C, L); the result has the input's.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: another number of axes; integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.Dropout1d(0.5)(torch.ones(3, 4), key=4)
    tensor([[0., 0., 0., 0.],
            [2., 2., 2., 2.],
            [2., 2., 2., 2.]])

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """

    law = functional.dropout1d


class Dropout2d(_Channels, torch_dropout.Dropout2d):
    """Drop whole channels of images: a drop-in for `torch.nn.Dropout2d`.

    Args:
        p, inplace, scaling: as in `Dropout`.
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.

    Shape: (N, C, H, W), and as in torch, with a warning, (N, C, L) or any other (N, C, ...); the
    result has the input's. For maps without a batch, or with their channels last, see
    `SpatialDropout`.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: less than two axes; integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.Dropout2d(0.5)(torch.ones(1, 4, 8, 8), key=2).mean((2, 3))
    tensor([[2., 0., 2., 0.]])

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """

    law = functional.dropout2d


class Dropout3d(_Channels, torch_dropout.Dropout3d):
    """Drop whole channels of volumes: a drop-in for `torch.nn.Dropout3d`.

    Args:
        p, inplace, scaling: as in `Dropout`.
        shared: axes along which a draw is shared as well; (0,) of a batch drops alike in all.

    Shape: (N, C, D, H, W) or (C, D, H, W), and as in torch, with a warning, any other (C, ...); the
    result has the input's.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.Dropout3d(0.5)(torch.ones(4, 2, 3, 3), key=2).mean((1, 2, 3))
    tensor([2., 0., 2., 0.])

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """

    law = functional.dropout3d


class SpatialDropout(_Channels):
    """Drop whole channels of each sample, for any number of spatial axes and either layout.

    Args:
        p, inplace, scaling: as in `Dropout`.
        channels_last: the channels are the last axis, as in Keras and in transformers.
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.

    Shape: (N, C, ...) or, with `channels_last`, (N, ..., C); the result has the input's.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: less than two axes; integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.SpatialDropout(0.5, channels_last=True)(torch.ones(1, 2, 4), key=2)
    tensor([[[2., 0., 2., 0.],
             [2., 0., 2., 0.]]])

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """

    law = functional.channel_dropout
    options = ("inplace", "channels_last", "shared", "scaling")
    channels_last: bool = False

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        channels_last: bool = False,
        shared: Sequence[int] = (),
        scaling: Scaling = "inverted",
    ) -> None:
        super().__init__(p, inplace, shared=shared, scaling=scaling)
        self.channels_last = channels_last
