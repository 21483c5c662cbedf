"""Whether draws are numbers, and in which they are not."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from dropkit.errors import DropkitWarning
from dropkit.posterior.leaves import Form


def unsound(draws: Tensor, form: Form) -> list[int]:
    """The numbers of the draws (T, ...) with NaN or infinity.

    A logit of -inf is none: so a class is excluded.
    """
    if not (form.dtype.is_floating_point or form.dtype.is_complex) or not draws.numel():
        return []
    sound = draws.isfinite()
    if form.outputs == "logits":
        sound |= draws == -torch.inf
    bad = ~sound.reshape(len(draws), -1).all(1)
    return [int(number) for number in bad.nonzero()]


def warn_of_unsound(draws: Tensor, form: Form) -> None:
    """Say which draws are no numbers; what is computed of them shows it too."""
    bad = unsound(draws, form)
    if bad:
        which = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")
        warnings.warn(
            f"samples{form.name}: NaN or infinity in {len(bad)} of {len(draws)} draws, the first "
            f"being number {bad[0]} (numbers: {which}). What is computed of them is not finite "
            "either",
            DropkitWarning,
            stacklevel=3,
        )
