"""Models for tests of rules: the rules' own examples, executed, and one that a test writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Body = Callable[[nn.Module, Tensor], Tensor]
Example = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


def made(source: str) -> Example:
    """The model, inputs and settings that an example defines."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(source, "<example>", "exec", dont_inherit=True), names)
    return names["model"], names["inputs"], names.get("settings", {})


class Middle(nn.Module):
    """Whose forward is a function of the test's."""

    def __init__(self, body: Body, **held: object) -> None:
        super().__init__()
        self.body = body
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)
