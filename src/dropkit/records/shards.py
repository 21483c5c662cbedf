"""Parts of tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Where a part of a tensor lies: a box that begins at `start` in a whole of `shape`."""

    shape: tuple[int, ...]
    start: tuple[int, ...]
