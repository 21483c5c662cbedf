"""From passes to sites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropkit.inspection.events import Event, events
from dropkit.inspection.flow import before, neighbours
from dropkit.inspection.masks import factor, tally
from dropkit.inspection.passes import Passes
from dropkit.inspection.roles import role
from dropkit.intercept.trace import NOISE, Node, Trace
from dropkit.records import Measured, Neighbour, Site, SiteKind

Key = tuple[object, ...]

_NEAR = 0.02
"""How far a mean may be from 1, and nothing has to make up for it."""
_ABOUT = 0.25
"""How far one may be with a factor that is meant to make up for it, right or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """All times that one site ran."""

    events: list[Event]
    trace: Trace
    """Of the pass in which it was seen first."""
    trained: bool
    """Whether that was a training pass."""
    evaluated: bool


def grouped(passes: Passes) -> list[Group]:
    """What ran, by site, in the order in which it ran."""
    trained: dict[Key, list[Event]] = {}
    traces: dict[Key, Trace] = {}
    for trace in passes.train:
        for event in events(trace):
            key = _key(event)
            if traces.setdefault(key, trace) is trace or event.met is not None:
                trained.setdefault(key, []).append(event)
    evaluated: dict[Key, list[Event]] = {}
    for event in filter(lambda event: event.fired, events(passes.evaluation)):
        evaluated.setdefault(_key(event), []).append(event)
    found = [
        Group(group, traces[key], True, _acts(group, evaluated.pop(key, ())))
        for key, group in trained.items()
    ]
    return found + [Group(group, passes.evaluation, False, True) for group in evaluated.values()]


def _acts(trained: Sequence[Event], evaluated: Sequence[Event]) -> bool:
    """Whether what drew in evaluation mode did there what it does in training.

    A lot that is drawn in both modes, and asked in training alone, drops nothing in evaluation.
    """
    is_draw = all(event.kind == "random" for event in trained)
    return any(is_draw or event.kind != "random" for event in evaluated)


def sites_of(model: nn.Module | None, passes: Passes) -> tuple[Site, ...]:
    """All sites of a model, in the order in which they ran; those that never ran come last."""
    skipped = {where.path for where in passes.evaluation.fused}
    holders = _Holders(passes.rates)
    found = [
        _site(g.events, g.trace, g.evaluated, skipped, holders, trained=g.trained)
        for g in grouped(passes)
    ]
    held = {site.holder for site in found}
    idle = () if model is None else _idle(model, passes)
    return (*found, *(site for site in idle if site.holder not in held))


def _key(event: Event) -> Key:
    """A helper that is called with two rates is two sites."""
    return event.where.key, None if event.rate is None else round(event.rate, 9)


def _site(
    group: Sequence[Event],
    trace: Trace,
    evaluated: bool,
    skipped: set[str],
    holders: _Holders,
    *,
    trained: bool,
) -> Site:
    asked = [event for event in group if event.asked]
    first = (asked or group)[0]
    where = first.where
    outputs = frozenset(node.number for node in trace.outputs)
    fed_by, feeds = _around(first, outputs)
    mine = [event for event in group if event.is_in(trace)]
    in_step = _is_step(mine)
    rate = first.rate if first.asked or not trained else 0.0
    rate = None if rate is None else round(rate, 12)  # 1 - 0.9
    if rate is not None and first.x is None:
        rate = holders.chosen(where.path, rate)
    return Site(
        path=where.path,
        owner=where.owner,
        kind=first.kind,
        role=role(where.path, first.kind, first.shape, fed_by, feeds, in_step),
        rate=rate,
        place=where.place,
        operation=first.operation,
        fired_in_train=trained and any(event.fired for event in group),
        fired_in_eval=evaluated,
        bypassed=any(_is_within(where.path, path) for path in skipped),
        shape=first.shape,
        shared=first.shared,
        calls=len(mine),
        in_step=in_step,
        holder=holders.find(where.path, rate, parts=first.met is None),
        measured=_measured(group),
        fed_by=fed_by,
        feeds=feeds,
    )


def _around(
    event: Event, outputs: frozenset[int]
) -> tuple[tuple[Neighbour, ...], tuple[Neighbour, ...]]:
    fed_by: tuple[Neighbour, ...] = ()
    feeds: tuple[Neighbour, ...] = ()
    if event.x is not None:
        fed_by = neighbours([event.x], lambda node: node.inputs, frozenset())
    if event.result is not None:
        feeds = neighbours(event.result.users, lambda node: node.users, outputs)
        if event.result.number in outputs:
            output = Neighbour("output", "output", "", 1, event.result.shape)
            feeds = (output, *feeds)
    return fed_by, feeds


