"""Sees every dropout of a model as it runs, whoever calls it, and asks a handler what to do.

While a hooked module runs in training mode, a `TorchFunctionMode` is in force in its thread. It
sees the functions of torch that drop; modules call them as well. Nothing of torch is replaced, and
of the model nothing changes but its forward hooks, the extension that torch has for this.

Each module has hooks, not the root alone: gradient checkpointing runs modules again in backward,
when the root's forward is long over. A dropout that such a recomputation would not bring before the
handler again is not brought before it the first time: masks have to be the same both times.

A compiler makes one program of both times; what it checkpoints is left to torch, as is what it
leaves uncompiled of a checkpoint.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from threading import local
from types import FrameType, FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.nn import functional
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from dropkit.intercept.operations import SIGNATURES, Handler, Operation, operation
from dropkit.intercept.within import CALLS, module_of


def _precedes(handler: Handler) -> bool:
    """Whether a handler is asked before others that come later, as one that only changes a rate."""
    return bool(getattr(handler, "precedes", False))


class _Mode(TorchFunctionMode):
    """Brings the dropouts among torch's functions before a handler."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.handler = handler
        self.precedes = _precedes(handler)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, or ask the handler to."""
        kwargs = kwargs or {}
        if func not in _SEEN or any(kind is not Tensor for kind in types):
            return func(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            with self:
                return OPENED(*args, **kwargs)
        found = operation(func, args, kwargs)
        if found is None or not self.is_seen_again():
            return func(*args, **kwargs)
        return self.handler(found)

    def is_seen_again(self) -> bool:
        """Whether this call is seen again, should gradient checkpointing run it again."""
        return True


def _opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch whose body can be seen into: it is not stopped at its first line.

    Without `__name__` among its globals a compiler takes the dictionary as it is.
    """
    world = {**function.__globals__, "has_torch_function": lambda _: False}
    del world["__name__"]
    opened = FunctionType(function.__code__, world, function.__name__, function.__defaults__)
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


OPENED = _opened(functional.multi_head_attention_forward)
_SEEN = frozenset(SIGNATURES) | {functional.multi_head_attention_forward}


class _Entered(NamedTuple):
    """A module that runs: the frame of its call, and whether the mode is in force within."""

    call: FrameType
    active: bool


class _Thread(local):
    def __init__(self) -> None:
        self.entered: list[_Entered] = []


class _Eager(_Mode):
    """In force between the hooks before and after a module; one for each handler.

    It lies below the modes of others. So these come and go as they like, and one that is left
    behind, as torch leaves a module without the hooks after it when Ctrl-C stops it, does no harm.
    """

    def __init__(self, handler: Handler) -> None:
        known = ref(handler)
        super().__init__(lambda call: known()(call))  # type: ignore[misc]
        self.precedes = _precedes(handler)
        self._thread = _Thread()

    def before(self, module: nn.Module, hook: FrameType) -> None:
        """A module begins: in force if it is in training, and out of force if it is not."""
        entered, call = self._thread.entered, _outer(_outer(hook))
        if not entered or not any(frame is entered[-1].call for frame in _frames(call)):
            self._forget()
        active = bool(entered) and entered[-1].active
        entered.append(_Entered(call, self._turn(active, module.training)))

    def after(self, hook: FrameType) -> bool:
        """A module ended, or raised. False if it is another that has begun last."""
        entered, caller = self._thread.entered, _outer(hook)
        if not entered or entered[-1].call not in (caller, _outer(caller)):
            return False
        active = entered.pop().active
        self._turn(active, bool(entered) and entered[-1].active)
        return True

    def _turn(self, active: bool, wanted: bool) -> bool:
        """Put the mode in force, or out of it; say whether it is."""
        if wanted and not active:
            stack = _stack()
            ours = [
                at
                for at, mode in enumerate(stack)
                if isinstance(mode, _Mode) and mode.precedes <= self.precedes
            ]
            stack.insert(1 + max(ours, default=-1), self)
            _put_in_force(stack)
        elif active and not wanted:
            _put_in_force([mode for mode in _stack() if mode is not self])
        return wanted

    def is_seen_again(self) -> bool:
        entered = self._thread.entered
        for frame in _frames(sys._getframe(2)):
            if entered and frame is entered[-1].call:
                return True
            if _is_checkpoint(frame):
                return False
        return False  # left behind

    def _forget(self) -> None:
        """Begin anew: nothing runs, and a mode in force was left behind."""
        self._thread.entered.clear()
        self._turn(self in _stack(), False)


