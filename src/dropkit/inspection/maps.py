"""Whether what a site drops are maps of a convolution."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropkit.inspection.runs import Run, Way


def convolution(run: Run) -> Way | None:
    """The convolution whose maps a site drops, with more than one place; None: there is none.

    Its axes have to be as they were. Maps of one place, what was pooled or flattened to vectors,
    and patches that became tokens are no maps; nor is what has as many channels as places, of which
    the axes cannot be told.
    """
    shape = run.shape
    if not 3 <= len(shape) <= 5 or prod(shape[2:]) < 2 or shape[1] in shape[2:]:
        return None
    ways = run.backward(
        "activation", "batch_norm", "norm", "pool", "add", "residual_add", "multiply"
    )
    for way in ways:
        if way.step == "linear":
            return None
        if way.step == "convolution":
            fits = len(way.node.shape) == len(shape) and way.node.shape[1] == shape[1]
            return way if fits else None
    return None
