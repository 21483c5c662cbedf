"""Takes draws as they come, and makes one value of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as trees

from dropkit.errors import SettingError
from dropkit.posterior.draws import Draws
from dropkit.posterior.entropies import Outputs
from dropkit.posterior.moments import Moments
from dropkit.posterior.running import Chunk

Kept = Literal["samples", "moments"]

_FEWEST = 20
"""Draws before their Monte Carlo error is looked at: of a few it is not known."""


class Gathering:
    """Draws, or their moments."""

    def __init__(self, keep: Kept, outputs: Outputs, class_axis: int, *, watch: bool) -> None:
        """`watch`: moments are needed too, to say how certain they are."""
        if keep not in ("samples", "moments"):
            raise SettingError(f"keep: expected samples or moments; got {keep!r}")
        self.keep, self.outputs, self.class_axis = keep, outputs, class_axis
        self.count = 0
        self.varies = False
        """Whether any number of two draws differs."""
        self._moments = Moments(outputs, class_axis) if watch or keep == "moments" else None
        self._stacked: list[Any] = []
        self._single: list[list[Any]] = []
        """By draw, once the shapes of two differ."""
        self._first: list[Any] = []
        self._checked = 0

    def add(self, chunk: Chunk, form: Any, expected: int) -> None:
        """Draws; `expected`: how many there will be in all."""
        if self._moments is not None:
            self._moments.add(trees.tree_unflatten(chunk.leaves, form))
        if not self._first:
            self._first = [_own(_part(leaf, 0)) for leaf in chunk.leaves]
        self.varies = self.varies or self._differs(chunk)
        if self.keep == "samples":
            self._keep(chunk, expected)
        self.count += chunk.count

    def nan(self, chunk: Chunk) -> int | None:
        """The first draw of a chunk with NaN in it."""
        for leaf in chunk.leaves:
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and _suspect(leaf):
                bad = leaf.isnan().reshape(chunk.count, -1).any(1)
                if bool(bad.any()):
                    return chunk.first + int(bad.nonzero()[0])
        return None

    @property
    def is_empty(self) -> bool:
        """Whether the outputs hold no number at all, as those of no rows."""
        return not any(isinstance(x, Tensor) and x.numel() for x in self._first)

    @property
    def is_numbers(self) -> bool:
        """Whether any output is a floating-point number."""
        return any(isinstance(x, Tensor) and x.is_floating_point() for x in self._first)

    def error(self, quantity: str, *, last: bool = False) -> float:
        """The largest Monte Carlo error of a quantity; after each tenth of draws more."""
        early = self.count < max(_FEWEST, 1.1 * self._checked)
        if self._moments is None or (early and not last):
            return math.inf
        self._checked = self.count
        found = self._moments.draws().error(quantity)
        parts = [x for x in trees.tree_leaves(found) if isinstance(x, Tensor)]
        return max(float(x.max()) for x in parts if x.numel())

    def draws(self, form: Any, key: int, sites: Sequence[Any]) -> Draws:
        """All of them."""
        if self.keep == "moments" and self._moments is not None:
            return self._moments.draws(key, sites)
        options: dict[str, Any] = {
            "outputs": self.outputs, "class_axis": self.class_axis, "key": key, "sites": sites,
        }  # fmt: skip
        if self._single:
            single = [trees.tree_unflatten(leaves, form) for leaves in self._single]
            return Draws.gather(single, **options)
        whole = [x[: self.count] if isinstance(x, Tensor) else x for x in self._stacked]
        return Draws.of(trees.tree_unflatten(whole, form), **options)

    # ---- samples

    def _keep(self, chunk: Chunk, expected: int) -> None:
        if not self._stacked:
            self._stacked = [_room(leaf, min(expected, 1024)) for leaf in chunk.leaves]
        if self._single or not self._fits(chunk):
            self._apart(chunk)
            return
        end = self.count + chunk.count
        for at, leaf in enumerate(chunk.leaves):
            if isinstance(leaf, Tensor):
                self._stacked[at] = _grown(self._stacked[at], self.count, end, expected)
                self._stacked[at][self.count : end] = leaf

    def _fits(self, chunk: Chunk) -> bool:
        pairs = zip(self._stacked, chunk.leaves, strict=True)
        return all(a.shape[1:] == b.shape[1:] for a, b in pairs if isinstance(b, Tensor))

    def _apart(self, chunk: Chunk) -> None:
        """Draws of different shapes are kept one by one."""
        if not self._single:
            whole = self._stacked
            self._single = [[_part(leaf, at) for leaf in whole] for at in range(self.count)]
        for at in range(chunk.count):
            self._single.append([_own(_part(leaf, at)) for leaf in chunk.leaves])

    def _differs(self, chunk: Chunk) -> bool:
        return any(
            leaf.shape[1:] != first.shape or bool((leaf != first).any())
            for first, leaf in zip(self._first, chunk.leaves, strict=True)
            if isinstance(leaf, Tensor)
        )


def _suspect(leaf: Tensor) -> bool:
    """Whether there may be NaN in it: one has a sum that is none, and so may infinities."""
    return math.isnan(float(leaf.sum()))


def _own(leaf: Any) -> Any:
    """What no later pass writes into, as a model may into a buffer that it gives."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _part(leaf: Any, at: int) -> Any:
    return leaf[at] if isinstance(leaf, Tensor) else leaf


def _room(leaf: Any, count: int) -> Any:
    """Memory for so many draws."""
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.empty(
        (max(count, len(leaf)), *leaf.shape[1:]), dtype=leaf.dtype, device=leaf.device
    )


def _grown(room: Tensor, used: int, end: int, expected: int) -> Tensor:
    """The same with room for `end` draws, and for many more."""
    if end <= len(room):
        return room
    larger = _room(room[:1], min(max(2 * end, end), max(expected, end)))
    larger[:used] = room[:used]
    result: Tensor = larger
    return result
