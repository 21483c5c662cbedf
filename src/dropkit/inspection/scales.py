"""How often what a dropout keeps is multiplied by 1 / (1 - p)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropkit.inspection.events import Event
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
    in_evaluation: int
    """Factors of 1 - p in its place that are there in evaluation mode alone."""
    seen: tuple[str, ...]

    @property
    def times(self) -> int:
        """All together."""
        return self.itself + self.in_training + self.in_both + self.in_evaluation


def scaled(evidence: Evidence) -> Iterator[Scaled]:
    """All dropouts of a known rate that act in training mode."""
    trace = evidence.passes.train[0]
    modes = _Modes(trace, evidence.passes.evaluation)
    mine = {id(mask.met): mask for mask in masks(evidence)}
    for run in evidence.runs:
        event = next((event for event in run.events if event.fired and event.is_in(trace)), None)
        if event is None or not run.trained or not _is_plain(event.rate):
            continue
        mask = mine.get(id(event.met))
        if event.met is None or mask is not None:
            yield _scaled(run.site, event, 1 - (event.rate or 0.0), mask, modes)


def _scaled(
    site: Site,
    event: Event,
    keep: float,
    mask: Mask | None,
    modes: _Modes,
) -> Scaled:
    itself = 1 if mask is None else _power(mask.counted.scale, keep)
    seen = [f"{event.operation} at {site.place or site.path} multiplies by {_scale(keep, itself)}"]
    in_training = in_both = 0
    for node in _beside(event):
        number = factor(node)
        is_both = modes.have(node)
        if number is not None and not is_both and abs(number / keep - 1) <= _NEAR:
            in_training -= 1  # which takes back what the dropout has in itself
        if number is None or abs(number * keep - 1) > _NEAR:
            continue
        in_training, in_both = in_training + (not is_both), in_both + is_both
        where = "in both modes" if is_both else "in training alone"
        seen.append(f"{node.name} beside it multiplies by {number:.4g} {where}")
    later = [n for n in modes.instead(event) if abs((factor(n) or 0) / keep - 1) <= _NEAR][:1]
    seen += [f"{n.name} in its place multiplies by {keep:.4g} in evaluation alone" for n in later]
    return Scaled(site, keep, itself, in_training, in_both, len(later), tuple(seen))


class _Modes:
    """Factors of both modes."""

    def __init__(self, trace: Trace, evaluation: Trace) -> None:
        self.earlier, self.later = _factors(trace), _factors(evaluation)
        self.alone: dict[object, list[Node]] = {}
        for node in evaluation.nodes:
            is_alone = self.later[_key(node)] > self.earlier[_key(node)]
            if is_alone and factor(node) is not None and len(node.inputs) == 1:
                self.alone.setdefault(_alike(node.inputs[0]), []).append(node)

    def have(self, node: Node) -> bool:
        """Whether a factor of training is there in evaluation, too."""
        return self.later[_key(node)] >= self.earlier[_key(node)]

    def instead(self, event: Event) -> list[Node]:
        """Factors that evaluation alone puts on what a dropout is given in training."""
        return [] if event.x is None else self.alone.get(_alike(event.x), [])


def _alike(node: Node) -> object:
    """The same for one value in both modes."""
    return node.name, node.path, node.shape, node.scalars


def _is_plain(rate: float | None) -> bool:
    """Whether 1 / (1 - p) is another number than 1."""
    return rate is not None and 2 * _NEAR < rate < 1


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
