"""What may differ from call to call and leave the law as it is: values, dtype, strides, modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count

import torch
from torch import Tensor

from dropkit.kernel import derive
from dropkit.testing.laws import Bernoulli
from dropkit.testing.seeding import private_generator
from dropkit.testing.subject import Apply, Subject

KINDS = 4
"""Of values that are mixed: plain ones, negative, large and small ones."""
RATE = 0.3
_COARSE = 2.0**-12  # eight bits, or eleven, hold nothing between none and many times as much


def _as_it_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Circumstance:
    """A way to call a dropout in which it is to be what it is in any other."""

    name: str = ""
    alter: Callable[[Tensor], Tensor] = _as_it_is
    """From values in [1, 2], those that are handed over."""
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    make: Callable[[float], Apply] | None = None
    """From a rate, what is called in place of a layer."""
    rates: tuple[float, ...] = (RATE,)
    slim: bool = True
    """May an axis have a size of 1? Where strides are what differs, none."""
    lone: bool = False
    """Has a call one row?"""
    differentiable: bool = True
    mixed: bool = False
    """Are there values of all kinds? `kind` says where."""

    def __str__(self) -> str:
        """As it is said at the end of an evidence."""
        return f", {self.name}" if self.name else ""

    def call(self, apply: Apply, x: Tensor) -> tuple[Tensor, Tensor]:
        """What was handed over for x, and what came."""
        x = self.alter(x)
        with self.within():
            y = apply(x)
        return x.detach(), y.detach()


PLAIN = Circumstance()


def circumstances(subject: Subject, seed: int) -> tuple[Circumstance, ...]:
    """All in which a subject is to be what it is in the plain one."""
    return (
        *_values(subject),
        *_dtypes(subject),
        Circumstance("a gradient wanted", lambda x: x.detach().requires_grad_()),
        Circumstance("under no_grad", within=torch.no_grad, differentiable=False),
        Circumstance("in inference mode", within=torch.inference_mode, differentiable=False),
        *_batches(subject),
        *(
            Circumstance(f"laid out {name}", alter, slim=False)
            for name, alter in layouts(len(subject.shape)).items()
        ),
        *_sources(subject, seed),
    )


def kind(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Which of the kinds a value is: all of them along any axis, in turn."""
    place = torch.zeros((), dtype=torch.int64, device=device)
    for size in shape:
        place = place[..., None] + torch.arange(size, device=device)
    return place % KINDS


def layouts(rank: int) -> dict[str, Apply]:
    """Ways to lay the same values out in memory."""
    backwards = tuple(reversed(range(rank)))
    ways: dict[str, Apply] = {
        "reversed": lambda x: x.permute(backwards).contiguous().permute(backwards),
        "sliced": lambda x: torch.stack([x, -x], -1)[..., 0],
        "off the start": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    }
    if rank == 4:
        ways["channels last"] = lambda x: x.contiguous(memory_format=torch.channels_last)
    if rank > 1:
        ways["transposed"] = lambda x: x.transpose(0, -1).contiguous().transpose(0, -1)
    return ways


def _values(subject: Subject) -> Iterator[Circumstance]:
    """Powers of two times the plain values, so that no result is rounded otherwise."""
    yield Circumstance("values below zero", lambda x: -x / 2)
    yield Circumstance("small values", lambda x: x / _large(x))
    if isinstance(subject.law, Bernoulli) or not subject.law.additive:  # noise is lost in these
        yield Circumstance("large values", lambda x: x * _large(x))
        yield Circumstance("values of all kinds", _of_all_kinds, mixed=True)


def _dtypes(subject: Subject) -> Iterator[Circumstance]:
    halves = (torch.bfloat16, torch.float16) if "half" in subject.claims else ()
    for dtype in (torch.float64, torch.float32, *halves):
        name = str(dtype).removeprefix("torch.")
        yield Circumstance(name, partial(Tensor.to, dtype=dtype), rates=(RATE, _COARSE))


def _batches(subject: Subject) -> Iterator[Circumstance]:
    rows = subject.rows
    if rows is not None:
        yield Circumstance("a batch of one", lambda x: x.narrow(rows, 0, 1), lone=True)
        yield Circumstance(
            "one row for all", lambda x: x.narrow(rows, 0, 1).expand_as(x), slim=False
        )


def _sources(subject: Subject, seed: int) -> Iterator[Circumstance]:
    """Where it draws from, if that can be said; never twice the same."""
    if subject.keyed is not None:
        yield Circumstance("with a key", make=lambda p: _keyed(subject, seed, p))
    if subject.generator is not None:
        yield Circumstance("with a generator", make=lambda p: _generated(subject, seed, p))


def _keyed(subject: Subject, seed: int, p: float) -> Apply:
    assert subject.keyed is not None
    function, numbers = subject.keyed(p), count()
    return lambda x: function(x, key=derive(seed, 12, next(numbers)) >> 1)


def _generated(subject: Subject, seed: int, p: float) -> Apply:
    assert subject.generator is not None
    function, source = subject.generator(p), private_generator(subject.device, derive(seed, 12))
    return lambda x: function(x, source)


def _of_all_kinds(x: Tensor) -> Tensor:
    factors = torch.tensor([1.0, -0.5, _large(x), 1 / _large(x)], dtype=x.dtype, device=x.device)
    return x * factors[kind(tuple(x.shape), x.device)]


def _large(x: Tensor) -> float:
    """A power of two that leaves as much room above as below."""
    return float(2 ** (int(math.log2(torch.finfo(x.dtype).max)) // 2))
