"""How often what a dropout keeps is multiplied by 1 / (1 - p)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropkit.inspection.events import Event, events
from dropkit.inspection.masks import Mask, factor, masks
from dropkit.intercept.trace import Node, Trace
from dropkit.records import Site

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_NEAR = 1e-3
"""How exactly a factor is 1 / (1 - p): the numbers of a source are, those of a mask nearly."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A dropout, and what was seen to be multiplied by 1 / (1 - p)."""

    site: Site
    keep: float
    itself: int
    """How often the dropout, or its mask, has it in itself: once is right."""
    in_training: int
    """Factors beside it that are there in training mode alone."""
    in_both: int
    """Factors beside it that are there in both modes."""
    seen: tuple[str, ...]

    @property
    def times(self) -> int:
        """All together."""
        return self.itself + self.in_training + self.in_both


def scaled(evidence: Evidence) -> Iterator[Scaled]:
    """All dropouts of a known rate that act in training mode."""
    trace, evaluation = evidence.passes.train[0], evidence.passes.evaluation
    earlier, later = _factors(trace), _factors(evaluation)
    mine = {id(mask.met): mask for mask in masks(evidence)}
    sites = {(site.path, site.place, site.operation): site for site in reversed(evidence.sites)}
    done = set[int]()
    for event in events(trace):
        site = sites.get((event.where.path, event.where.place, event.operation))
        rate = event.rate
        if site is None or id(site) in done or not event.fired or rate is None or not 0 < rate < 1:
            continue
        mask = mine.get(id(event.met))
        if event.met is not None and mask is None:
            continue
        done.add(id(site))
        yield _scaled(site, event, 1 - rate, mask, later, earlier)


def _scaled(
    site: Site,
    event: Event,
    keep: float,
    mask: Mask | None,
    later: Counter[object],
    earlier: Counter[object],
) -> Scaled:
    itself = 1 if mask is None else _power(mask.scale, keep)
    seen = [f"{event.operation} at {site.place or site.path} multiplies by {_scale(keep, itself)}"]
    in_training = in_both = 0
    for node in _beside(event):
        number = factor(node)
        if number is None or abs(number * keep - 1) > _NEAR:
            continue
        key = _key(node)
        is_both = later[key] >= earlier[key]
        in_training, in_both = in_training + (not is_both), in_both + is_both
        where = "in both modes" if is_both else "in training alone"
        seen.append(f"{node.name} beside it multiplies by {number:.4g} {where}")
    return Scaled(site, keep, itself, in_training, in_both, tuple(seen))


def _scale(keep: float, power: int) -> str:
    return f"{(1 / keep) ** power:.4g}"


def _power(scale: float, keep: float) -> int:
    """Which power of 1 / keep a scale is; 0 where it is none."""
    power = round(math.log(scale) / -math.log(keep)) if scale > 0 else 0
    return max(0, power) if abs(scale * keep**power - 1) <= 10 * _NEAR else 0


def _beside(event: Event) -> Iterator[Node]:
    """What is right before and after, as long as it only multiplies by numbers."""
    node, before = event.x, list[Node]()
    while node is not None and factor(node) is not None and len(node.inputs) == 1:
        before.append(node)
        node = node.inputs[0]
    if node is None or not any(source.is_noise for source in node.inputs):
        yield from before  # and else they are another mask's
    node = event.result
    while node is not None and len(node.users) == 1 and factor(node.users[0]) is not None:
        node = node.users[0]
        yield node


def _key(node: Node) -> object:
    return node.path, node.name.removesuffix("_"), node.scalars[:1]


def _factors(trace: Trace) -> Counter[object]:
    return Counter(
        _key(node) for node in trace.nodes if factor(node) is not None and not node.is_noise
    )
