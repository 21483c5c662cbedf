"""Masks that somebody wrote: what they were, and what makes up for their scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropkit.inspection.flow import after, before
from dropkit.inspection.passes import units
from dropkit.intercept.trace import Application, Node, Trace
from dropkit.records import Site

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_NEAR = 12
"""Operations before and after a mask among which a factor counts as made for it."""
_ZEROS = ("zeros", "zeros_like", "new_zeros", "zero_")
_FILLED = ("full", "full_like", "new_full", "scalar_tensor", "fill_", "masked_fill")


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted in masks of one site, all together."""

    size: int
    zeros: int
    scale: float
    """What is kept is multiplied by it, in the mask itself; 0 where nothing is kept."""
    spread: float
    """Its standard deviation: 0 where all that is kept is multiplied by the same."""

    @property
    def mean(self) -> float:
        """Of all, what is dropped among them."""
        return self.scale * (self.size - self.zeros) / self.size


def tally(masks: Iterable[Application]) -> Tally | None:
    """Counts masks that have values; None: there are none."""
    size = zeros = 0
    total = squares = 0.0
    for met in masks:
        if met.counts is None:
            continue
        elements, none, summed, squared = met.counts
        if not met.keeps:  # what is not 0 in it is what is dropped
            none, summed, squared = elements - none, float(none), float(none)
        size, zeros = size + elements, zeros + none
        total, squares = total + summed, squares + squared
    if not size:
        return None
    kept = max(1, size - zeros)
    scale = total / kept
    return Tally(size, zeros, scale, math.sqrt(max(0.0, squares / kept - scale * scale)))


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of two values, one of them 0, in all training passes together."""

    site: Site
    met: Application
    """At the first time."""
    trace: Trace
    """Of that time."""
    counted: Tally
    units: int
    """Of which it is sure that they are independent: elements, or else maps."""

    @property
    def share(self) -> float:
        """The fraction that was dropped."""
        return self.counted.zeros / self.counted.size

    @property
    def words(self) -> str:
        """What was measured."""
        counted = self.counted
        return (
            f"of {counted.size:,} drawn factors {counted.zeros:,} were 0 "
            f"({100 * self.share:.1f} %), and the others {counted.scale:.4g}"
        )


def masks(evidence: Evidence) -> Iterator[Mask]:
    """Those of all sites that drop in training mode alone, and put 0 where they drop."""
    for run in evidence.runs:
        met = [event.met for event in run.events if event.met is not None and event.met.counts]
        counted = tally(met)
        if counted is None or not run.trained or run.site.fired_in_eval:
            continue
        if _drops(met[0]) and not _is_filled(met[0], run.trace):
            yield Mask(run.site, met[0], run.trace, counted, sum(map(units, met)))


# ---- what it does to what it drops


def _drops(met: Application) -> bool:
    """Whether a mask of two values puts 0 in the place of what it drops."""
    chance = met.noise.chance
    if not met.masks or chance is None or chance.kind != "binary":
        return False
    name, node = met.node.name, met.node
    if name.startswith(("mul", "multiply")):
        return True
    if name.startswith("masked_fill") and node.scalars:
        return node.scalars[-1] == 0
    if met.fill is not None:
        return met.fill == 0
    rest = [source for source in node.inputs if source not in (met.noise, met.value)]
    if name == "where" and not rest and node.scalars:
        return node.scalars[-1] == 0
    return bool(rest) and all(_is_zero(source) for source in rest)


def _is_zero(node: Node) -> bool:
    if node.name in _ZEROS:
        return True
    return node.name in _FILLED and node.scalars[-1:] == (0.0,)


def _is_filled(met: Application, trace: Trace) -> bool:
    """Whether something else stands where it drops: what the opposite mask lets through."""
    mine = {id(draw) for draw in met.noise.draws}
    others = [
        other.node
        for other in trace.applications
        if other.node is not met.node
        and (other.noise is not met.noise or other.keeps is not met.keeps)
        and any(id(draw) in mine for draw in other.noise.draws)
        and other.noise_shape == met.noise_shape
    ]
    if not others:
        return False
    near = {node.number for node in after(met.node, within=_NEAR)}
    return any(
        node.number in near for other in others for node in (other, *after(other, within=_NEAR))
    )


# ---- what makes up for its scale


@dataclass(frozen=True, slots=True)
class Factors:
    """By what a value is multiplied near a mask, apart from the mask."""

    numbers: tuple[float, ...]
    are_known: bool
    """False: by a value that is not among the numbers of the source, too."""


def near(evidence: Evidence, node: Node, value: Node | None) -> Factors:
    """Factors some operations before and after.

    One of a value that is not known is left out where evaluation has the same: it can make up for
    nothing that is done in training alone.
    """
    around = [*after(node, within=_NEAR)]
    if value is not None:
        around += [value, *before(value, within=_NEAR)]
    later, earlier = (
        Counter(_named_factor(node) for node in trace.nodes if _is_unknown(node))
        for trace in (evidence.passes.evaluation, evidence.passes.train[0])
    )
    in_both = {named for named, count in earlier.items() if later[named] >= count}
    return _factors([x for x in around if not _is_unknown(x) or _named_factor(x) not in in_both])


def _named_factor(node: Node) -> tuple[str, str]:
    return node.path, node.name.removesuffix("_")


def _is_unknown(node: Node) -> bool:
    """Whether a value is multiplied by a single other one, which is no number of the source."""
    if node.name.removesuffix("_") not in ("mul", "div"):
        return False
    if len(node.inputs) == 1:
        return not node.scalars  # times what nobody saw made
    return any(math.prod(source.shape) == 1 for source in node.inputs)


def only_in_evaluation(evidence: Evidence, site: Site) -> Factors:
    """Factors within a site's module, or around it, that are there in evaluation mode alone."""

    def related(trace: Trace) -> list[Node]:
        return [node for node in trace.nodes if _is_related(node.path, site.path)]

    later = _factors(related(evidence.passes.evaluation))
    earlier = _factors(related(evidence.passes.train[0]))
    rest = list(later.numbers)
    for number in earlier.numbers:
        if number in rest:
            rest.remove(number)
    return Factors(tuple(rest), later.are_known or not earlier.are_known)


