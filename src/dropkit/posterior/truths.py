"""Targets that fit draws: of one shape with them, never stretched to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.entropies import wide
from dropkit.posterior.leaves import Leaf, check_classes, check_real

if TYPE_CHECKING:
    from dropkit.posterior.draws import Draws


def true_values(draws: Draws, targets: Tensor) -> tuple[Leaf, Tensor]:
    """The draws of one tensor of values, and targets of the shape of one draw, in float64.

    Raises:
        SettingError: draws of classes; targets of another shape, or that are not finite.
    """
    leaf = draws.single
    if leaf.form.outputs != "values":
        raise SettingError(
            f'draws: expected values, as of a regression; got outputs="{leaf.form.outputs}"'
        )
    check_real(leaf.form)
    _check_shape(targets, leaf.form.shape)
    truth = wide(targets)
    if not bool(truth.isfinite().all()):
        raise SettingError("targets: expected finite numbers; got NaN or infinity")
    return leaf, truth


def true_classes(draws: Draws, targets: Tensor) -> tuple[Leaf, Tensor]:
    """The draws of one tensor of classes, and the number of the true class for each.

    Raises:
        SettingError: draws of values; targets of another shape, or that are no class.
    """
    leaf = draws.single
    check_classes(leaf.form)
    shape, axis = leaf.form.shape, leaf.form.axis
    classes = shape[axis]
    _check_shape(targets, shape[:axis] + shape[axis:][1:])
    if targets.is_floating_point() or targets.is_complex():
        raise SettingError(
            f"targets: expected numbers of classes, as integers; got {targets.dtype}. Try "
            "targets.long()"
        )
    truth = targets.long()
    outside = truth[(truth < 0) | (truth >= classes)]
    if len(outside):
        raise SettingError(
            f"targets: expected classes from 0 to {classes - 1}; got {int(outside[0])}. Try "
            "leaving out rows without a class"
        )
    return leaf, truth


def _check_shape(targets: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(targets, Tensor):
        raise SettingError(
            f"targets: expected a tensor; got {type(targets).__name__}. Try "
            "torch.as_tensor(targets)"
        )
    if tuple(targets.shape) != shape:
        hint = (
            f". Try targets.reshape({shape})"
            if targets.numel() == torch.Size(shape).numel()
            else ""
        )
        raise SettingError(
            f"targets: expected the shape {shape}, one for each output; got {tuple(targets.shape)}"
            f"{hint}"
        )
    if not targets.numel():
        raise SettingError(f"targets: expected one or more; got shape {shape}")
