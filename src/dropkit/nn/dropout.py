"""torch.nn.Dropout, with masks that are exact, cost nothing to keep, and have a name."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.modules import dropout as torch_dropout

from dropkit import functional
from dropkit.functional.checks import SCALINGS, check_choice
from dropkit.kernel import Scaling
from dropkit.nn.base import Layer


class Dropout(Layer, torch_dropout.Dropout):
    r"""Zero each element with probability p in training, and scale the others by 1 / (1 - p).

    A drop-in for `torch.nn.Dropout`: a subclass, with the same constructor, repr and errors.

    Args:
        p: the fraction dropped.
        inplace: write the result into the input.
        shared: axes along which one draw is shared. (1,) drops features of (N, T, F) for all time,
            all axes but 0 drop whole samples.
        scaling: "inverted", or "classic": scale by 1 - p outside of training instead.

    Shape: any; the result has the input's.

    Called with `key=`, 64 bits that name the mask, it draws the same mask on every device;
    `offset=` says where the input lies in a larger tensor; `generator=` draws the key.

    Raises:
        SettingError: p outside [0, 1]; axes that an input does not have.
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> layer = nn.Dropout(0.5)
    >>> layer
    Dropout(p=0.5, inplace=False)
    >>> layer(torch.ones(6), key=7)
    tensor([0., 0., 0., 2., 2., 2.])
    >>> torch.equal(layer.eval()(torch.ones(6)), torch.ones(6))
    True

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting". Unlike torch's, a dropped infinity or NaN becomes 0, nothing is kept for backward,
    and it is not for torch.jit.script.
    """

    law = functional.dropout
    options = ("inplace", "shared", "scaling")
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
