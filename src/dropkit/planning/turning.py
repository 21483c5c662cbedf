"""Rates that are set at each call, whatever the model says: they stand in its source, or it was
compiled, and a number that changes would have it compiled anew."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dropkit.acceleration import dropped
from dropkit.functional import dropout
from dropkit.intercept import Operation
from dropkit.intercept.within import line_of, module_of

Call = tuple[object, ...]
"""Line and instruction."""
T = TypeVar("T")
Drop = Callable[[Tensor, Tensor], Tensor]
"""A dropout of a value at a rate, or at what stands for one."""


class Given(float):
    """A rate that is asked for already: who comes later leaves it."""


@dataclass(eq=False)
class Turn:
    """Hears of the dropouts that one module calls itself, and gives them other rates."""

    precedes: ClassVar[bool] = True
    module: nn.Module
    asked: dict[float, dict[Call, float]] = field(default_factory=dict)
    """By the rate that a call comes with, and by its place."""
    held: dict[Call, set[float]] = field(default_factory=dict)
    """By the place of a call: what is asked of it, whatever it comes with; empty: nothing is."""
    tensors: dict[float, Tensor] = field(default_factory=dict)
    """By the rate that a call comes with: what a compiled program reads the other one from."""

    def ask(self, call: Call, given: float, rate: float, *, moved: bool) -> bool:
        """Give a call another rate. False: a compiler takes it for one that gets another."""
        self.held.setdefault(call, set()).update([rate] if moved else [])
        there = self.asked.setdefault(round(given, 9), {})
        there[call] = rate
        self.tensors.setdefault(round(given, 9), torch.tensor(rate))
        return len(set(there.values())) == 1

    def take(self, other: Turn) -> None:
        """Ask what another asks; tensors stay the same ones, since programs hold them."""
        self.asked, self.held = other.asked, other.held
        for given, rate in other.tensors.items():
            self.tensors.setdefault(given, rate).copy_(rate)

    def __call__(self, call: Operation) -> Any:
        """Run it, at another rate if that is asked."""
        name = "dropout_p" if call.is_attention else "p"
        if torch.compiler.is_compiling():
            rate = self.tensors.get(round(float(call.arguments[name]), 9))
            if rate is None or not (call.is_attention or call.arguments["training"]):
                return call.run()
            return attended(call, rate) if call.is_attention else dropped(call, rate)
        wanted = self.rate(call, sys._getframe(1))
        return call.run() if wanted is None else call.run(**{name: Given(wanted)})

    def rate(self, call: Operation, frame: FrameType) -> float | None:
        """What is asked of a call that is made in a frame; None: nothing."""
        given = call.arguments["dropout_p" if call.is_attention else "p"]
        there = self.asked.get(round(float(given), 9))
        if isinstance(given, Given) or module_of(frame) is not self.module:
            return None
        if there and len(self.held) == 1:
            return chosen(there, frame)
        here = place_of(frame)
        if there and (here in there or here not in self.held):
            return chosen(there, frame)
        held = self.held.get(here, ())  # a rate that is another each time
        return next(iter(held)) if len(held) == 1 else None


def compile_anew() -> None:
    """Programs that were compiled before are not used again: none asks which hooks there are."""
    compiler = sys.modules.get("torch._dynamo")
    if compiler is not None:
        compiler.reset()


def chosen(there: Mapping[Call, T], frame: FrameType) -> T:
    """Of what is known by the places of calls: what belongs to the call that is made here."""
    known = [*there.values()]
    if all(one is known[0] or one == known[0] for one in known):
        return known[0]
    nowhere = (one for call, one in there.items() if call[0] is None)
    return there.get(place_of(frame), next(nowhere, known[0]))


def place_of(frame: FrameType) -> Call:
    """Where in its source a model is, as what looked at it said."""
    place, instruction = line_of(frame, lambda _: False)
    line = None if place is None else (place.file, place.line, place.function)
    return line, instruction


def attended(call: Operation, rate: Tensor, drop: Drop = dropout) -> Tensor:
    """Attention by its formula: torch's own takes no tensor for a rate."""
    given = call.arguments
    query, key, value = given["query"], given["key"], given["value"]
    if given["enable_gqa"]:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scale = query.shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
    scores = query @ key.mT * scale
    mask = given["attn_mask"]
    if given["is_causal"]:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        is_bool = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if is_bool else scores + mask
    return torch.matmul(drop(scores.softmax(-1), rate), value)
