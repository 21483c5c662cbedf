"""A model is looked at, and is as it was before."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_COPIED = (dict, list, set)
"""Containers of which a module may change the content: they are given back with the same one."""


class Before:
    """What a model was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.attributes = [_Attributes(module) for module in model.modules()]
        self.tensors = [_Contents(tensor) for tensor in _tensors(model)]
        self.parameters = dict(model.named_parameters())
        self.random = RandomState()

    def restore(self) -> None:
        """The model is again what it was, and the generators are where they were."""
        for was in self.attributes:
            was.restore()
        for content in self.tensors:
            content.restore()
        self.random.restore()

    def zeroed(self) -> Mapping[str, tuple[int, int]]:
        """By name of a parameter: elements that were not 0 and now are, and how many it has."""
        contents = {id(was.tensor): was.content for was in self.tensors}
        now = dict(self.model.named_parameters())
        found = {}
        for name, parameter in self.parameters.items():
            was = contents.get(id(parameter))
            if was is None or was.layout != torch.strided or was.is_quantized:
                continue
            given = now.get(name, parameter).detach()
            if (was.shape, was.device) != (given.shape, given.device) or _same(given, was):
                continue
            count = int(torch.count_nonzero((given == 0) & (was != 0)))
            if count:
                found[name] = (count, was.numel())
        return found


@contextmanager
def untouched(model: nn.Module) -> Iterator[Before]:
    """Whatever happens within, the model and the random state are afterwards as they were before.

    Parameters, buffers and their gradients, modes, hooks, attributes (and what is in lists,
    dictionaries and sets among them), and the states of torch's, Python's and NumPy's generators.
    Tensors keep their identity; only those that changed are written.
    """
    before = Before(model)
    try:
        yield before
    finally:
        before.restore()


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers; none on the meta device, where there is nothing to change."""
    seen: set[int] = set()
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and id(tensor) not in seen and not tensor.is_meta:
                seen.add(id(tensor))
                if not nn.parameter.is_lazy(tensor):
                    yield tensor


class _Contents:
    """What is in a tensor, and its gradient."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        with torch.no_grad():
            self.content = tensor.detach().clone()
            self.grad = tensor.grad if tensor.is_leaf else None
            self.gradient = None if self.grad is None else self.grad.detach().clone()
        self.requires_grad = tensor.requires_grad

    def restore(self) -> None:
        tensor = self.tensor
        with torch.no_grad():
            if not _same(tensor.detach(), self.content):
                tensor.data.copy_(self.content)
            if self.grad is not None and self.gradient is not None:
                self.grad.copy_(self.gradient)
        if tensor.is_leaf:
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
            tensor.requires_grad_(self.requires_grad)


def _same(first: Tensor, second: Tensor) -> bool:
    """Bit by bit: nan is nan, and -0 is not 0."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.layout != torch.strided or first.is_quantized:
        return False  # written, whether it changed or not
    first, second = (torch.view_as_real(x) if x.is_complex() else x for x in (first, second))
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    return torch.equal(first.view(bits), second.view(bits))


class _Attributes:
    """All that stands in a module, two levels deep: itself, and the containers within."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.own = dict(module.__dict__)
        self.training = module.training
        self.containers = [
            (value, value.copy()) for value in self.own.values() if isinstance(value, _COPIED)
        ]

    def restore(self) -> None:
        if isinstance(self.module, torch.jit.ScriptModule):  # its mode is not among its attributes
            if self.module.training != self.training:
                self.module.train(self.training)
            return
        own = self.module.__dict__
        if own.keys() != self.own.keys() or any(own[k] is not v for k, v in self.own.items()):
            own.clear()
            own.update(self.own)
        container: Any
        for container, content in self.containers:
            if not _is_as(container, content):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(content)


def _is_as(container: Any, content: Any) -> bool:
    if isinstance(container, dict):
        first, second = list(container.items()), list(content.items())
        return len(first) == len(second) and all(
            a[0] is b[0] and a[1] is b[1] for a, b in zip(first, second, strict=True)
        )
    first, second = list(container), list(content)
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


class RandomState:
    """Of every generator that a model may draw from."""

    def __init__(self) -> None:
        self.torch = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self.python = sys.modules["random"].getstate()  # torch has loaded it
        self.numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None

    @property
    def moved_elsewhere(self) -> bool:
        """Whether Python's or NumPy's generator has moved, whose draws no mode of torch sees."""
        now = RandomState()
        numpy = self.numpy is not None and str(now.numpy) != str(self.numpy)
        return now.python != self.python or numpy

    def restore(self) -> None:
        """All of them go on from where they were."""
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        sys.modules["random"].setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
