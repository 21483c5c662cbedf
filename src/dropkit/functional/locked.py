"""Dropout of sequences with one mask for all time steps."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_dropped, check_number, check_rate
from dropkit.functional.dropout import dropout
from dropkit.kernel import Key
from dropkit.records import Shard

Sequences = TypeVar("Sequences", Tensor, PackedSequence)


def locked_dropout(
    x: Sequences,
    p: float = 0.5,
    training: bool = True,
    *,
    batch_first: bool = False,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Sequences:
    r"""Drop the features of each sequence with one mask for all of its time steps.

    .. math:: y_{t,n,i} = x_{t,n,i} \, m_{n,i} / (1 - p), \qquad P(m_{n,i} = 0) = p

    The mask of a sequence does not depend on how the batch is laid out: time first, batch first
    and packed, with any order of lengths, give equal values for equal keys.

    Args:
        x: shape (T, N, ...), or (N, T, ...) if batch_first, or (T, F) for one sequence without a
            batch; or a `PackedSequence` of any of these.
        p: the fraction of features dropped, from 0 to 1.
        training: if False, x is returned as it is.
        batch_first: whether x is (N, T, ...). A packed sequence knows by itself.
        key, offset, generator: as in `dropout`; a packed sequence has no offset.

    Raises:
        SettingError: p outside [0, 1]; x without a time axis; an offset of packed data.

    >>> import torch, dropkit.functional as F
    >>> y = F.locked_dropout(torch.ones(3, 1, 6), 0.5, key=1)
    >>> y[:, 0]
    tensor([[0., 0., 2., 2., 2., 0.],
            [0., 0., 2., 2., 2., 0.],
            [0., 0., 2., 2., 2., 0.]])

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent
    Neural Networks". They drop the weight rows of whole words too: that is `embedding_dropout`
    of AWD-LSTM, another law. In packed data a dropped infinity becomes NaN, as in PyTorch.
    """
    if isinstance(x, PackedSequence):
        return _packed(x, p, training, key, offset, generator)
    if x.dim() < 2:
        raise SettingError(
            "x: expected a time axis and at least one more, (T, N, F), (N, T, F) or (T, F); got "
            f"shape {tuple(x.shape)}"
        )
    time = 1 if batch_first and x.dim() > 2 else 0
    return dropout(x, p, training, shared=(time,), key=key, offset=offset, generator=generator)


def _packed(
    x: PackedSequence,
    p: float,
    training: bool,
    key: Key | None,
    offset: int | Shard,
    generator: torch.Generator | None,
) -> PackedSequence:
    check_number(p)
    check_rate(p)
    if offset != 0:
        raise SettingError("offset: expected 0, since packed data is no box of a whole; got one")
    if not training or p == 0:
        return x
    check_dropped(x.data)
    drawn = kernel.resolve_key(key, generator, x.data)
    sizes = (int(x.batch_sizes[0]), *x.data.shape[1:])
    rows = sequence_of_rows(x)

    def factor(like: Tensor) -> Tensor:
        whole = kernel.dropout(like.new_ones(sizes), p, key=drawn)
        return whole.index_select(0, rows)

    return PackedSequence(
        kernel.redrawn(x.data, factor), x.batch_sizes, x.sorted_indices, x.unsorted_indices
    )


def sequence_of_rows(x: PackedSequence) -> Tensor:
    """For each row of packed data, the place of its sequence in the batch before packing."""
    places = torch.arange(int(x.batch_sizes[0]))
    within = places < x.batch_sizes.unsqueeze(1)
    rows = within.nonzero()[:, 1].to(x.data.device)
    return rows if x.sorted_indices is None else x.sorted_indices[rows]
