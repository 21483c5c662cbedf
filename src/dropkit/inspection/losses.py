"""What a loss does to its targets, measured by its gradient."""

from __future__ import annotations

import torch
from torch import nn

from dropkit.intercept import untouched

_CLASSES = 64
"""So many that a share spread over all classes, or over all others, is nearly the same."""


def smoothing(loss: nn.Module) -> float | None:
    """The share of a label that a loss spreads over all classes; None: it takes no classes.

    The gradient of cross-entropy for logits is what was predicted less what was to be predicted. So
    at equal logits it tells the target that the loss made of a class.
    """
    weight = next((x for x in loss.buffers() if x.dim() == 1 and len(x) > 1), None)
    classes = _CLASSES if weight is None else len(weight)
    logits = torch.zeros(1, classes, requires_grad=True)
    with untouched(loss), torch.enable_grad():
        try:
            value = loss(logits, torch.zeros(1, dtype=torch.long))
            (gradient,) = torch.autograd.grad(value, logits)
        except Exception:  # a user's loss may want anything else, and raise anything
            return None
    scale = float(-gradient[0, 1:].sum() - gradient[0, 0])  # 0, where it is cross-entropy
    target = 1 / classes - float(gradient[0, 0])
    if weight is not None or abs(scale) > 1e-4:
        return None
    return min(max((1 - target) * classes / (classes - 1), 0.0), 1.0)


def smoothed(targets: torch.Tensor) -> float | None:
    """The share that was spread over all classes in rows of a tensor; None: they are no labels."""
    if targets.is_meta or targets.dim() != 2 or not targets.is_floating_point():
        return None
    if targets.shape[1] < 2 or not len(targets):
        return None
    ordered = targets.detach().double().sort(dim=1).values
    rest = ordered[:, :-1]
    alike = bool((rest - rest[:, :1]).abs().max() < 1e-6)
    sums = bool((ordered.sum(1) - 1).abs().max() < 1e-4)
    share = float(rest[0, 0]) * targets.shape[1]
    constant = bool((rest[:, 0] - rest[0, 0]).abs().max() < 1e-6)
    return share if alike and sums and constant and 1e-4 < share < 0.9 else None
