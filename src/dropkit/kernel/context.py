"""Who is looking: a compiler, a mode, torch.func; or nobody, and the short way is open."""

from __future__ import annotations

import sys
from types import FrameType

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_PLAIN = (Tensor, torch.nn.Parameter)


def traced(x: Tensor | None = None) -> bool:
    """Whether operators of torch have to be seen: by a compiler, a tracer, a mode, a tensor."""
    return rewritten(x) or torch._C._len_torch_dispatch_stack() > 0


def rewritten(x: Tensor | None = None) -> bool:
    """Whether derivatives, too, have to be made of operators: a mode sees them when they run."""
    return (
        is_compiling()
        or recorded()
        or (x is not None and (type(x) not in _PLAIN or x.is_meta))
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def recorded() -> bool:
    """Whether torch.jit.trace is at work."""
    return not is_compiling() and torch._C._is_tracing()


def transformed() -> bool:
    """Whether torch.func, or forward-mode differentiation, is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def checkpoints() -> int:
    """How many gradient checkpoints of torch this call is within; they will run it again."""
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "checkpoint":
            count += frame.f_globals.get("__name__") == "torch.utils.checkpoint"
        frame = frame.f_back
    return count


def backward_pass() -> int:
    """The number of the backward pass that this call is within; -1 if it is within none."""
    return torch._C._current_graph_task_id()