def _is_checkpoint(frame: FrameType) -> bool:
    """Whether it is gradient checkpointing, of torch or of those who do as torch does."""
    return frame.f_code.co_qualname in ("checkpoint", "Function.apply")


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _outer(frame: FrameType) -> FrameType:
    return frame.f_back or frame


def _stack() -> list[TorchFunctionMode]:
    """The modes in force, the innermost last."""
    return _get_current_function_mode_stack()  # type: ignore[no-untyped-call, no-any-return]


def _put_in_force(modes: Sequence[TorchFunctionMode]) -> None:
    """These and no others, the innermost last."""
    for _ in _stack():
        _pop_mode()  # type: ignore[no-untyped-call]
    for mode in modes:
        _push_mode(mode)  # type: ignore[no-untyped-call]


def _innermost() -> object:
    stack = _stack()
    return stack[-1] if stack else None


class _Traced(_Mode):
    """In force while a compiler or an export looks at a module; there are no frames to go by.

    Where a compiler breaks off within the module, it stays in force in what is run of the rest.
    """

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler)
        self.trace = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, or ask the handler to."""
        if func is Tensor.unflatten:  # of which torch's compiler cannot see the end, under a mode
            func = torch.unflatten
        return super().__torch_function__(func, types, args, kwargs)

    def before(self, module: nn.Module) -> None:
        """A module begins."""
        mode = _innermost()
        nested = isinstance(mode, _Traced) and mode.handler == self.handler and mode.holds()
        if module.training and not nested and not _in_traced_checkpoint():
            self.trace = _trace()
            self.__enter__()  # type: ignore[no-untyped-call]

    def after(self) -> None:
        """A module ended."""
        if _innermost() is self:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def holds(self) -> bool:
        """Whether a program is compiled to whose beginning the mode belongs."""
        return bool(self.trace == _trace() or _begins_with_module(self.handler))

    def is_seen_again(self) -> bool:
        if torch.compiler.is_compiling() and self.holds():
            return True
        return _is_within_module(self.handler)


def _constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """What torch.compiler.assume_constant_result makes of it, and does not load the compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def _trace() -> int:
    """The number of what a compiler makes a graph of at present."""
    context = torch._guards.TracingContext.try_get()
    return _traces.setdefault(context, next(_numbers)) if context else 0


@_constant
def _begins_with_module(handler: Handler) -> bool:
    """Whether what is compiled is the forward of a module, which was called with its hooks."""
    for frame in _frames(sys._getframe()):
        room = frame.f_globals.get("__name__", "")
        if room != __name__ and not room.startswith("torch._"):
            return _is_call(frame, handler)
    return False


@_constant
def _in_traced_checkpoint() -> bool:
    """Whether torch's compiler is within a checkpoint, where no mode can be put in force."""
    names = (frame.f_code.co_qualname for frame in _frames(sys._getframe()))
    return any(name.startswith("CheckpointHigherOrderVariable.") for name in names)


@_disable_dynamo
def _is_within_module(handler: Handler) -> bool:
    """Whether a module was called with its hooks, and no checkpoint within it."""
    for frame in _frames(sys._getframe()):
        if _is_call(frame, handler):
            return True
        if _is_checkpoint(frame):
            return False
    return False  # left behind


_traces: WeakKeyDictionary[object, int] = WeakKeyDictionary()
_numbers = count(1)


_eagers: WeakKeyDictionary[Handler, _Eager] = WeakKeyDictionary()
"""By handler; hooks keep those, and what hangs on them, for as long as they are needed."""


def _eager(handler: Handler) -> _Eager:
    found = _eagers.get(handler)
    return found or _eagers.setdefault(handler, _Eager(handler))


class _Hook:
    """What stands in a module. It knows the handler, and not the module; so a copy has its own."""

    def __init__(self, mode: _Traced) -> None:
        self.mode = mode

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.mode.handler == self.mode.handler

    def __hash__(self) -> int:
        return hash((type(self), self.mode.handler))


