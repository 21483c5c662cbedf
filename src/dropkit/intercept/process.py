"""What a process has in force: modes of torch, the compiler's stance, hooks on all modules.

Contexts put it back as they end. Ctrl-C in the middle of an end leaves it as it is; so who looks at
a model for a while sets it back in any case.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _python_dispatch as dispatch

from dropkit.intercept.within import Within


class InForce:
    """What is in force in this thread."""

    def __init__(self) -> None:
        self.gradients = torch.is_grad_enabled()
        self.functions = _functions()
        self.dispatched = _dispatched()
        self.stance = _stance()
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
        room = _eval_frame()
        if room is not None and room._stance is not self.stance:
            room._set_stance(self.stance or room.DynamoStance())  # loaded since, with this one
        for number in _ours():
            if number not in self.hooks:
                hooks._global_forward_pre_hooks.pop(number, None)
                hooks._global_forward_hooks.pop(number, None)
                hooks._global_forward_hooks_always_called.pop(number, None)


def _functions() -> list[Any]:
    return list(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]


def _dispatched() -> list[Any]:
    return list(dispatch._get_current_dispatch_mode_stack())


def _eval_frame() -> Any:
    return sys.modules.get("torch._dynamo.eval_frame")


def _stance() -> Any:
    """Of the compiler, if it was ever loaded."""
    room = _eval_frame()
    return None if room is None else room._stance


def _ours() -> list[int]:
    """Hooks of those who follow a model, by number."""
    held: Any = (hooks._global_forward_pre_hooks, hooks._global_forward_hooks)
    return [
        number
        for one in held
        for number, hook in list(one.items())
        if isinstance(getattr(hook, "__self__", None), Within)
    ]
