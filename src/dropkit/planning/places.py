"""Where dropout can be put into a model that has none: before which layers, and why not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropkit.inspection.evidence import Evidence
from dropkit.inspection.flow import before, moves, neighbours, step, weighs
from dropkit.inspection.passes import copied
from dropkit.inspection.roles import role
from dropkit.inspection.runs import Way
from dropkit.inspection.shifts import learns
from dropkit.intercept import untouched
from dropkit.intercept.trace import INPUT, Node, Trace
from dropkit.records import Role, Site, SiteKind

How = Literal["elements", "channels", "locked"]

_LINEAR = (nn.Linear,)
_CONVOLUTIONS: dict[type[nn.Module], int] = {
    **{nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3},
    **{nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3},
}
_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
_PASSED = ("norm", "batch_norm", "pool", "multiply", "add", "other")
"""What may lie between an activation and the layer that it feeds."""
_CARRIERS: tuple[Any, ...] = (
    *("linear", "convolution", "activation", "pool", "add", "multiply", "residual_add"),
)
"""Through which dropout widens what comes into a batch norm; as the rule on that has it."""
_FAR = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A layer before which dropout can be put."""

    path: str
    """Of the layer."""
    role: Role
    """What dropout there is for."""
    site: Site
    """What would stand there, with what lies around it."""
    how: How
    axes: int
    """Of channels: how many spatial axes there are."""
    batch_first: bool = True
    """Of locked masks: whether the sequences lie so."""
    usual: bool = True
    """Whether it follows an activation, or stands at the input of a recurrent layer."""
    refused: str = ""
    """Why dropout may not stand there; empty: it may."""


def places(evidence: Evidence, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Place]:
    """The layers of a model that are fed by something, in the order in which they run."""
    trace = evidence.passes.train[0]
    recurs = any(isinstance(module, _RECURRENT) for module in evidence.model.modules())
    shapes = _shapes(evidence.model, *fitting(evidence.model, args, kwargs)) if recurs else {}
    fed: dict[str, list[_Fed]] = defaultdict(list)
    for node in trace.nodes:
        for one in _fed(evidence, trace, node):
            fed[one.path].append(one)
    return [_place(evidence, trace, calls, shapes.get(path)) for path, calls in fed.items()]


