"""A model with other tensors: without memory on the meta device, or with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dropkit.kernel.streams import Stream

Model = TypeVar("Model", bound=nn.Module)

MOST = 1 << 28
"""Elements of a model that is given memory of its own accord: 1 GB in float32."""


def on_meta(model: Model) -> Model:
    """The model without values. No memory is copied."""
    return _twin(model, lambda tensor: tensor.detach().to("meta"))


def with_values(model: Model) -> Model:
    """The model with made-up values on the CPU, where it has none."""
    return _twin(model, valued())


def valued() -> Callable[[Tensor], Tensor]:
    """Gives tensors without values made-up ones, and copies others."""
    stream = Stream(0)

    def made(tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor.detach().clone()
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            return torch.zeros(shape, dtype=tensor.dtype)
        if len(shape) < 2:
            return torch.ones(shape, dtype=tensor.dtype)
        spread: float = max(1, tensor[0].numel()) ** -0.5
        return (stream.normal(shape) * spread).to(tensor.dtype)

    return made


def size(model: nn.Module) -> int:
    """Elements of all parameters and buffers."""
    tensors = (*model.parameters(), *model.buffers())
    return sum(x.numel() for x in tensors if not nn.parameter.is_lazy(x))


def _twin(model: Model, change: Callable[[Tensor], Tensor]) -> Model:
    """A deep copy of a model, with its tensors changed in place of being copied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if nn.parameter.is_lazy(tensor) or id(tensor) in memo:
            continue
        changed = change(tensor)
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(changed, requires_grad=tensor.requires_grad)
        else:
            memo[id(tensor)] = changed
    return copy.deepcopy(model, memo)
