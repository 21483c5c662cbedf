"""What a model gives, whatever holds it: its tensors in order, and the same holder with others."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from dropkit.errors import SettingError

_Refill = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, slots=True)
class Flat:
    """A tree laid flat."""

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    """Where each leaf hangs, as one would write it behind the tree: `['logits'][0]`."""
    refill: _Refill
    """The tree with other leaves."""


def flatten(tree: Any) -> Flat:
    """Lay flat what may be a tensor, a mapping, a dataclass, or whatever torch's pytree knows.

    >>> flat = flatten({"a": 1, "b": (2, 3)})
    >>> flat.leaves, flat.names[1], flat.refill("xyz")
    ((1, 2, 3), "['b'][0]", {'a': 'x', 'b': ('y', 'z')})
    """
    parted = _parts(tree)
    if parted is None:
        return Flat((tree,), ("",), lambda leaves: leaves[0])
    names, parts, refill = parted
    below = [flatten(part) for part in parts]
    return Flat(
        tuple(leaf for part in below for leaf in part.leaves),
        tuple(
            f"{name}{rest}" for name, part in zip(names, below, strict=True) for rest in part.names
        ),
        lambda leaves: refill(_refilled(below, leaves)),
    )


def stacked(trees: Sequence[Any]) -> tuple[Flat, bool]:
    """Trees of one structure as one, whose tensors are stacked; False: their shapes differ.

    Raises:
        SettingError: there is none, or their structures differ.
    """
    if not trees:
        raise SettingError("draws: expected one or more; got none")
    flats = [flatten(tree) for tree in trees]
    first = flats[0]
    if any(flat.names != first.names for flat in flats):
        raise SettingError(
            "draws: expected outputs of one structure; got other parts in different draws"
        )
    columns = list(zip(*(flat.leaves for flat in flats), strict=True))
    if any(len({x.shape for x in column if isinstance(x, Tensor)}) > 1 for column in columns):
        return first, False
    leaves = (torch.stack(c) if isinstance(c[0], Tensor) else c[0] for c in columns)
    return Flat(tuple(leaves), first.names, first.refill), True


def child(tree: Any, at: int | str) -> Any:
    """What hangs in a tree at a key, a field or a place.

    Raises:
        SettingError: nothing is there.
    """
    parted = _parts(tree)
    names, parts = parted[:2] if parted else ([], [])
    wanted = (f"[{at!r}]", f".{at}")
    for name, part in zip(names, parts, strict=True):
        if name in wanted:
            return part
    if isinstance(at, int) and -len(parts) <= at < len(parts):
        return parts[at]
    there = f"a tree with {', '.join(names)}" if names else "one tensor, which has no parts"
    raise SettingError(f"draws[{at!r}]: expected a part of the outputs; got {there}")


def _refilled(below: Sequence[Flat], leaves: Sequence[Any]) -> list[Any]:
    parts, start = [], 0
    for part in below:
        end = start + len(part.leaves)
        parts.append(part.refill(leaves[start:end]))
        start = end
    return parts


def _parts(tree: Any) -> tuple[list[str], list[Any], _Refill] | None:
    """The names and values one storey below, and how to put others there; None: a leaf."""
    if isinstance(tree, Tensor):
        return None
    if isinstance(tree, Mapping):
        keys = list(tree)
        return [f"[{k!r}]" for k in keys], [tree[k] for k in keys], _mapping(tree, keys)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree)]
        values = [getattr(tree, name) for name in fields]
        return [f".{name}" for name in fields], values, _fields(tree, fields)
    parts, spec = _pytree.tree_flatten(tree, is_leaf=lambda part: part is not tree)
    if len(parts) == 1 and parts[0] is tree:
        return None
    return [f"[{place}]" for place in range(len(parts))], parts, lambda new: spec.unflatten(new)


def _mapping(tree: Mapping[Any, Any], keys: Sequence[Any]) -> _Refill:
    def refill(values: Sequence[Any]) -> Any:
        try:
            new: Any = copy.copy(tree)
            for key, value in zip(keys, values, strict=True):
                new[key] = value
        except TypeError:  # one that cannot be written
            return dict(zip(keys, values, strict=True))
        return new

    return refill


def _fields(tree: Any, names: Sequence[str]) -> _Refill:
    def refill(values: Sequence[Any]) -> Any:
        new = copy.copy(tree)
        for name, value in zip(names, values, strict=True):
            object.__setattr__(new, name, value)
        return new

    return refill
