"""Looks on while a model runs: at each operation that torch dispatches, and at who asked for it.

Two modes of torch see it. Below, every operator as it is dispatched, whoever calls it and in
whatever language: what is tagged as drawing from a generator draws. Above, where it is wanted, the
functions of torch that drop, with the rate that they were given and whether they were switched on.

A tensor is known by its storage. So views are what they are views of, and what is written in place
is seen; a storage that is used again was first given a new value, which was seen as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dropkit.intercept.attaching import OPENED, turned
from dropkit.intercept.facts import BATCH_NORMS, FUSED, LIKE, Facts, facts
from dropkit.intercept.noise import (
    application,
    drawn,
    filling,
    is_application,
    noticed,
    origin,
    probability,
)
from dropkit.intercept.operations import operation
from dropkit.intercept.process import Ends, eager
from dropkit.intercept.trace import (
    INPUT,
    PARAMETER,
    Application,
    Call,
    Draw,
    Node,
    Normed,
    Trace,
    Where,
    shape_of,
)
from dropkit.intercept.within import Within, hooked

_SCALARS = (int, float)
_Key = tuple[int, int]
_CUTS = ("select", "slice", "unbind", "split", "chunk")


@contextmanager
def watching(model: nn.Module, *, calls: bool = True, still: bool = False) -> Iterator[Watch]:
    """Look on at what a model does within the block, in this thread.

    Args:
        model: what runs; modules that are not its own are seen as well, and noted.
        calls: whether the functions that drop are seen, too. With it torch takes no fused path.
        still: whether those functions, and dropkit's own, are to drop nothing.
    """
    watch = Watch(model)
    with ExitStack() as stack:
        stack.enter_context(hooked(watch.within))
        stack.enter_context(eager())
        if calls:
            stack.enter_context(_Calls(watch, still))
        stack.enter_context(_Operators(watch, still))
        try:
            yield watch
        finally:
            watch.trace.threads = watch.within.elsewhere


class Watch:
    """What is seen, as it is seen."""

    def __init__(self, model: nn.Module) -> None:
        self.trace = Trace()
        self.within = Within(model, self._met, self.trace.ran.add)
        self.within.entry = sys._getframe(3)
        self.calls: list[Call] = []
        self.values: dict[_Key, Node] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            origin = PARAMETER if isinstance(tensor, nn.Parameter) else 0
            self._know(tensor, "parameter" if origin else "constant", origin)

    def given(self, tensor: Tensor) -> None:
        """A tensor is what the model is given."""
        self._know(tensor, "input", INPUT)

    def gave(self, tensor: Tensor) -> None:
        """A tensor is what the model gave."""
        node = self.node(tensor)
        if node is not None:
            self.trace.outputs.append(node)

    # ---- modules

    def _met(self, module: nn.Module) -> None:
        """A module ran that is none of the model's."""
        self.trace.built.append(self.where())
        self.trace.strangers.append(module)

    def where(self) -> Where:
        """Where the model is."""
        return self.within.where(len(self.trace.nodes))

    # ---- values

    def _know(self, tensor: Tensor, name: str, origin: int) -> None:
        path, module = self.within.innermost
        shape = shape_of(tensor)
        node = Node(len(self.trace.nodes), name, (), origin, shape, path, type(module).__name__)
        self.trace.nodes.append(node)
        self.values[_storage(tensor)] = node

    def node(self, tensor: Tensor) -> Node | None:
        """What gave a tensor its value, if that was seen."""
        return self.values.get(_storage(tensor))

    # ---- operators

    def saw(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """An operator ran."""
        known = facts(operator)
        given = list(_tensors((args, kwargs)))
        storages = {_storage(tensor) for tensor in given}
        results = list(_tensors(out))
        if not known.mutates and results and all(_storage(x) in storages for x in results):
            _cut(known, args, given, self.node(given[0]))
            return  # views
        if known.name in FUSED:
            self.trace.fused.append(self.where())
        inputs = () if known.name in LIKE else self._inputs(given)
        dropped = known.dropped(args, kwargs)
        draws = known.draws(args, kwargs)
        if draws and known.mutates:
            inputs = ()  # what was there is written over
        path, module = self.within.innermost
        node = Node(
            number=len(self.trace.nodes),
            name=known.name,
            inputs=inputs,
            origin=origin(inputs),
            shape=shape_of(results[0]) if results else (),
            path=path,
            owner=type(module).__name__,
            scalars=_numbers(known, args, kwargs),
        )
        if known.name == "dropout" and "strides" in known.names:
            node.lists["strides"] = tuple(known.argument("strides", args, kwargs) or ())
        self.trace.nodes.append(node)
        if known.name in BATCH_NORMS:
            self.trace.normed[node.number] = _normed(path, known, args, kwargs)
        for source in inputs:
            source.users.append(node)
        if dropped is not None or draws:
            self._drew(known.name, node, dropped)
        elif any(source.is_noise for source in inputs):
            noticed(node)
        if not draws and is_application(node):
            self.trace.applications.extend(self._applied(node, given))
        for tensor in results:
            self.values[_storage(tensor)] = node
        if node.name in ("_local_scalar_dense", "is_nonzero") and node.is_noise:
            self.trace.choices.append(node)

    def _inputs(self, given: Sequence[Tensor]) -> tuple[Node, ...]:
        found: dict[int, Node] = {}
        for tensor in given:
            node = self.node(tensor)
            if node is not None:
                found.setdefault(node.number, node)
        return tuple(found.values())

    def _drew(self, name: str, node: Node, rate: float | None) -> None:
        call = self.calls[-1] if self.calls else None
        draw = Draw(name, self.where() if call is None else call.where, rate, node, call)
        self.trace.draws.append(draw)
        if call is not None:
            call.drew = True
        if rate is None:
            drawn(node, draw)

    def _applied(self, node: Node, given: Sequence[Tensor]) -> Iterator[Application]:
        pairs = [(found, tensor) for tensor in given if (found := self.node(tensor)) is not None]
        met = application(node, pairs, count=not self.calls)
        if met is not None:
            known = {id(tensor) for _, tensor in pairs}
            met.fill = filling([tensor for tensor in given if id(tensor) not in known])
            yield met


class _Operators(Ends, TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator as it is dispatched."""

    def __init__(self, watch: Watch, still: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch, self.still = watch, still

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and look at it."""
        kwargs = kwargs or {}
        if self.still and facts(func).name == "dropout" and facts(func).dropped(args, kwargs):
            return args[0].clone()
        result = func(*args, **kwargs)
        if self.watch.within.here:
            self.watch.saw(func, args, kwargs, result)
        return result


class _Calls(Ends, TorchFunctionMode):
    """Sees the functions of torch that drop, with what they were given."""

    def __init__(self, watch: Watch, still: bool) -> None:
        super().__init__()
        self.watch, self.still = watch, still

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, and look at it."""
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            with self:
                return OPENED(*args, **kwargs)
        found = operation(func, args, kwargs)
        watch = self.watch
        if found is None or watch.calls or not watch.within.here:
            return func(*args, **kwargs)
        name = "dropout_p" if found.is_attention else "p"
        if self.still:
            return found.run(**{name: 0.0})
        call = Call(
            name=found.name.removesuffix("_"),
            where=watch.where(),
            rate=float(turned(found).arguments[name]),
            training=found.is_attention or bool(found.arguments["training"]),
            x=watch.node(found.x),
            shape=shape_of(found.x),
        )
        watch.trace.calls.append(call)
        watch.calls.append(call)
        try:
            result = func(*args, **kwargs)
        finally:
            watch.calls.pop()
        call.result = watch.node(result) if isinstance(result, Tensor) else None
        return result


def _numbers(known: Facts, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[float, ...]:
    """The numbers among the arguments; of a draw of zeros and ones their chance."""
    if known.name in ("bernoulli", "bernoulli_"):
        chance = probability(known.name, args, kwargs)
        return () if chance is None else (chance,)
    return tuple(float(x) for x in args if type(x) in _SCALARS)


def _cut(known: Facts, args: tuple[Any, ...], given: Sequence[Tensor], node: Node | None) -> None:
    """Note what is taken of a value one part at a time: x[:, t], unbind, split."""
    if node is None or known.name not in _CUTS or given[0].is_nested:
        return
    x, numbers = given[0], [value for value in args[1:] if isinstance(value, int)]
    axis = numbers[0] if known.name in ("select", "slice", "unbind") and numbers else 0
    if known.name in ("split", "chunk"):
        axis = numbers[1] if len(numbers) > 1 else 0
    size = x.shape[axis] if x.dim() else 0
    single = known.name != "slice" or (len(numbers) > 2 and numbers[2] - numbers[1] == 1)
    single = single and (known.name != "split" or numbers[:1] == [1])
    if single:
        count = 1 if known.name in ("select", "slice") else size
        node.cuts[size] = node.cuts.get(size, 0) + count


def _normed(path: str, known: Facts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Normed:
    """What comes into a batch norm, by channel."""
    x: Tensor = args[0]
    switch = next((name for name in ("training", "train") if name in known.names), "")
    tracked = "running_mean" in known.names and isinstance(
        known.argument("running_mean", args, kwargs), Tensor
    )
    learns = tracked and "no_" not in known.name
    if switch:
        learns = tracked and bool(known.argument(switch, args, kwargs))
    if x.is_meta or x.dim() < 2 or type(x) not in (Tensor, nn.Parameter):
        return Normed(path, 0, (), learns)
    with torch.no_grad():
        rows = x.detach().float().transpose(0, 1).flatten(1)
        return Normed(path, rows.shape[1], tuple(rows.var(1, unbiased=False).tolist()), learns)


def uncompiled(model: nn.Module) -> nn.Module:
    """What `torch.compile` wraps; any other model itself."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def _storage(tensor: Tensor) -> _Key:
    """Of what a tensor is a view; the size tells it from what was freed, and nobody saw made."""
    try:
        storage = tensor.untyped_storage()
        return storage._cdata, storage.nbytes()
    except (NotImplementedError, RuntimeError):  # sparse, opaque, or of a subclass
        return id(tensor), 0


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