class _Before(_Hook):
    def __call__(self, module: nn.Module, args: object) -> None:
        if torch.compiler.is_compiling():
            self.mode.before(module)
        else:
            _eager(self.mode.handler).before(module, sys._getframe(0))


class _After(_Hook):
    def __call__(self, module: nn.Module, args: object, result: object) -> None:
        if torch.compiler.is_compiling():
            self.mode.after()
        elif not _eager(self.mode.handler).after(sys._getframe(0)):
            self.mode.after()  # compiled up to somewhere within the module


def _is_call(frame: FrameType, handler: Handler) -> bool:
    """Whether a module is called here: one in training, with a hook for the handler."""
    if frame.f_code.co_qualname not in CALLS:
        return False
    module = frame.f_locals["self"]
    return module.training and _Before(_Traced(handler)) in module._forward_pre_hooks.values()


def attach(model: nn.Module, handler: Handler, *, parts: bool = True) -> None:
    """From now on `handler` is asked about the dropouts of a model in training.

    Of several the last is asked first, but for those that precede all others; what it lets run
    comes before the others. To attach one twice does nothing more. Without `parts` only the model
    itself is followed: gradient checkpoints within it, and parts in training of a model that is
    not, are not seen.
    """
    for module in _hooked(model) if parts else (model,):
        mode = _Traced(handler)
        before: OrderedDict[int, Any] = module._forward_pre_hooks  # type: ignore[assignment]
        after: OrderedDict[int, Any] = module._forward_hooks  # type: ignore[assignment]
        others = [number for number, hook in before.items() if isinstance(hook, _Before)]
        if any(before[number] == _Before(mode) for number in others):
            continue
        new = module.register_forward_pre_hook(_Before(mode)).id
        module.register_forward_hook(_After(mode), always_call=True, prepend=True)
        # The last to come is the innermost: it is asked first, and ends first.
        begins = sorted([*others, new], key=lambda number: before[number].mode.precedes)
        ends = [number for number, hook in after.items() if isinstance(hook, _After)]
        ends.sort(key=lambda number: not after[number].mode.precedes)
        for hooks, order in ((before, begins), (after, ends)):
            for number in reversed(order):
                hooks.move_to_end(number, last=False)


def turned(call: Operation) -> Operation:
    """A call at the rate that a handler of its module gives it, whether or not it is in force."""
    here = sys._getframe(1)
    module = module_of(here)
    hooks = () if module is None else reversed(module._forward_pre_hooks.values())
    for hook in hooks:  # the last to come is asked first
        rate_of = getattr(hook.mode.handler, "rate", None) if isinstance(hook, _Before) else None
        rate = None if rate_of is None else rate_of(call, here)
        if rate is not None:
            name = "dropout_p" if call.is_attention else "p"
            return Operation(call.function, call.name, call.arguments | {name: rate})
    return call


def detach(model: nn.Module, handler: Handler) -> None:
    """Take back what `attach` did, in a copy of the model too."""
    hook: object
    mode = _Traced(handler)
    for module in model.modules():
        for number, hook in list(module._forward_pre_hooks.items()):
            if hook == _Before(mode):
                del module._forward_pre_hooks[number]
        for number, hook in list(module._forward_hooks.items()):
            if hook == _After(mode):
                del module._forward_hooks[number]
                module._forward_hooks_always_called.pop(number, None)
    _eager(handler)._forget()  # where Ctrl-C, or this call, came in the middle of a pass


def _hooked(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that may drop, or be run again by gradient checkpointing.

    Not the inside of torch's encoder layer: a hook there shuts the fast path that it has for eval.
    Nor scripted parts: they take no hooks, and nobody sees into them.
    """
    inside = {
        part
        for layer in model.modules()
        if isinstance(layer, nn.TransformerEncoderLayer)
        for part in layer.modules()
    }
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        if module is model or not (module in inside or _is_calm(module)):
            yield module


def _is_calm(module: nn.Module) -> bool:
    """Whether it is one of torch's own that never drop, and only pass on to their parts."""
    room, _, name = type(module).__module__.rpartition(".")
    drops = name in ("dropout", "transformer") or isinstance(module, nn.MultiheadAttention)
    return room == "torch.nn.modules" and not drops
