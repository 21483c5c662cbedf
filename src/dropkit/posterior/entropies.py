"""Probabilities and entropies of outputs, in float64 and without overflow."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Outputs = Literal["values", "logits", "probabilities"]


def wide(x: Tensor) -> Tensor:
    """x in float64, apart from the graph; on the CPU where its device has no float64."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


def log_probabilities(draws: Tensor, outputs: str, axis: int) -> Tensor:
    """Log-probabilities in float64, the classes along the last axis.

    >>> log_probabilities(torch.zeros(1, 2), "logits", -1).exp()
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    x = wide(draws).movedim(axis, -1)
    return x.log_softmax(-1) if outputs == "logits" else x.log()


def entropy(log_p: Tensor) -> Tensor:
    r"""Entropy in nats along the last axis, from log-probabilities.

    .. math:: H = -\sum_c p_c \log p_c

    >>> entropy(torch.tensor([0.5, 0.5, 0.0]).log())
    tensor(0.6931)
    """
    return -weighted(log_p.exp(), log_p)


def weighted(p: Tensor, logs: Tensor) -> Tensor:
    """The sum of p * logs along the last axis, where 0 times anything is 0."""
    return torch.where(p == 0, torch.zeros_like(p), p * logs).sum(-1)


def mutual_information(log_mean: Tensor, expected_entropy: Tensor) -> Tensor:
    r"""The entropy of the mean less the mean entropy.

    .. math:: I = H\left(\tfrac1T \sum_t p_t\right) - \tfrac1T \sum_t H(p_t) \ge 0

    What is below 0 by rounding, by at most 2^-46 times 1 + H, is 0; what is further below stays.
    """
    whole = entropy(log_mean)
    found = whole - expected_entropy
    rounding = 2.0**-46 * (1 + whole)
    return torch.where((found < 0) & (found >= -rounding), torch.zeros_like(found), found)
