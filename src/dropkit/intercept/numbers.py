"""The numbers that a model holds, and what hangs on them: each is nudged, and somebody looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor, nn

_STEP = 2.0**-36
"""Of a nudge: nothing that is computed shows it, and a rate that is handed on does."""
_MOST = 1 << 20
"""Nudges that can be told apart, and stay small."""


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """An attribute of a module, or of an object that one holds, such as a configuration."""

    owner: Any
    name: str
    path: str
    """From the model: encoder.layer.0.dropout.p."""

    @property
    def value(self) -> float:
        """What it is."""
        return float(self.held)

    @property
    def held(self) -> float:
        """The same as it is held: 0 may be whole."""
        held: float = vars(self.owner)[self.name]
        return held

    def write(self, value: float) -> None:
        """Another value."""
        setattr(self.owner, self.name, value)


def numbers(model: nn.Module) -> Iterator[Number]:
    """What may be a rate: numbers from 0 to 1, and whole ones that are called a dropout's."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        yield from _of(module, start)
        for name, value in vars(module).items():
            if _is_plain(value) and id(value) not in seen:
                seen.add(id(value))
                yield from _of(value, f"{start}{name}.")


def _of(owner: Any, start: str) -> Iterator[Number]:
    for name, value in vars(owner).items():
        whole = type(value) is int and is_called_rate(owner, name)
        if (type(value) is float or whole) and 0 <= value <= 1:
            yield Number(owner, name, f"{start}{name}")


def is_called_rate(owner: Any, name: str) -> bool:
    """Whether an attribute has a dropout's name, or a rate's in what has a dropout's."""
    plain = name in ("p", "rate", "prob")
    return "drop" in name.lower() or (plain and "drop" in type(owner).__name__.lower())


def _is_plain(value: Any) -> bool:
    """Whether it is an object with attributes of its own, and no part of torch."""
    plain = hasattr(value, "__dict__") and not callable(value)
    return plain and not isinstance(value, nn.Module | Tensor | type)


@contextmanager
def nudged(numbers: Iterable[Number]) -> Iterator[Callable[[float], tuple[Number, int] | None]]:
    """Within, each number is a little greater or smaller than it was, each by something else.

    Gives what says which number a rate is (1), or is what is left of (-1), as of what is kept.
    """
    told: dict[int, tuple[Number, int]] = {}
    before: list[tuple[Number, Any]] = []

    def who(rate: float) -> tuple[Number, int] | None:
        return told.get(_grain(rate))

    try:
        for at, number in enumerate(islice(numbers, _MOST), 1):
            was = vars(number.owner)[number.name]
            now = was + (-at if was > 0.5 else at) * _STEP  # within 0 and 1
            before.append((number, was))
            vars(number.owner)[number.name] = now
            told.setdefault(_grain(1 - now), (number, -1))
            told[_grain(now)] = number, 1
        yield who
    finally:
        for number, was in before:
            vars(number.owner)[number.name] = was


def _grain(rate: float) -> int:
    return round(rate / _STEP)
