"""What a process has in force: modes of torch, the compiler's stance, hooks on all modules.

Contexts put it back as they end. Ctrl-C in the middle of an end leaves it as it is; so who looks at
a model for a while sets it back in any case.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import RLock, get_ident
from typing import Any, TypeVar

import torch
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _python_dispatch as dispatch

from dropkit.intercept.within import Within

T = TypeVar("T")

_FLAGS = [name for name in vars(dispatch) if name.startswith("_is_in_")]
"""What torch notes of its modes, beside their stack."""
_lock = RLock()
_eager: list[tuple[int, object]] = []
"""Threads in which nothing is to be compiled, and who asked for it."""
_stance: list[Any] = []
"""What the compiler, of which the process has one, went by before the first of them asked."""


class Due:
    """Something that is still to be given back."""

    def __init__(self, give_back: Callable[[], None], others: list[Due]) -> None:
        """`give_back` may be called twice; `others` are due, too."""
        self._give_back, self._others = give_back, others
        self._over = False
        others.append(self)

    def give_back(self) -> None:
        """Now, and maybe again."""
        if not self._over:
            self._give_back()

    def settle(self) -> None:
        """Now, and never again, unless something is due that was changed later."""
        self.give_back()
        if self._others and self._others[-1] is self:
            self._others.pop()
            self._over = True


_owed: ContextVar[list[Due] | None] = ContextVar("dropkit.owed", default=None)


def owe(give_back: Callable[[], None]) -> Due:
    """Who changes something says how it is given back."""
    owed = _owed.get()
    return Due(give_back, [] if owed is None else owed)


def mended(run: Callable[[], T]) -> T:
    """Run what uses a model for a while; what Ctrl-C keeps it from giving back is given back.

    Ctrl-C may come as a block is about to end. Then its end, also that of a block of torch's, is
    reached when nobody holds the traceback any more, which may be much later; here it is now.
    """

    def within() -> T:
        owed: list[Due] = []
        _owed.set(owed)
        owe(InForce().restore)
        try:
            return run()
        except KeyboardInterrupt as error:
            _end_blocks(error)
            while owed:
                owed[-1].settle()
            raise

    return copy_context().run(within)


def _end_blocks(error: BaseException | None) -> None:
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == contextlib.__file__:
                frame.clear()
        error = error.__context__


@contextmanager
def eager() -> Iterator[None]:
    """Within, what was compiled runs as it was written."""
    with _lock:
        if not _eager:
            _stance[:] = [torch.compiler.set_stance("force_eager")]
        asked = get_ident(), object()
        _eager.append(asked)
    try:
        yield
    finally:
        _compiled_again(asked)


def _asked() -> list[tuple[int, object]]:
    return [one for one in _eager if one[0] == get_ident()]


def _compiled_again(asked: tuple[int, object]) -> None:
    with _lock:
        if asked in _eager:
            _eager.remove(asked)
        if not _eager and _stance:
            _stance.pop().__exit__(None, None, None)


class InForce:
    """What is in force in this thread."""

    def __init__(self) -> None:
        self.gradients = torch.is_grad_enabled()
        self.functions = _functions()
        self.dispatched = _dispatched()
        self.flags = {name: getattr(dispatch, name) for name in _FLAGS}
        self.eager = _asked()
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
            vars(dispatch).update(self.flags)
            if hasattr(dispatch, "set_is_in_mode_without_ignore_compile_internals"):
                dispatch.set_is_in_mode_without_ignore_compile_internals(
                    self.flags["_is_in_any_mode_without_ignore_compile_internals"]
                )
        for asked in _asked():
            if asked not in self.eager:
                _compiled_again(asked)
        for number in _ours():
            if number not in self.hooks:
                hooks._global_forward_pre_hooks.pop(number, None)
                hooks._global_forward_hooks.pop(number, None)
                hooks._global_forward_hooks_always_called.pop(number, None)


class Ends:
    """Beside a mode of torch's: it ends only where it is in force, and Ctrl-C did not end it yet.

    Else it would end another, whenever the last traceback is thrown away that holds its block.
    """

    def __exit__(self, *raised: Any) -> None:
        """End it."""
        if any(one is self for one in (*_functions(), *_dispatched())):
            super().__exit__(*raised)  # type: ignore[misc]


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
