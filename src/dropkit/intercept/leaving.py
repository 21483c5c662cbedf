"""A model is sampled again and again, and is each time afterwards what it was before.

The first time all that it holds is copied, compared and put back. If nothing had changed, that is
spared later: then what takes no time to look at is looked at, and put back: modes, attributes,
buffers, generators; and of parameters whether somebody wrote into them.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from dropkit.errors import DropkitWarning
from dropkit.intercept.process import InForce, owe
from dropkit.intercept.untouched import (
    Before,
    Given,
    RandomState,
    give_back,
    is_as,
    refill,
    set_version,
    untouched,
)

_deliberate: ContextVar[bool] = ContextVar("dropkit.deliberate", default=False)


@dataclass(slots=True)
class _Habits:
    """What passes of a model were seen to do, with the same modules opened and such inputs."""

    calm: bool = False
    """Nothing changed, and nobody drew from another generator than torch's."""
    draws: bool = False
    """Somebody did."""


_habits: WeakKeyDictionary[nn.Module, dict[Any, _Habits]] = WeakKeyDictionary()


class Left:
    """A model that is used for a while."""

    def __init__(self, habits: _Habits, before: Before | None) -> None:
        self._before = before
        self.draws = habits.draws
        """Whether it was seen to draw from Python's or NumPy's generators, too."""

    def again(self) -> None:
        """Another pass begins: what the one before left is put back, if that was ever seen."""
        if self._before is not None:
            self._before.restore()


@contextmanager
def deliberate() -> Iterator[None]:
    """Within, dropout at inference is meant."""
    token = _deliberate.set(True)
    try:
        yield
    finally:
        with suppress(ValueError):  # of a context that Ctrl-C ended
            _deliberate.reset(token)


def is_deliberate() -> bool:
    """Whether dropout at inference is meant, in this thread."""
    return _deliberate.get()


@contextmanager
def leaving(
    model: nn.Module,
    opened: Collection[str] = (),
    rates: Mapping[str, float] | None = None,
    form: Any = None,
) -> Iterator[Left]:
    """Within, a model is in evaluation mode; afterwards it and the random state are as before.

    Args:
        model: any module.
        opened: paths of modules that take themselves for training within.
        rates: attributes, by path, that have other values within.
        form: what its passes hang on, beside that: with another one it is looked at anew.
    """
    habits = _habits.setdefault(model, {}).setdefault((frozenset(opened), form), _Habits())
    attributes = _Set()
    with ExitStack() as stack:
        stack.callback(owe(attributes.restore).settle)
        for path, module in model.named_modules():
            if module.training != (path in opened):
                attributes.set(module, "training", path in opened)
        for path, rate in (rates or {}).items():
            holder, _, name = path.rpartition(".")
            attributes.set(model.get_submodule(holder), name, rate)
        if habits.calm:
            stack.enter_context(_lightly(model, habits))
            yield Left(habits, None)
        else:
            before = stack.enter_context(untouched(model))
            stack.callback(_learn, before, habits)
            yield Left(habits, before)


def _learn(before: Before, habits: _Habits) -> None:
    habits.draws = habits.draws or before.random.moved_elsewhere
    habits.calm = not habits.draws and not before.changed()


class _Set:
    """Attributes that are set for a while."""

    def __init__(self) -> None:
        self.were: list[tuple[nn.Module, str, object]] = []

    def set(self, module: nn.Module, name: str, value: object) -> None:
        """From now on."""
        self.were.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def restore(self) -> None:
        """They are what they were."""
        for module, name, value in reversed(self.were):
            setattr(module, name, value)


@contextmanager
def _lightly(model: nn.Module, habits: _Habits) -> Iterator[None]:
    before: tuple[Given, ...] = (InForce(), RandomState(), _Light(model))
    versions = [(name, tensor, _version(tensor)) for name, tensor in model.named_parameters()]
    due = owe(partial(give_back, before))
    try:
        yield
    finally:
        due.settle()
        written = [name for name, tensor, version in versions if _version(tensor) != version]
        if written:
            habits.calm = False
            warnings.warn(
                f"{type(model).__name__} wrote into its parameter {written[0]} as it predicted, "
                "which it did not do at first: it could not be put back",
                DropkitWarning,
                stacklevel=4,
            )


class _Light:
    """What takes no time to look at: attributes, what is in those that hold, buffers."""

    def __init__(self, model: nn.Module) -> None:
        owners = [(vars(module), dict(vars(module))) for module in model.modules()]
        kept = [(held, held.copy()) for _, own in owners for held in own.values() if _holds(held)]
        self.held: list[tuple[Any, Any]] = [*owners, *kept]
        self.buffers = [(x, x.detach().clone(), _version(x)) for x in model.buffers()]

    def restore(self) -> None:
        """All of it is again what it was."""
        for now, was in self.held:
            if not is_as(now, was):
                refill(now, was)
        for tensor, content, version in self.buffers:
            if _version(tensor) != version:
                tensor.detach().copy_(content)
                set_version(tensor, version)


def _holds(value: object) -> bool:
    return type(value) in (dict, list, set, OrderedDict, deque)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
