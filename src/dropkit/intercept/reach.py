"""All that a model holds and that a pass may change."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = (dict, list, set, deque)
_OPAQUE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, str, bytes, int, float)
_DEEP, _MANY = 6, 1_000_000
"""Levels of containers and objects below a module, and how many objects in all."""
_LARGEST = 1 << 26
"""Bytes of an array that is copied."""


@dataclass(slots=True)
class Reached:
    """What was found."""

    owners: list[Any] = field(default_factory=list)
    """Modules, and other objects with attributes."""
    containers: list[Any] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    """Those that have values, their gradients among them."""
    states: list[tuple[Callable[[], Any], Callable[[Any], None]]] = field(default_factory=list)
    """How to read and write the state of generators and arrays."""


def reached(model: nn.Module) -> Reached:
    """Walk through attributes and containers, from all modules of a model."""
    found, seen = Reached(), set[int]()
    # By name, too: a scripted module holds its tensors where no attribute shows them.
    parts = (*model.modules(), *model.parameters(), *model.buffers())
    queue: deque[tuple[Any, int]] = deque((part, 0) for part in parts)
    while queue and len(seen) < _MANY:
        value, depth = queue.popleft()
        if id(value) in seen or isinstance(value, _OPAQUE) or value is None:
            continue
        seen.add(id(value))
        if depth <= _DEEP:
            queue.extend((part, depth + 1) for part in _visited(value, found))
    return found


def _visited(value: Any, found: Reached) -> Iterator[Any]:
    """Note a value, and give what it holds."""
    if isinstance(value, Tensor):
        if _has_values(value):
            found.tensors.append(value)
            yield value.grad if value.is_leaf else None
    elif isinstance(value, tuple):
        yield from value
    elif isinstance(value, _CONTAINERS):
        found.containers.append(value)
        yield from value.values() if isinstance(value, dict) else value
    elif (state := _state(value)) is not None:
        found.states.append(state)
    elif isinstance(value, nn.Module | torch.optim.Optimizer) or _is_plain(value):
        found.owners.append(value)
        yield from list(vars(value).values())


def _has_values(tensor: Tensor) -> bool:
    return not tensor.is_meta and not nn.parameter.is_lazy(tensor)


def _is_plain(value: Any) -> bool:
    """Whether it is an object of a class of somebody's own, with attributes."""
    return hasattr(value, "__dict__") and not type(value).__module__.startswith(("torch.", "_"))


def _ignored(_: object) -> None:
    pass


def _state(value: Any) -> tuple[Callable[[], Any], Callable[[Any], None]] | None:
    """How to read and write a generator, or an array."""
    if isinstance(value, torch.Generator):
        source = value
        return source.get_state, lambda state: _ignored(source.set_state(state))
    if isinstance(value, sys.modules["random"].Random):
        return value.getstate, value.setstate
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    if isinstance(value, numpy.ndarray) and value.flags.writeable and value.nbytes <= _LARGEST:
        return value.copy, lambda was: value.__setitem__(..., was)
    return None
