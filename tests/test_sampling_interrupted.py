"""Ctrl-C while a model is sampled, also as a block is about to begin or to end."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import dropkit
from dropkit.intercept import forgetting, untouched
from dropkit.intercept.leaving import is_deliberate
from dropkit.intercept.process import mended
from sampled_models import DropPath, unchanged


class Changes(nn.Module):
    """Writes into a buffer and a list as it predicts; part of it has to be opened."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.path, self.norm = nn.Dropout(0.5), DropPath(0.5), nn.BatchNorm1d(8)
        self.register_buffer("count", torch.zeros(()))
        self.log: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.log.append(1)
        return self.path(self.norm(self.drop(x)))


class _Interrupts:
    """Ctrl-C at the n-th time that a block of contextlib's begins or ends."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_filename != contextlib.__file__:
            return
        if code.co_name in ("__enter__", "__exit__"):
            self.left -= 1
            if not self.left:
                sys.setprofile(None)
                raise KeyboardInterrupt


def _in_force() -> tuple[Any, ...]:
    return (
        list(_get_current_function_mode_stack()),
        list(_get_current_dispatch_mode_stack()),
        torch.is_grad_enabled(),
        torch._dynamo.eval_frame._stance.stance,
        is_deliberate(),
        list(hooks._global_forward_pre_hooks),
        list(hooks._global_forward_hooks),
    )


def _interrupted(model: nn.Module, x: Tensor, at: int) -> KeyboardInterrupt | None:
    """With it comes the traceback, and what hangs on it."""
    sys.setprofile(_Interrupts(at))
    try:
        dropkit.sample(model, x, draws=3, key=1)
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
    return None


@pytest.mark.parametrize(("known", "step"), [(False, 7), (True, 3)], ids=["first", "again"])
def test_ctrl_c_as_a_block_begins_or_ends_leaves_no_trace(known: bool, step: int) -> None:
    """At each so many-th block; with a step of 1 it passes, too, and takes minutes.

    Mutants: an end that was not reached is reached when the traceback is gone, and puts back what
    was long ago, or a mode of torch's; what is given back in another order than it was changed.
    """
    x, before = torch.randn(4, 8), _in_force()
    for at in itertools.count(1, step):
        model = Changes().eval()
        if known:
            dropkit.sample(model, x, draws=3, key=1)
        with unchanged(model):
            error = _interrupted(model, x, at)
        assert _in_force() == before
        if error is None:
            break
        model.count.add_(1)
        torch.manual_seed(at)
        with unchanged(model):
            del error
            gc.collect(0)
        assert _in_force() == before
    assert at > 10 * step


def test_what_is_changed_within_what_is_changed_is_given_back_first() -> None:
    """Mutant: a block within, whose end is reached late, leaves what it was when it began."""
    before, at = _in_force(), itertools.count(1)
    ended = False

    def run() -> None:
        nonlocal ended
        with untouched(model):
            model.train()
            with forgetting(model):
                model.log.append(1)
        sys.setprofile(None)
        ended = True

    while not ended:
        model = Changes().eval()
        with unchanged(model), contextlib.suppress(KeyboardInterrupt):
            sys.setprofile(_Interrupts(next(at)))
            mended(run)
        assert _in_force() == before
    assert next(at) > 4
