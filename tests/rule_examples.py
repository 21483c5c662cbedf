"""The examples of rules, executed: in tests alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Example = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


def made(source: str) -> Example:
    """The model, inputs and settings that an example defines."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(source, "<example>", "exec", dont_inherit=True), names)
    return names["model"], names["inputs"], names.get("settings", {})
