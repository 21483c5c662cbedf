"""What a dropout under test declares about itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dropkit.testing.laws import Affine, Bernoulli, Law

Scaling = Literal["inverted", "classic", "none", "alpha", "normalized"]
Sizes = Literal["any", "batch", "fixed"]
Claim = Literal[
    "checkpoint",  # a checkpointed call draws its mask again
    "compile",  # torch.compile(fullgraph=True)
    "copy",  # deepcopy, pickle, state_dict and repr; modules only
    "double backward",
    "empty",  # tensors without elements
    "forward mode",  # torch.func.jvp
    "half",  # float16 and bfloat16
    "inductor",  # torch.compile's default backend; not standard, since it needs a C++ compiler
    "integer",  # integers are refused, or treated right
    "offset",  # a key, and the place of a part as an integer
    "rate one",  # everything may be dropped
    "scalar",  # tensors without axes
    "selects",  # a dropped inf or nan is gone; not standard, PyTorch's own multiply
    "shard",  # a key, and the place of a part as a dropkit.Shard
    "vmap",
]

STANDARD: frozenset[Claim] = frozenset(
    (
        "checkpoint",
        "compile",
        "copy",
        "double backward",
        "empty",
        "forward mode",
        "half",
        "integer",
        "offset",
        "rate one",
        "scalar",
        "shard",
        "vmap",
    )
)
"""What PyTorch's own dropouts claim, and for a key what dropkit's do."""

_ELEMENTWISE = Bernoulli()
_ALPHA = -1.7580993408473766  # SELU's value at minus infinity (Klambauer et al. 2017)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dropout, how to make it, and what it claims; a claim that is not made is not checked.

    Only `make` and `shape` are needed, for one that is like `torch.nn.Dropout`.

    >>> import torch
    >>> layer = Subject(make=torch.nn.Dropout2d, shape=(8, 16, 7, 5), shared=(2, 3))
    >>> functional = Subject(
    ...     make=lambda p: lambda x, training: torch.nn.functional.dropout(x, p, training),
    ...     shape=(8, 16),
    ... )
    """

    make: Callable[[float], nn.Module | Callable[[Tensor, bool], Tensor]]
    """From a rate, a new layer; or a new function of (x, training)."""
    shape: tuple[int, ...]
    """An input's shape; two or more along each axis, so that there is something to compare."""
    name: str = ""
    """What the report calls it; by default what the layer's class is called."""
    shared: tuple[int, ...] = ()
    """Axes along which one draw is shared."""
    law: Law = _ELEMENTWISE
    """How its masks are drawn."""
    scaling: Scaling | Callable[[float], Affine] = "inverted"
    """What becomes of the kept: inverted x / (1 - p); classic x in training, and x * (1 - p) in
    eval; none x in both; alpha as SELU wants it; normalized x * size / kept; or any other affine
    map of a rate."""
    sizes: Sizes = "any"
    """Which shapes it takes: any of this rank, this one with another batch, or this one alone."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    ulps: float = 4.0
    """How far a kept value may lie from the exact one, in units in the last place."""
    keyed: Callable[[float], Callable[..., Tensor]] | None = None
    """From a rate, a function called as f(x, key=int) and, where offset or shard is claimed,
    f(x, key=int, offset=int or dropkit.Shard). In training mode."""
    generator: Callable[[float], Callable[[Tensor, torch.Generator], Tensor]] | None = None
    """From a rate, a function of (x, generator). In training mode."""
    inplace: Callable[[float], nn.Module | Callable[[Tensor, bool], Tensor]] | None = None
    """As `make`, but working in place."""
    claims: frozenset[Claim] = STANDARD
    """What it says that it can, beyond its law."""

    def __post_init__(self) -> None:
        rank = len(self.shape)
        object.__setattr__(self, "shared", tuple(axis % rank for axis in self.shared))
        tied = tuple(axis % rank for axis in self.law.tied)
        object.__setattr__(self, "law", replace(self.law, tied=tied))
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.make(0.5)))

    @property
    def independent(self) -> tuple[int, ...]:
        """The axes along which draws are neither shared nor tied."""
        bound = {*self.shared, *self.law.tied}
        return tuple(axis for axis in range(len(self.shape)) if axis not in bound)

    @property
    def drops(self) -> bool:
        """Are elements dropped, and the rest kept? If not, it is noise."""
        return isinstance(self.law, Bernoulli)

    @property
    def ends(self) -> tuple[float, ...]:
        """Rates with both ends, in as far as it takes them; noise has no rate of 1."""
        return (0.0, 0.5, 1.0) if self.drops and "rate one" in self.claims else (0.0, 0.5)

    def affine(self, p: float) -> Affine:
        """What becomes of the kept and of the dropped; for `normalized` on average."""
        if not isinstance(self.scaling, str):
            return self.scaling(p)
        if p == 1:
            return Affine(0.0)
        if self.scaling in ("classic", "none"):
            return Affine(1.0)
        if self.scaling != "alpha":
            return Affine(1 / (1 - p))
        scale = 1 / math.sqrt((1 - p) * (1 + p * _ALPHA**2))
        shift = -scale * p * _ALPHA
        return Affine(scale, shift, scale * _ALPHA + shift)

    def rate(self, p: float, shape: tuple[int, ...] | None = None) -> float:
        """The probability that an element is dropped."""
        return self.law.rate(p, self.shape if shape is None else shape)


def _name_of(made: Any) -> str:
    return type(made).__name__ if isinstance(made, nn.Module) else getattr(made, "__name__", "it")