def fitting(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with: without values, where it has none itself."""
    if not any(parameter.is_meta for parameter in model.parameters()):
        return args, dict(kwargs)
    moved: tuple[tuple[Any, ...], dict[str, Any]] = copied(
        (args, dict(kwargs)), torch.device("meta")
    )
    return moved


@dataclass(slots=True)
class _Fed:
    """A call of a layer, with what comes in."""

    path: str
    module: nn.Module
    node: Node
    x: Node
    sources: dict[str, Node] = field(default_factory=dict)
    """What it came from, nearest first, by what it is."""


def _fed(evidence: Evidence, trace: Trace, node: Node) -> Iterator[_Fed]:
    """The layer that an operation is the first of, if it is one."""
    if step(node) not in ("linear", "convolution", "recurrence"):
        return
    module = evidence.module(node.path)
    if module is None or not isinstance(module, (*_LINEAR, *_CONVOLUTIONS, *_RECURRENT)):
        return
    given = (_origin(x, node.path) for x in node.inputs if x.origin & INPUT)
    outside = [x for x in given if x.path != node.path]
    if len(outside) == 1 or (outside and isinstance(module, _RECURRENT)):
        found = _Fed(node.path, module, node, outside[0])
        found.sources = _sources(trace, found.x)
        yield found


def _sources(trace: Trace, x: Node) -> dict[str, Node]:
    """What a value came from: activations, layers, the input; and dropouts on the way."""
    dropped = {id(call.x) for call in trace.calls if call.x is not None}
    found: dict[str, Node] = {}
    queue, seen = [(x, 0)], set[int]()
    while queue:
        node, passed = queue.pop(0)
        if node.number in seen or (not node.origin & INPUT and node.name != "embedding"):
            continue
        seen.add(node.number)
        here = "dropout" if id(node) in dropped else step(node)
        if not moves(node) and (here not in _PASSED or passed > _FAR):
            found.setdefault(here, node)
            continue
        queue += [
            (source, passed + (not moves(node))) for source in node.inputs if not weighs(source)
        ]
    return found


def _place(
    evidence: Evidence, trace: Trace, calls: Sequence[_Fed], shape: tuple[int, ...] | None
) -> Place:
    """One place for all calls of a layer."""
    first = calls[0]
    axes = next((n for kind, n in _CONVOLUTIONS.items() if isinstance(first.module, kind)), 0)
    how: How = "channels" if axes else "elements"
    batch_first = True
    sequence: nn.Module | None = first.module if isinstance(first.module, _RECURRENT) else None
    recurrent = first.sources.get("recurrence")
    if sequence is None and recurrent is not None and shape is not None and len(shape) == 3:
        sequence = evidence.module(recurrent.path)
    if sequence is not None:
        how, batch_first = "locked", bool(getattr(sequence, "batch_first", False))
    site = _site(trace, first, how, shape or _shape(first))
    return Place(
        path=first.path,
        role="conv" if axes and site.role != "input" else site.role,
        site=site,
        how=how,
        axes=axes,
        batch_first=batch_first,
        usual=all(map(_is_usual, calls)),
        refused=next(filter(None, (_objection(trace, call) for call in calls)), "")
        or _in_steps(calls),
    )


def _shape(call: _Fed) -> tuple[int, ...]:
    """Of what comes in: of what was flattened on the way, rows of features."""
    shape = call.x.shape
    if isinstance(call.module, nn.Linear) and shape[-1:] != (call.module.in_features,):
        return *shape[:1], call.module.in_features
    return shape


def _is_usual(call: _Fed) -> bool:
    """Whether it comes after an activation, or into or out of a recurrence."""
    if "dropout" in call.sources:
        return False
    if isinstance(call.module, _RECURRENT):
        return bool(call.sources) and set(call.sources) != {"input"}
    return "activation" in call.sources or "recurrence" in call.sources


def _objection(trace: Trace, call: _Fed) -> str:
    """Why dropout may not stand before a layer."""
    if "dropout" in call.sources:
        return "a dropout stands there already"
    norm = next(
        (
            way.node
            for way in Way(call.node, step(call.node)).onward(*_CARRIERS)
            if way.step == "batch_norm" and learns(trace, way.node)
        ),
        None,
    )
    if norm is not None:
        return (
            f"the batch norm {norm.path} comes after it, and would learn a variance that is only "
            "that of training"
        )
    value = _origin(call.x)
    inside = (call.path, value.path) if step(value) == "recurrence" else (call.path,)
    others = [node for node in _users(value) if node.path not in inside]
    trunk = [node for node in others if _is_map(call) or step(node) != "linear"]
    if trunk and not isinstance(call.module, _RECURRENT):
        return f"what it drops goes to {trunk[0].path or trunk[0].name} as well, undropped"
    return ""


def _is_map(call: _Fed) -> bool:
    """Whether a layer is a convolution, whose maps other parts may need whole."""
    return isinstance(call.module, tuple(_CONVOLUTIONS))


def _in_steps(calls: Sequence[_Fed]) -> str:
    """Why a layer may not drop that runs in a loop over time: each step would have another mask."""
    earlier: set[int] = set()
    for call in calls:
        if earlier and any(id(node) in earlier for node in before(call.x)):
            return "it runs in steps, of which each would have another mask"
        earlier.add(id(call.node))
    return ""


def _origin(x: Node, within: str | None = None) -> Node:
    """The value itself, of one that was only moved; within a module, or anywhere."""
    while moves(x) and len(x.inputs) == 1 and within in (None, x.path):
        x = x.inputs[0]
    return x


def _users(x: Node) -> list[Node]:
    """What uses a value, or what is the same with its elements moved."""
    found, queue = [], list(x.users)
    while queue:
        node = queue.pop()
        if moves(node) and len([source for source in node.inputs if source.origin & INPUT]) == 1:
            queue += node.users
        else:
            found.append(node)
    return found


def _site(trace: Trace, call: _Fed, how: How, shape: tuple[int, ...]) -> Site:
    """What would stand there, as a map has it: never run, at no rate."""
    kind: SiteKind = "feature_dropout" if how == "channels" else "dropout"
    outputs = frozenset(node.number for node in trace.outputs)
    fed_by = neighbours([call.x], lambda node: node.inputs, frozenset())
    feeds = neighbours([call.node], lambda node: node.users, outputs)
    found = role(call.path, kind, shape, fed_by, feeds, in_step=False)
    return Site(
        path=call.path, owner=type(call.module).__name__, kind=kind, role=found, rate=None,
        place=None, operation="", fired_in_train=False, fired_in_eval=False, bypassed=False,
        ran=False, shape=shape, fed_by=fed_by, feeds=feeds,
    )  # fmt: skip


def _shapes(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Of what comes into each layer first; of packed sequences none."""
    found: dict[str, tuple[int, ...]] = {}
    paths = {id(module): path for path, module in model.named_modules()}

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = given[0] if given else named.get("input")
        if isinstance(x, Tensor) and not isinstance(x, PackedSequence):
            found.setdefault(paths[id(module)], tuple(x.shape))

    with untouched(model), torch.no_grad():
        handles = [
            module.register_forward_pre_hook(note, with_kwargs=True)
            for module in model.modules()
            if isinstance(module, (*_LINEAR, *_CONVOLUTIONS, *_RECURRENT))
        ]
        try:
            model.train()
            model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
    return found
