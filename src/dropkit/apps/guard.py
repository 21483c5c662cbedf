"""A guard for models that serve: it raises when a dropout acts in inference."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import nn

from dropkit.errors import DropkitWarning, DropoutInInferenceError, SettingError
from dropkit.inspection.events import Event, events
from dropkit.inspection.passes import copied, tensors
from dropkit.intercept import uncompiled, untouched, watching
from dropkit.intercept.leaving import is_deliberate
from dropkit.intercept.untouched import Generators

_INNOCENT = ("random", "noise")
"""Kinds of draws that drop nothing: sampling, choosing, noise as a variational model adds it."""

_SHOWN = 3
"""Places that a message names."""


def guard(model: nn.Module) -> Guard:
    """Let a model raise when a dropout acts while it predicts.

    It predicts when it is in evaluation mode, or when gradients are off. Whatever drops moves a
    generator of torch, and that is what the guard looks at: before and after each call, which takes
    microseconds and leaves fused kernels and compiled programs as they are. Only when one moved is
    the call repeated, watched, to find out what drew, and where: a dropout raises, and a model that
    samples for another reason goes on, at the price of the watched call.

    A guard is in force from the call on, until `remove`, or for as long as a block lasts. It is one
    pair of hooks on the model itself; `remove` leaves no trace of it. What `torch.compile` made is
    guarded after it was made. A bare `nn.TransformerEncoderLayer` leaves its fast path, as it does
    with any hook; as a part of a model it keeps it.

    Dropout that is meant passes: that of `dropkit.sample`, and of nothing else.

    Not seen: masks that come from a key of their own, or from NumPy or Python; and models that are
    captured as CUDA graphs.

    Args:
        model: any module that runs as Python, or what `torch.compile` made of one.

    Returns:
        The guard; in a `with` statement it removes itself.

    Raises:
        SettingError: what is given is no module.
        DropoutInInferenceError: later, in the calls of the model.

    >>> import torch, dropkit
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    >>> with dropkit.guard(model), torch.no_grad():
    ...     model(torch.ones(2, 4))  # nobody called model.eval()
    Traceback (most recent call last):
    ...
    dropkit.errors.DropoutInInferenceError: dropout acted in inference: 1 (Dropout), rate 0.5...
    >>> with dropkit.guard(model), torch.no_grad():
    ...     y = model.eval()(torch.ones(2, 4))
    """
    if not isinstance(model, nn.Module):
        raise SettingError(f"model: expected a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise SettingError(
            "model: expected a module of torch that runs as Python; got a scripted one. Guard the "
            "module that it was scripted from"
        )
    return Guard(model)


class Guard:
    """What `dropkit.guard` put in force."""

    def __init__(self, model: nn.Module) -> None:
        tripwire = _Tripwire()
        self._handles = [
            model.register_forward_pre_hook(tripwire.before, with_kwargs=True),
            model.register_forward_hook(tripwire.after, with_kwargs=True, always_call=True),
        ]

    def remove(self) -> None:
        """Take the guard away; to do it twice does nothing more."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


class _Tripwire:
    """Looks at the generators before and after a call. A copy of a guarded model has its own."""

    def __init__(self) -> None:
        self.entered: dict[int, list[Generators | None]] = {}
        """By thread: the calls that are under way, and how the generators were before each."""
        self.inspecting: set[int] = set()
        """Threads in which a call is being repeated."""

    def before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call begins."""
        if torch.compiler.is_compiling():
            return
        thread = threading.get_ident()
        watched = thread not in self.inspecting and _is_inference(model) and not is_deliberate()
        self.entered.setdefault(thread, []).append(Generators() if watched else None)

    def after(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """A call ended, or raised."""
        if torch.compiler.is_compiling():
            return
        thread = threading.get_ident()
        calls = self.entered.get(thread)
        was = calls.pop() if calls else None
        if not calls:
            self.entered.pop(thread, None)
        if was is None or result is None or not was.moved():
            return
        self.inspecting.add(thread)
        try:
            found = _dropped(model, args, kwargs, was)
        finally:
            self.inspecting.discard(thread)
        if found:
            raise DropoutInInferenceError(_message(found))


def _is_inference(model: nn.Module) -> bool:
    return not model.training or not torch.is_grad_enabled()


def _dropped(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], was: Generators
) -> list[Event]:
    """What dropped in a call, found by doing it once more with the same draws, watched."""
    inner = uncompiled(model)
    args, kwargs = copied((args, dict(kwargs)), None)  # a cache among them does not grow twice
    with untouched(model):
        was.restore()
        with warnings.catch_warnings(), watching(inner) as watch:
            warnings.simplefilter("ignore")
            for value in tensors((args, kwargs)):
                watch.given(value)
            try:
                inner(*args, **kwargs)
            except Exception as error:  # the inputs were written into, or it runs only once
                _warn(f"what was drawn could not be looked at: {type(error).__name__}: {error}")
    return [event for event in events(watch.trace) if event.fired and event.kind not in _INNOCENT]


def _warn(message: str) -> None:
    warnings.warn(f"dropkit.guard: {message}", DropkitWarning, stacklevel=5)


def _message(found: list[Event]) -> str:
    places = dict.fromkeys(_place(event) for event in found)
    shown = "; ".join(list(places)[:_SHOWN])
    rest = f"; and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    modes = any(event.where.training for event in found)
    advice = (
        "Call model.eval() before predictions"
        if modes
        else "The modules are in evaluation mode, which these do not follow: pass "
        "training=self.training. dropkit.audit says more"
    )
    return f"dropout acted in inference: {shown}{rest}. {advice}"


def _place(event: Event) -> str:
    where = event.where
    rate = "" if event.rate is None else f", rate {event.rate:.4g}"
    line = f", {where.place}" if where.place else ""
    return f"{where.path or 'the model itself'} ({where.owner}){rate}{line}"