def _is_step(group: Sequence[Event]) -> bool:
    """Whether its calls are steps in time.

    Each hangs on what the one before gave, and of something they take one part each: it is used
    between them, as often as it has parts. The last part may be only predicted, all may be used
    again behind the last step, and a loop may be run several times.
    """
    if len(group) < 2 or group[1].x is None or group[0].result is None:
        return False
    earlier = group[0].result
    past = list(before(group[1].x))
    if group[1].x is not earlier and all(node is not earlier for node in past):
        return False
    results = [event.result.number for event in group if event.result is not None]
    return any(
        count >= within and size in (within, within + 1, within + 2)
        for node in past
        if node.cuts and node.origin & ~NOISE
        if (within := _within(node, results))
        for size, count in node.cuts.items()
    )


def _within(node: Node, results: Sequence[int]) -> int:
    """How many of some results came between the first and the last use of a value."""
    used = [user.number for user in node.users]
    return sum(min(used) < number < max(used) for number in results) if used else 0


def _is_within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _measured(group: Iterable[Event]) -> Measured | None:
    """What the masks were, all together, with what makes up for their scale beside them."""
    met = [event.met for event in group if event.met is not None and event.met.counts is not None]
    counted = tally(met)
    if counted is None:
        return None
    last, kept = met[-1], counted.size - counted.zeros
    chance = None if last.noise.chance is None else last.noise.chance.nonzero
    share = kept / counted.size if chance is None else chance if last.keeps else 1 - chance
    by = _made_up(last.value, last.node, share * counted.scale)
    scale = counted.scale * by if kept else math.nan
    return Measured(counted.size, counted.zeros, scale, counted.spread * by, counted.mean * by)


def _made_up(value: Node, result: Node, mean: float) -> float:
    """A factor before or after the mask that brings its mean to 1; else 1."""
    if abs(mean - 1) <= _NEAR or mean == 0:
        return 1.0
    beside = (value, *(result.users if len(result.users) == 1 else ()))
    factors = (found for node in beside if (found := factor(node)) is not None)
    return next((by for by in factors if abs(mean * by - 1) <= _ABOUT), 1.0)


class _Holders:
    """Finds the attribute that holds the rate of a site."""

    def __init__(self, rates: dict[str, float]) -> None:
        self.names: dict[float, list[str]] = {}
        for name, value in rates.items():
            self.names.setdefault(round(value, 12), []).append(name)

    def find(self, path: str, rate: float | None, *, parts: bool = True) -> str:
        """The nearest attribute of that value: the module's, a dropout's in it, one further out.

        Args:
            path: of the module.
            rate: the value.
            parts: whether it may be that of a dropout within the module.
        """
        near = [] if rate is None else self.names.get(round(rate, 12), [])
        for place in dict.fromkeys((path, path.rpartition(".")[0])) if near else ():
            own = (name for name in near if name.rpartition(".")[0] == place)
            found = next(own, None)
            if found is None and parts:
                found = next((name for name in near if _is_part(name, place)), None)
            if found is not None:
                return found
        return ""

    def chosen(self, path: str, chance: float) -> float:
        """Of a choice with some chance, the rate: what an attribute says, else the smaller side."""
        other = round(1 - chance, 12)
        if self.find(path, chance) or self.find(path, other):
            return chance if self.find(path, chance) else other
        return min(chance, other)


def _is_part(name: str, place: str) -> bool:
    """Whether an attribute is that of a dropout right within a module."""
    module, _, attribute = name.rpartition(".")
    alone = attribute in ("p", "rate", "prob", "drop_prob")
    return alone and bool(module) and module.rpartition(".")[0] == place


_KINDS: dict[str, SiteKind] = {
    "Dropout1d": "feature_dropout",
    "Dropout2d": "feature_dropout",
    "Dropout3d": "feature_dropout",
    "AlphaDropout": "alpha_dropout",
    "FeatureAlphaDropout": "alpha_dropout",
}


def _idle(model: nn.Module, passes: Passes) -> Iterable[Site]:
    """Dropouts that a model holds and that did nothing: never called, or with nothing to drop."""
    ran = set().union(*(trace.ran for trace in passes.train))
    for path, module in model.named_modules():
        name = type(module).__name__
        if isinstance(module, _DropoutNd) and path not in ran:
            yield _nothing(path, name, _KINDS.get(name, "dropout"), float(module.p), False, "p")
        elif isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers == 1:
            kind: SiteKind = "recurrent"
            rate = float(module.dropout)
            yield _nothing(path, name, kind, rate, path in ran, "dropout")


def _nothing(path: str, owner: str, kind: SiteKind, rate: float, ran: bool, name: str) -> Site:
    return Site(
        path=path,
        owner=owner,
        kind=kind,
        role=role(path, kind, (), (), (), False),
        rate=rate,
        place=None,
        operation="",
        fired_in_train=False,
        fired_in_eval=False,
        bypassed=False,
        ran=ran,
        holder=f"{path}.{name}" if path else name,
    )
