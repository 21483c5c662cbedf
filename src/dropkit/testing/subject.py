"""What a dropout under test declares about itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dropkit.errors import SettingError
from dropkit.testing.laws import Affine, Bernoulli, Block, Gaussian, Law, Subset

Apply = Callable[[Tensor], Tensor]
Made = nn.Module | Callable[[Tensor, bool], Tensor]
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
    "nan and inf",  # they stay where they are kept, and no other element sees them
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
        "nan and inf",
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

    make: Callable[[float], Made]
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
    inplace: Callable[[float], Made] | None = None
    """As `make`, but working in place."""
    claims: frozenset[Claim] = STANDARD
    """What it says that it can, beyond its law."""

    def __post_init__(self) -> None:
        _verify(self)
        rank = len(self.shape)
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "claims", frozenset(self.claims))
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
    def rows(self) -> int | None:
        """The axis that is made longer for a large sample, if any may be."""
        independent = self.independent
        if self.sizes == "any":
            return independent[0] if independent else None
        return 0 if self.sizes == "batch" and 0 in independent else None

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


# ---- what a subject cannot be


def _verify(subject: Subject) -> None:
    """Refuse what no check could be held to, before one passes for want of something to see."""
    _expect(callable(subject.make), "make", "a function of a rate", subject.make)
    for name in ("keyed", "generator", "inplace"):
        value = getattr(subject, name)
        _expect(value is None or callable(value), name, "a function of a rate, or None", value)
    _verify_axes(subject)
    _verify_law(subject)
    _verify_scaling(subject)
    sizes = get_args(Sizes)
    _expect(_among(subject.sizes, sizes), "sizes", f"one of {sizes}", subject.sizes)
    known = get_args(Claim)
    claims: Any = subject.claims
    several = isinstance(claims, Collection) and not isinstance(claims, str)
    _expect(several, "claims", f"a set of {known}", claims, 'STANDARD | {"selects"}')
    unknown = [claim for claim in claims if not _among(claim, known)]
    _expect(not unknown, "claims", f"some of {known}", unknown)
    floating = isinstance(subject.dtype, torch.dtype) and subject.dtype.is_floating_point
    _expect(floating, "dtype", "a floating dtype", subject.dtype, "torch.float32")
    _expect(_is_device(subject.device), "device", "a name of a device", subject.device, '"cpu"')
    ulps = subject.ulps
    real = isinstance(ulps, int | float) and 0 <= ulps < math.inf
    _expect(real, "ulps", "a number of 0 or more", ulps, "the default of 4")


def _verify_axes(subject: Subject) -> None:
    shape, shared = subject.shape, subject.shared
    sizes = isinstance(shape, tuple | list) and len(shape) > 0
    sizes = sizes and all(_is_integer(size) and size >= 2 for size in shape)
    hint = "(8, 16): along an axis of one there is nothing to compare"
    _expect(sizes, "shape", "sizes of 2 or more, one for each axis", shape, hint)
    _expect(_are_axes(shared, shape), "shared", _axes_of(shape), shared, "() where none is shared")
    bounded = isinstance(subject.law, Bernoulli | Gaussian)
    _expect(bounded, "law", "a law of dropkit.testing", subject.law, "Bernoulli()")
    tied = subject.law.tied
    _expect(_are_axes(tied, shape), "law.tied", _axes_of(shape), tied)
    both = {axis % len(shape) for axis in tied} & {axis % len(shape) for axis in shared}
    _expect(not both, "shared", "axes that the law does not tie", sorted(both), "the others alone")


def _verify_law(subject: Subject) -> None:
    law = subject.law
    if isinstance(law, Block):
        right = _is_integer(law.size) and law.size >= 1
        _expect(right, "law.size", "the side of a block, 1 or more", law.size)
        _expect(bool(law.tied), "law.tied", "the axes of a block", law.tied, "Block(tied=(2, 3))")
    if isinstance(law, Subset):
        one = len(law.tied) == 1
        _expect(one, "law.tied", "the one axis of the subset", law.tied, "Subset(tied=(1,))")


def _verify_scaling(subject: Subject) -> None:
    names, scaling = get_args(Scaling), subject.scaling
    named = callable(scaling) or _among(scaling, names)
    _expect(named, "scaling", f"one of {names} or a function of a rate", scaling, '"inverted"')
    if callable(scaling):
        made = scaling(0.5)
        _expect(isinstance(made, Affine), "scaling", "a function to Affine", made, "Affine(2.0)")


def _expect(right: bool, name: str, expected: str, got: object, hint: str = "") -> None:
    if not right:
        hint = hint and f". Try {hint}"
        raise SettingError(f"{name}: expected {expected}; got {got!r}{hint}")


def _among(value: object, names: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in names


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_device(name: object) -> bool:
    try:
        torch.device(name)  # type: ignore[call-overload]
    except (RuntimeError, TypeError):
        return False
    return isinstance(name, str)


def _are_axes(axes: object, shape: tuple[int, ...]) -> bool:
    """Are they axes of the shape, and each said once?"""
    rank = len(shape)
    if not isinstance(axes, tuple | list):
        return False
    if not all(_is_integer(axis) and -rank <= axis < rank for axis in axes):
        return False
    return len({axis % rank for axis in axes}) == len(axes)


def _axes_of(shape: tuple[int, ...]) -> str:
    return f"different axes of the shape {tuple(shape)}, from {-len(shape)} to {len(shape) - 1}"
