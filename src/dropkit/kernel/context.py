"""Who is looking: a compiler, a mode, torch.func; or nobody, and the short way is open."""

from __future__ import annotations

import sys
from types import FrameType

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from dropkit.errors import SettingError

_PLAIN = (Tensor, torch.nn.Parameter)
_is_batched = torch._C._functorch.is_legacy_batchedtensor
"""Whether it is a batch of gradients, as torch.autograd.grad makes one with is_grads_batched."""


def traced(x: Tensor | None = None) -> bool:
    """Whether operators of torch have to be seen: by a compiler, a tracer, a mode, a tensor."""
    return rewritten(x) or torch._C._len_torch_dispatch_stack() > 0


def rewritten(x: Tensor | None = None) -> bool:
    """Whether derivatives, too, have to be made of operators: a mode sees them when they run."""
    return (
        is_compiling()
        or recorded()
        or (x is not None and (type(x) not in _PLAIN or x.is_meta or _is_batched(x)))
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def drawn_on(device: torch.device) -> bool:
    """Whether what is drawn on a device has to be seen as operators of torch."""
    return traced() or transformed() or device.type == "meta"


def recorded() -> bool:
    """Whether torch.jit.trace is at work."""
    return not is_compiling() and torch._C._is_tracing()


def transformed() -> bool:
    """Whether torch.func, or forward-mode differentiation, is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def checkpoints() -> int:
    """How many gradient checkpoints this call is within; they will run it again.

    Those of torch, and what may be one: a Function of the user's own, whose backward can.
    """
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        count += _is_checkpoint(frame)
        frame = frame.f_back
    return count


def _is_checkpoint(frame: FrameType) -> bool:
    """Torch's own Functions are left out: that of torch.utils.checkpoint is counted by its name."""
    name = frame.f_code.co_qualname
    if name == "checkpoint":
        return frame.f_globals.get("__name__") == "torch.utils.checkpoint"
    if name != "Function.apply":
        return False
    room: str = frame.f_locals["cls"].__module__
    return not room.startswith(("torch.", "dropkit."))


def backward_pass() -> int:
    """The number of the backward pass that this call is within; -1 if it is within none."""
    return torch._C._current_graph_task_id()


def check_one_mask() -> None:
    """No vmap asks for another mask for each member, which counted keys do not give."""
    different = torch._C._functorch.RandomnessType.Different
    levels = torch._C._functorch.get_interpreter_stack() or ()
    vmaps = [level for level in levels if level.key() == torch._C._functorch.TransformType.Vmap]
    if any(torch._C._functorch.CVmapInterpreterPtr(x).randomness() == different for x in vmaps):
        raise SettingError(
            "expected a key for each member of vmap(randomness='different'); got the one that "
            "keyed() counts for all. Try vmap over a tensor of keys, and dropout with key="
        )
