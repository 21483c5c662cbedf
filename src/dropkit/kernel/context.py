"""Who is looking: a compiler, a mode, torch.func; or nobody, and the short way is open."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

_PLAIN = (Tensor, torch.nn.Parameter)


def traced(x: Tensor | None = None) -> bool:
    """Whether operators of torch have to be seen: by a compiler, a tracer, a mode, a tensor."""
    return (
        is_compiling()
        or recorded()
        or (x is not None and (type(x) not in _PLAIN or x.is_meta))
        or torch._C._len_torch_dispatch_stack() > 0
    )


def recorded() -> bool:
    """Whether torch.jit.trace is at work."""
    return not is_compiling() and torch._C._is_tracing()


def transformed() -> bool:
    """Whether torch.func, or forward-mode differentiation, is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
