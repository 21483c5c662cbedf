"""Dropout of whole channels: what maps of features need, whose neighbours tell the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropkit.functional.checks import check_rate
from dropkit.functional.dropout import dropout
from dropkit.kernel import Key, Scaling
from dropkit.records import Shard


def channel_dropout(
    x: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    channels_last: bool = False,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    r"""Drop whole channels of each sample, for any number of spatial axes and either layout.

    .. math:: y_{nc\ldots} = x_{nc\ldots} \, m_{nc} / (1 - p), \qquad P(m_{nc} = 0) = p

    Args:
        x: (N, C, ...), or (N, ..., C) with `channels_last`.
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.
        p, training, inplace, key, offset, generator, scaling: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: x without a batch and a channel axis.

    >>> import torch, dropkit.functional as F
    >>> x = torch.ones(1, 4, 9, 9)
    >>> F.channel_dropout(x, 0.5, key=2).amin((2, 3)), F.channel_dropout(x, 0.5, key=2).amax((2, 3))
    (tensor([[2., 0., 2., 0.]]), tensor([[2., 0., 2., 0.]]))

    Source: Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks".
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            channel_dropout, (x,), x, p, training, inplace, channels_last=channels_last,
            shared=shared, key=key, offset=offset, generator=generator, scaling=scaling,
        )  # fmt: skip
    check_rate(p, x)
    check_channels(x, p, training)
    spatial = range(1, x.dim() - 1) if channels_last else range(2, x.dim())
    return dropout(
        x, p, training, inplace, shared=(*spatial, *shared), key=key, offset=offset,
        generator=generator, scaling=scaling,
    )  # fmt: skip


def dropout1d(
    x: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    """Drop whole channels of sequences: torch's function of this name, with a key.

    Args:
        x: (N, C, L) or (C, L).
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.
        p, training, inplace, key, offset, generator, scaling: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: another number of axes.

    >>> import torch, dropkit.functional as F
    >>> F.dropout1d(torch.ones(3, 4), 0.5, key=4)
    tensor([[0., 0., 0., 0.],
            [2., 2., 2., 2.],
            [2., 2., 2., 2.]])
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            dropout1d, (x,), x, p, training, inplace,
            shared=shared, key=key, offset=offset, generator=generator, scaling=scaling,
        )  # fmt: skip
    check_rate(p, x)
    rank = x.dim()
    if rank not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {rank}D input. Note that "
            "dropout1d exists to provide channel-wise dropout on inputs with 1 spatial dimension, "
            "a channel dimension, and an optional batch dimension (i.e. 2D or 3D inputs)."
        )
    return dropout(
        x, p, training, inplace, shared=(*range(rank - 1, rank), *shared), key=key, offset=offset,
        generator=generator, scaling=scaling,
    )  # fmt: skip


def dropout2d(
    x: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    """Drop whole channels of images: torch's function of this name, with a key.

    As torch does, it takes three axes for (N, C, L), and says so; and any other number for
    (N, C, ...), with a warning that this will end.

    Args:
        x: (N, C, H, W), or (N, C, L).
        shared: axes along which a draw is shared as well; (0,) drops alike in all samples.
        p, training, inplace, key, offset, generator, scaling: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: less than two axes.

    >>> import torch, dropkit.functional as F
    >>> F.dropout2d(torch.ones(1, 4, 8, 8), 0.5, key=2).mean((2, 3))
    tensor([[2., 0., 2., 0.]])
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            dropout2d, (x,), x, p, training, inplace,
            shared=shared, key=key, offset=offset, generator=generator, scaling=scaling,
        )  # fmt: skip
    check_rate(p, x)
    _warn_of_rank(2, x.dim())
    if x.dim() == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D "
            "dropout behavior is desired - input is interpreted as shape (N, C, L), where C is "
            "the channel dim. This behavior will change in a future release to interpret the "
            "input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D "
            "channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=2,
        )
    return channel_dropout(
        x, p, training, inplace,
        shared=shared, key=key, offset=offset, generator=generator, scaling=scaling,
    )  # fmt: skip


def dropout3d(
    x: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    """Drop whole channels of volumes: torch's function of this name, with a key.

    As torch does, it takes anything but five axes for (C, ...), and warns where that is not four.

    Args:
        x: (N, C, D, H, W) or (C, D, H, W).
        shared: axes along which a draw is shared as well; (0,) of a batch drops alike in all.
        p, training, inplace, key, offset, generator, scaling: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1].
        RuntimeError: no axes.

    >>> import torch, dropkit.functional as F
    >>> F.dropout3d(torch.ones(4, 2, 3, 3), 0.5, key=2).mean((1, 2, 3))
    tensor([2., 0., 2., 0.])
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            dropout3d, (x,), x, p, training, inplace,
            shared=shared, key=key, offset=offset, generator=generator, scaling=scaling,
        )  # fmt: skip
    check_rate(p, x)
    rank = x.dim()
    _warn_of_rank(3, rank)
    if not rank:
        check_channels(x, p, training)
    spatial = range(2 if rank == 5 else 1, rank)
    return dropout(
        x, p, training, inplace, shared=(*spatial, *shared), key=key, offset=offset,
        generator=generator, scaling=scaling,
    )  # fmt: skip


def check_channels(x: Tensor, p: float | Tensor, training: bool) -> None:
    """x has a batch and a channel axis, where torch asks for them and in its words."""
    drawn = training and (isinstance(p, Tensor) or 0 < p < 1)
    if x.dim() < 2 and drawn and x.numel():
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")


def _warn_of_rank(spatial: int, rank: int) -> None:
    if rank not in (spatial + 1, spatial + 2):
        name = f"dropout{spatial}d"
        warnings.warn(
            f"{name}: Received a {rank}-D input to {name}, which is deprecated and will result in "
            "an error in a future release. To retain the behavior and silence this warning, "
            f"please use dropout instead. Note that {name} exists to provide channel-wise dropout "
            f"on inputs with {spatial} spatial dimensions, a channel dimension, and an optional "
            f"batch dimension (i.e. {spatial + 1}D or {spatial + 2}D inputs).",
            stacklevel=3,
        )
