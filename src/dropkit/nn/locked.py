"""Dropout of sequences with one mask for all time steps, as a layer."""

from __future__ import annotations

import torch

from dropkit.functional.locked import Sequences, locked_dropout
from dropkit.kernel import Key
from dropkit.nn.base import Rated
from dropkit.records import Shard


class LockedDropout(Rated):
    r"""Drop the features of each sequence with one mask for all of its time steps.

    .. math:: y_{t,n,i} = x_{t,n,i} \, m_{n,i} / (1 - p)

    In eval mode, x. The mask of a sequence follows it into a packed batch.

    Args:
        p: the fraction of features dropped, from 0 to 1.
        batch_first: whether x is (N, T, ...) and not (T, N, ...).

    Shape: (T, N, ...), (N, T, ...) or (T, F), or a `PackedSequence`; the result has the input's.

    Raises:
        SettingError: p outside [0, 1]; x without a time axis.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.LockedDropout(0.5, batch_first=True)(torch.ones(1, 3, 6), key=1)
    tensor([[[0., 0., 2., 2., 2., 0.],
             [0., 0., 2., 2., 2., 0.],
             [0., 0., 2., 2., 2., 0.]]])

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent
    Neural Networks".
    """

    options = ("batch_first",)
    batch_first = False

    def __init__(self, p: float = 0.5, batch_first: bool = False) -> None:
        super().__init__(p)
        self.batch_first = batch_first

    def forward(
        self,
        x: Sequences,
        *,
        key: Key | None = None,
        offset: int | Shard = 0,
        generator: torch.Generator | None = None,
    ) -> Sequences:
        """The sequences with their masks."""
        return locked_dropout(
            x, self.p, self.training, batch_first=self.batch_first,
            key=key, offset=offset, generator=generator,
        )  # fmt: skip
