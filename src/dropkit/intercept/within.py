"""Where in a model a thread is.

It is followed by hooks on all modules of the process, and none on the model's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from types import FrameType

from torch import nn
from torch.nn.modules import module as hooks

from dropkit.intercept.facts import TORCH
from dropkit.intercept.trace import Where
from dropkit.records import Place

_numbers = RLock()
"""Numbers of hooks are counted by torch without one."""
CALLS = ("Module._call_impl", "Module._call_impl.<locals>.inner")
"""Functions of torch within which a module runs, with its hooks."""
_OURS = __file__[: -len("intercept/within.py")]


class Within:
    """The modules of a model that one thread is within, the innermost last."""

    def __init__(
        self,
        model: nn.Module,
        stranger: Callable[[nn.Module], None] | None = None,
        began: Callable[[str], None] | None = None,
    ) -> None:
        """`stranger` is told of modules that are not the model's, `began` of each that is."""
        self.model = model
        self.thread = get_ident()
        self.paths = _paths(model)
        self.stack: list[tuple[str, nn.Module]] = [("", model)]
        self.left = 0
        """Within so many blocks the thread does what is none of the model's."""
        self.elsewhere = False
        """Whether parts of the model ran in other threads."""
        self.entry: FrameType | None = None
        """Of who called the model."""
        self._stranger, self._began = stranger, began

    @property
    def here(self) -> bool:
        """Whether it is this thread that is followed, and in the model."""
        return not self.left and get_ident() == self.thread

    def before(self, module: nn.Module, _: object) -> None:
        """A module begins."""
        if get_ident() != self.thread:
            self.elsewhere |= id(module) in self.paths
            return
        if self.left:
            return
        path = self.paths.get(id(module))
        if path is None:  # of what the model has come to hold since
            self.paths = _paths(self.model)
            path = self.paths.get(id(module))
        if path is not None:
            self.stack.append((path, module))
            if self._began is not None:
                self._began(path)
            return
        outer = self.stack[-1][0]
        self.stack.append((f"{outer}.{type(module).__name__}".removeprefix("."), module))
        if self._stranger is not None:
            self._stranger(module)

    def after(self, module: nn.Module, _: object, __: object) -> None:
        """A module ended, or raised."""
        if self.here and any(inner is module for __, inner in self.stack[1:]):
            while self.stack.pop()[1] is not module:
                pass

    def begin_here(self) -> None:
        """The caller is about to call the model: lines are looked for within that call."""
        self.entry = sys._getframe(1)

    @property
    def innermost(self) -> tuple[str, nn.Module]:
        """Path and module."""
        return self.stack[-1]

    def where(self, number: int = 0) -> Where:
        """Where the model is; `number`: of the operation that comes next."""
        path, module = self.innermost
        place, instruction = self._line()
        return Where(path, type(module).__name__, place, instruction, module.training, number)

    def _line(self) -> tuple[Place | None, int]:
        return line_of(sys._getframe(2), lambda frame: frame is self.entry)


def line_of(
    frame: FrameType | None, is_last: Callable[[FrameType], bool]
) -> tuple[Place | None, int]:
    """The innermost line that is neither torch's nor ours, and its instruction.

    From a frame outwards, up to one that is the last, and not looked at itself.
    """
    made = 0  # where code that stands in no file is: as good as a line, to tell two calls apart
    while frame is not None and not is_last(frame):
        file = frame.f_code.co_filename
        if file.startswith("<"):
            made = made or frame.f_lasti
        elif not file.startswith((*TORCH, _OURS)):
            name = frame.f_code.co_qualname
            return Place(file, frame.f_lineno, name), made or frame.f_lasti
        frame = frame.f_back
    return None, made


def module_of(frame: FrameType | None) -> nn.Module | None:
    """The innermost module that was called, from a frame outwards; None: there is none."""
    while frame is not None and frame.f_code.co_qualname not in CALLS:
        frame = frame.f_back
    found: nn.Module | None = None if frame is None else frame.f_locals.get("self")
    return found


@contextmanager
def hooked(within: Within) -> Iterator[None]:
    """Follow the modules for as long as the block lasts."""
    try:
        with _numbers:
            hooks.register_module_forward_pre_hook(within.before)
            hooks.register_module_forward_hook(within.after, always_call=True)
        yield
    finally:
        for held, mine in (
            (hooks._global_forward_pre_hooks, within.before),
            (hooks._global_forward_hooks, within.after),
        ):
            for number, hook in list(held.items()):
                if hook == mine:
                    del held[number]
                    hooks._global_forward_hooks_always_called.pop(number, None)


@contextmanager
def unfollowed() -> Iterator[None]:
    """Within, what this thread does is no part of the models in which it is followed."""
    held = list(hooks._global_forward_pre_hooks.values())
    owners = [getattr(hook, "__self__", None) for hook in held]
    mine = [one for one in owners if isinstance(one, Within) and one.thread == get_ident()]
    for within in mine:
        within.left += 1
    try:
        yield
    finally:
        for within in mine:
            within.left -= 1


def _paths(model: nn.Module) -> dict[int, str]:
    """By identity of a module: where the model holds it, the first place where it does."""
    return {id(module): path for path, module in model.named_modules()}