def _is_related(path: str, other: str) -> bool:
    if path == other:
        return True
    return bool(path and other) and (f"{path}.").startswith((f"{other}.", f"{_parent(other)}."))


def _parent(path: str) -> str:
    return path.rpartition(".")[0] or path


def factor(node: Node) -> float | None:
    """The number by which a value is multiplied; None: it is not, or by no number."""
    name = node.name.removesuffix("_")
    if name not in ("mul", "div", "multiply", "divide") or not node.scalars or not node.scalars[0]:
        return None
    return node.scalars[0] if name.startswith("mul") else 1 / node.scalars[0]


def _factors(nodes: list[Node]) -> Factors:
    numbers, are_known = [], True
    for node in nodes:
        number = factor(node)
        if number is not None and not node.is_noise:
            numbers.append(number)
        elif _is_unknown(node):
            are_known = False
    return Factors(tuple(numbers), are_known)


# ---- doubt


def chance(share: float, units: int, expected: float) -> float:
    """A bound on the two-sided chance of a share as far from the expected one, or farther.

    Hoeffding 1963, theorem 1: 2 exp(-units KL(share || expected)), for means of independent values
    within [0, 1], whatever their law.
    """
    if share == expected:
        return 1.0
    if not 0 < expected < 1:
        return 0.0
    divergence = sum(
        a * math.log(a / b) for a, b in ((share, expected), (1 - share, 1 - expected)) if a > 0
    )
    return min(1.0, 2 * math.exp(-units * divergence))
