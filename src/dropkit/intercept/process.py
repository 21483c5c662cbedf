"""What a process has in force: modes of torch, the compiler's stance, hooks on all modules.

Contexts put it back as they end. Ctrl-C in the middle of an end leaves it as it is; so who looks at
a model for a while sets it back in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _python_dispatch as dispatch

from dropkit.intercept.within import Within

_lock = RLock()
_eager: list[int] = []
"""Threads in which nothing is to be compiled, once for each time that this was asked for."""
_stance: list[Any] = []
"""What the compiler, of which the process has one, went by before the first of them asked."""


@contextmanager
def eager() -> Iterator[None]:
    """Within, what was compiled runs as it was written."""
    with _lock:
        if not _eager:
            _stance[:] = [torch.compiler.set_stance("force_eager")]
        _eager.append(get_ident())
    try:
        yield
    finally:
        _compiled_again()


def _compiled_again() -> None:
    with _lock:
        if get_ident() in _eager:
            _eager.remove(get_ident())
        if not _eager and _stance:
            _stance.pop().__exit__(None, None, None)


class InForce:
    """What is in force in this thread."""

    def __init__(self) -> None:
        self.gradients = torch.is_grad_enabled()
        self.functions = _functions()
        self.dispatched = _dispatched()
        self.eager = _eager.count(get_ident())
        self.hooks = set(_ours())

    def restore(self) -> None:
        """It is in force again, and nothing else of ours is."""
        if torch.is_grad_enabled() != self.gradients:
            torch._C._set_grad_enabled(self.gradients)
        if _functions() != self.functions:
            while _functions():
                _pop_mode()  # type: ignore[no-untyped-call]
            for mode in self.functions:
                _push_mode(mode)  # type: ignore[no-untyped-call]
        if _dispatched() != self.dispatched:
            while _dispatched():
                dispatch._pop_mode()
            for mode in self.dispatched:
                dispatch._push_mode(mode)
        while _eager.count(get_ident()) > self.eager:
            _compiled_again()
        for number in _ours():
            if number not in self.hooks:
                hooks._global_forward_pre_hooks.pop(number, None)
                hooks._global_forward_hooks.pop(number, None)
                hooks._global_forward_hooks_always_called.pop(number, None)


def _functions() -> list[Any]:
    return list(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]


def _dispatched() -> list[Any]:
    return list(dispatch._get_current_dispatch_mode_stack())


def _ours() -> list[int]:
    """Hooks of those who follow a model in this thread, by number."""
    held: Any = (hooks._global_forward_pre_hooks, hooks._global_forward_hooks)
    return [
        number
        for one in held
        for number, hook in list(one.items())
        if isinstance(of := getattr(hook, "__self__", None), Within) and of.thread == get_ident()
    ]
