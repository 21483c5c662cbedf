"""From what was seen in one pass to what a site is made of: each time that something dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dropkit.inspection.flow import RECURRENT, weighs
from dropkit.intercept.facts import attends
from dropkit.intercept.trace import INPUT, Application, Call, Draw, Node, Trace, Where
from dropkit.records import SiteKind

_OF_CALLS: dict[str, SiteKind] = {
    "dropout": "dropout",
    "dropout1d": "feature_dropout",
    "dropout2d": "feature_dropout",
    "dropout3d": "feature_dropout",
    "feature_dropout": "feature_dropout",
    "alpha_dropout": "alpha_dropout",
    "feature_alpha_dropout": "alpha_dropout",
    "scaled_dot_product_attention": "attention",
    "lstm": "recurrent",
    "gru": "recurrent",
    "rnn_tanh": "recurrent",
    "rnn_relu": "recurrent",
}


@dataclass(slots=True, eq=False)
class Event:
    """One time that a site ran."""

    where: Where
    kind: SiteKind
    rate: float | None
    operation: str
    fired: bool
    x: Node | None
    """What came in."""
    result: Node | None
    """What went out."""
    shape: tuple[int, ...]
    shared: tuple[int, ...] = ()
    met: Application | None = None
    """Of a mask that the model drew itself."""
    asked: bool = True
    """False: a function that was told not to drop."""
    call: str = ""
    """The function of torch, where it is a call of one."""

    def is_in(self, trace: Trace) -> bool:
        """Whether it was seen in that pass, and not in another one."""
        node = self.result or self.x
        return node is not None and trace.nodes[node.number : node.number + 1] == [node]


def events(trace: Trace) -> list[Event]:
    """All that dropped, or was asked to, in the order in which it ran."""
    return sorted(_events(trace), key=lambda event: event.where.number)


def _events(trace: Trace) -> Iterator[Event]:
    yield from (_of_call(call) for call in trace.calls)
    explained: set[int] = set()
    for draw in trace.draws:
        if draw.call is None and draw.rate is not None:
            keys = (key for source in draw.node.inputs for key in source.draws)
            explained.update(map(id, (draw, *keys)))
            yield _of_operator(draw)
    for met in trace.applications:
        draws = [draw for draw in met.noise.draws if draw.call is None]
        if draws and not all(id(draw) in explained for draw in draws):
            explained.update(id(draw) for draw in draws)
            yield _of_application(met, draws[0])
    for choice in trace.choices:
        draws = [draw for draw in choice.draws if id(draw) not in explained]
        if draws:
            explained.update(id(draw) for draw in draws)
            yield _of_choice(choice, draws[0])
    for draw in trace.draws:
        if draw.call is None and id(draw) not in explained:
            yield Event(draw.where, "random", None, draw.name, True, None, draw.node, ())


def _of_call(call: Call) -> Event:
    kind = _OF_CALLS.get(call.name, "dropout")
    if kind == "dropout" and call.x is not None and _is_weight(call.x, call.result):
        kind = "weights"
    shared: tuple[int, ...] = ()
    if call.name.startswith("feature") or call.name[-2:] in ("1d", "2d", "3d"):
        shared = _spatial(call.name, len(call.shape))
    return Event(
        where=call.where,
        kind=kind,
        rate=call.rate,
        operation=call.name,
        fired=call.drew or (call.training and call.rate >= 1),
        x=call.x,
        result=call.result,
        shape=call.shape,
        shared=shared,
        asked=call.training,
        call=call.name,
    )


def _spatial(name: str, dims: int) -> tuple[int, ...]:
    """Axes that one draw is shared along: all after the channels."""
    unbatched = {"dropout1d": 2, "dropout2d": 3, "dropout3d": 4}.get(name) == dims
    return tuple(range(1 if unbatched and name != "dropout2d" else 2, dims))


def _is_weight(x: Node, result: Node | None) -> bool:
    """Whether what is dropped is a parameter, used as one, and not a vector that is looked up."""
    if not weighs(x) or len(x.shape) < 2 or result is None:
        return False
    return any(
        user.name in ("addmm", "mm", "convolution", "linear", "bmm", "mkldnn_rnn_layer")
        and any(source.origin & INPUT for source in user.inputs)
        for user in result.users
    )


def _of_operator(draw: Draw) -> Event:
    node = draw.node
    x = node.inputs[0] if node.inputs else None
    kind: SiteKind = "dropout"
    shared: tuple[int, ...] = ()
    if attends(draw.name):
        kind = "attention"
    elif draw.where.owner in RECURRENT or "rnn" in draw.name or draw.name in ("lstm", "gru"):
        kind = "recurrent"
    elif "feature" in draw.name:
        kind, shared = "feature_dropout", tuple(range(2, len(node.shape)))
    elif "alpha" in draw.name:
        kind = "alpha_dropout"
    strides = node.lists.get("strides", ())
    if strides:
        shared = tuple(axis for axis, stride in enumerate(strides) if stride == 0)
        kind = _by_axes(node.shape, shared)
    return Event(draw.where, kind, draw.rate, draw.name, True, x, node, node.shape, shared)


def _by_axes(shape: tuple[int, ...], shared: tuple[int, ...]) -> SiteKind:
    """What is dropped where one draw is shared along some axes."""
    wide = [axis for axis in range(len(shape)) if shape[axis] > 1]
    if not any(axis in shared for axis in wide):
        return "dropout"
    if all(axis in shared for axis in range(1, len(shape))):
        return "path"
    return "feature_dropout" if 1 not in shared else "dropout"


def _of_application(met: Application, draw: Draw) -> Event:
    chance = met.noise.chance
    binary = chance is not None and chance.kind == "binary"
    rate = None
    chooses = met.node.name == "where" and not met.masks
    if chance is not None and chance.nonzero is not None and not chooses:
        rate = 1 - chance.nonzero if met.keeps else chance.nonzero
    shared = _shared(met.shape, met.noise_shape)
    kind: SiteKind = "noise"
    if draw.where.owner in RECURRENT and draw.name == "bernoulli_":
        kind = "recurrent"
    elif met.masks and binary:
        kind = "weights" if weighs(met.value) else _by_axes(met.shape, shared)
        kind = "mask" if kind == "dropout" else kind
    return Event(
        draw.where, kind, rate, draw.name, True, met.value, met.node, met.shape, shared, met
    )


def _shared(shape: tuple[int, ...], noise: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of a value along which its mask is the same, by the rules of broadcasting."""
    lacking = len(shape) - len(noise)
    return tuple(
        axis
        for axis, size in enumerate(shape)
        if size > 1 and (axis < lacking or noise[axis - lacking] == 1)
    )


def _of_choice(choice: Node, draw: Draw) -> Event:
    known = next((node for node in choice.inputs if node.is_noise), choice)
    if known.chance is None or known.chance.kind == "other":  # a number that is used, as in a crop
        return Event(draw.where, "random", None, draw.name, True, None, draw.node, ())
    return Event(draw.where, "path", known.chance.nonzero, draw.name, True, None, None, ())
