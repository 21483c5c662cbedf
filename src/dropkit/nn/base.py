"""What the layers with a rate have in common. A layer is a law and a docstring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.modules import dropout as torch_dropout

from dropkit.functional.checks import check_number, check_rate
from dropkit.kernel import Key
from dropkit.records import Shard


class Rated(torch_dropout._DropoutNd):
    """A layer with a rate `p`.

    Tools that walk a model for torch's dropout layers, to set their rates or to keep them drawing,
    find every one: torch's base is its base.
    """

    options: ClassVar[tuple[str, ...]] = ()
    """What its repr tells beside p, where it is not at its default: a class attribute, or None."""

    def __init__(self, p: float, inplace: bool = False) -> None:
        check_number(p)
        check_rate(p)
        super().__init__(p, inplace)

    def extra_repr(self) -> str:
        """p, and the options that are not at their default."""
        told = [f"p={self.p}"]
        if "inplace" in self.options:
            told.append(f"inplace={self.inplace}")  # torch always tells
        for name in self.options:
            value, usual = getattr(self, name), getattr(type(self), name, None)
            if isinstance(value, Tensor):
                told.append(f"{name}={tuple(value.shape)}")
            elif name != "inplace" and value != usual:
                told.append(f"{name}={value!r}")
        return ", ".join(told)


class Layer(Rated):
    """A function of `dropkit.functional` with its rate and its options, as a module.

    A member is a row of a table: the law, the options that it takes by their names, each with its
    default as a class attribute, and a constructor that sets them.
    """

    law: ClassVar[Callable[..., Tensor]]

    def forward(
        self,
        x: Tensor,
        *,
        key: Key | None = None,
        offset: int | Shard = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The law on x, with a key that is given or drawn."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in self.options}
        return type(self).law(
            x, self.p, training=self.training, key=key, offset=offset, generator=generator,
            **settings,
        )  # fmt: skip
