"""Layers that drop contiguous regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dropkit import functional
from dropkit.functional.block import check_blocks
from dropkit.nn.base import Layer


class _DropBlock(Layer):
    """What these layers share: their constructor."""

    law = functional.drop_block
    options = ("block_size", "inside", "shared", "spatial")
    block_size: int | tuple[int, ...] = 7
    inside: bool = False
    shared: tuple[int, ...] = ()
    spatial: ClassVar[int]

    def __init__(
        self,
        p: float = 0.1,
        block_size: int | Sequence[int] = 7,
        *,
        inside: bool = False,
        shared: Sequence[int] = (),
    ) -> None:
        super().__init__(p)
        blocks = check_blocks(block_size, self.spatial)
        self.block_size = block_size if isinstance(block_size, int) else blocks
        self.inside, self.shared = inside, tuple(shared)


class DropBlock1d(_DropBlock):
    """Drop runs of neighbours in sequences; as `DropBlock2d`.

    Shape: (N, C, L); the result has the input's.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.DropBlock1d(0.4, block_size=3)(torch.ones(1, 1, 8), key=12)
    tensor([[[1.6667, 0.0000, 0.0000, 0.0000, 1.6667, 1.6667, 1.6667, 1.6667]]])
    """

    spatial = 1


class DropBlock2d(_DropBlock):
    r"""Drop blocks of neighbouring pixels, so that each pixel is dropped with probability p.

    .. math::
        y_i = x_i \, m_i / P(m_i = 1), \qquad P(m_i = 0) = p \; \text{at every pixel}

    Args:
        p: the fraction dropped.
        block_size: pixels along each spatial axis, or along all; odd or even, and larger than the
            map if you like.
        inside: only whole blocks within the map, as in the paper: borders are dropped less often, p
            is the mean over pixels, and each pixel has a scale that keeps its expectation.
        shared: (0,) for one mask for all samples, (1,) for one for all channels, (0, 1) for both.

    Shape: (N, C, H, W); the result has the input's.

    Called with `key=`, `offset=` or `generator=`: as `Dropout`.

    Raises:
        SettingError: p outside [0, 1]; blocks below 1; another number of axes.
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> layer = nn.DropBlock2d(0.1, block_size=7)
    >>> y = layer(torch.ones(1000, 1, 14, 14), key=1)
    >>> round(float((y == 0).float().mean()), 2)
    0.1

    Source: Ghiasi, Lin & Le 2018, "DropBlock: A regularization method for convolutional networks".
    Of this map the paper's formula drops 9 %, borders less than the middle; timm's layer drops
    21 %. Both also divide by the share that the batch happened to keep; here the scale is a
    constant, so that samples do not depend on each other. As in the paper each channel has a mask
    of its own; timm's default is one for all.
    """

    spatial = 2


class DropBlock3d(_DropBlock):
    """Drop cubes of neighbouring voxels; as `DropBlock2d`.

    Shape: (N, C, D, H, W); the result has the input's.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.DropBlock3d(0.1, block_size=(1, 3, 3))(torch.ones(2, 4, 5, 6, 7)).shape
    torch.Size([2, 4, 5, 6, 7])
    """

    spatial = 3
