"""What a tool leaves of a model: all that should be as it was, and is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def state(model: nn.Module) -> dict[str, Any]:
    """All that a look must leave alone, by what it is called."""
    modules = list(model.modules())
    return {
        "parameters": {name: _of(x) for name, x in model.named_parameters()},
        "buffers": {name: _of(x) for name, x in model.named_buffers()},
        "modes": [module.training for module in modules],
        "modules": [id(module) for module in modules],
        "hooks": [_hooks(module) for module in modules],
        "attributes": [sorted(vars(module)) for module in modules],
        "generator": torch.get_rng_state(),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs; a module that was replaced is said once."""
    found = [name for name in before if not _alike(before[name], after[name])]
    if "modules" in found:
        found = [name for name in found if name not in ("hooks", "attributes")]
    return found


def _of(x: Tensor) -> tuple[int, Tensor]:
    """A tensor, by which it is and what is in it."""
    return id(x), x.detach().clone()


def _hooks(module: nn.Module) -> list[int]:
    return [len(value) for name, value in sorted(vars(module).items()) if name.endswith("_hooks")]


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)
