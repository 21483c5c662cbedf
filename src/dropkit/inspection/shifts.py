"""How much wider dropout makes what comes into a batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from dropkit.inspection.passes import Passes
from dropkit.intercept.trace import Node, Normed, Trace


@dataclass(frozen=True, slots=True)
class Shift:
    """The variance with dropout, over that without."""

    ratio: float
    doubt: float
    """Standard error of the ratio, by how far the channels differ in it."""
    rows: int
    """Values by which the variance of each channel was measured."""


def shift(passes: Passes, trace: Trace, node: Node) -> Shift | None:
    """What was measured at a batch norm; None: it was not."""
    if passes.still is None:
        return None
    place = next((at for at, number, _ in _numbered(trace) if number == node.number), None)
    off = next((normed for at, _, normed in _numbered(passes.still) if at == place), None)
    on = trace.normed.get(node.number)
    if (
        on is None
        or off is None
        or len(on.variances) != len(off.variances)
        or not sum(off.variances)
    ):
        return None
    total, channels = sum(off.variances), len(off.variances)
    ratio = sum(on.variances) / total
    apart = sum((a - ratio * b) ** 2 for a, b in zip(on.variances, off.variances, strict=True))
    doubt = (apart * channels / (channels - 1)) ** 0.5 / total if channels > 1 else ratio
    return Shift(ratio, doubt, on.rows)


def learns(trace: Trace, node: Node) -> bool:
    """Whether a batch norm keeps the statistics of this pass for evaluation."""
    normed = trace.normed.get(node.number)
    return normed is not None and normed.learns


def _numbered(trace: Trace) -> Iterator[tuple[tuple[str, int], int, Normed]]:
    """Batch norms as (path, how often it ran before), so that two passes can be compared."""
    ran: dict[str, count[int]] = {}
    for number, normed in sorted(trace.normed.items()):
        yield (normed.path, next(ran.setdefault(normed.path, count()))), number, normed
