"""Whether draws are draws of one kind, and numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.errors import DropkitWarning, SettingError
from dropkit.posterior.leaves import Form
from dropkit.posterior.trees import Flat, flatten

_OUTPUTS = ("values", "logits", "probabilities")


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


def check_outputs(outputs: str) -> None:
    """What the outputs are is one of three words."""
    if outputs not in _OUTPUTS:
        raise SettingError(f"outputs: expected one of {', '.join(_OUTPUTS)}; got {outputs!r}")


def check_counts(flat: Flat) -> None:
    """There are tensors, each with as many draws, and one at least."""
    tensors = [leaf for leaf in flat.leaves if isinstance(leaf, Tensor)]
    if not tensors:
        raise SettingError(
            f"samples: expected tensors of draws; got {type(flat.leaves[0]).__name__}"
            if flat.leaves
            else "samples: expected tensors of draws; got nothing"
        )
    counts = {tuple(leaf.shape[:1]) for leaf in tensors}
    if len(counts) != 1 or counts <= {(), (0,)}:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tensors)
        raise SettingError(
            f"samples: expected tensors with one or more draws along the first axis, as many in "
            f"each; got shapes {shapes}"
        )


def refuse_ragged(draws: Sequence[Any]) -> None:
    """Say why no quantity is computed of draws whose shapes differ."""
    leaves = (leaf for one in draws for leaf in flatten(one).leaves)
    shapes = {str(tuple(leaf.shape)) for leaf in leaves if isinstance(leaf, Tensor)}
    raise SettingError(
        "draws: expected draws of one shape, over which a quantity can be computed; got "
        f"{' and '.join(sorted(shapes)[:3])}, as texts of different lengths have. Try "
        "draws.samples, which lists them, or a part whose shapes agree"
    )
