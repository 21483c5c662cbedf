"""A model is sampled again and again, and is each time afterwards what it was before.

The first time all that it holds is copied, compared and put back. If nothing had changed, that is
spared later: then what takes no time to look at is looked at, and put back: modes, attributes,
buffers, generators; and of parameters whether somebody wrote into them.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from dropkit.errors import DropkitWarning
from dropkit.intercept.untouched import Before, Generators, untouched

_deliberate: ContextVar[bool] = ContextVar("dropkit.deliberate", default=False)


@dataclass(slots=True)
class _Habits:
    """What passes of a model were seen to do, with the same modules opened."""

    calm: bool = False
    """Nothing changed, and nobody drew from another generator than torch's."""
    draws: bool = False
    """Somebody did."""


_habits: WeakKeyDictionary[nn.Module, dict[frozenset[str], _Habits]] = WeakKeyDictionary()


@contextmanager
def deliberate() -> Iterator[None]:
    """Within, dropout at inference is meant."""
    token = _deliberate.set(True)
    try:
        yield
    finally:
        _deliberate.reset(token)


def is_deliberate() -> bool:
    """Whether dropout at inference is meant, in this thread."""
    return _deliberate.get()


@contextmanager
def leaving(
    model: nn.Module, opened: Collection[str] = (), rates: Mapping[str, float] | None = None
) -> Iterator[bool]:
    """Within, a model is in evaluation mode; afterwards it and the random state are as before.

    Within, the model is in evaluation mode, whatever it is outside.

    Args:
        model: any module.
        opened: paths of modules that take themselves for training within.
        rates: attributes, by path, that have other values within.

    Yields:
        Whether it was seen to draw from Python's or NumPy's generators, too.
    """
    with ExitStack() as stack:
        habits = _habits.setdefault(model, {}).setdefault(frozenset(opened), _Habits())
        if habits.calm:
            stack.enter_context(_lightly(model, habits))
        else:
            stack.callback(_learn, stack.enter_context(untouched(model)), habits)
        for module in model.modules():
            if module.training:
                _set(stack, module, "training", False)
        for path, module in model.named_modules():
            if module.training != (path in opened):
                _set(stack, module, "training", path in opened)
        for path, rate in (rates or {}).items():
            holder, _, name = path.rpartition(".")
            _set(stack, model.get_submodule(holder), name, rate)
        yield habits.draws


def _learn(before: Before, habits: _Habits) -> None:
    habits.draws = habits.draws or before.random.moved_elsewhere
    habits.calm = not habits.draws and not before.changed()


def _set(stack: ExitStack, module: nn.Module, name: str, value: object) -> None:
    stack.callback(setattr, module, name, getattr(module, name))
    setattr(module, name, value)


@contextmanager
def _lightly(model: nn.Module, habits: _Habits) -> Iterator[None]:
    random = Generators()
    modules = list(model.modules())
    own = [dict(vars(module)) for module in modules]
    buffers = [(tensor, tensor.detach().clone()) for tensor in model.buffers()]
    versions = [(name, tensor, _version(tensor)) for name, tensor in model.named_parameters()]
    try:
        yield
    finally:
        random.restore()
        for module, was in zip(modules, own, strict=True):
            now = vars(module)
            if now.keys() != was.keys() or any(now[name] is not was[name] for name in was):
                now.clear()
                now.update(was)
        for tensor, content in buffers:
            if not tensor.equal(content):
                tensor.detach().copy_(content)
        written = [name for name, tensor, version in versions if _version(tensor) != version]
        if written:
            habits.calm = False
            warnings.warn(
                f"{type(model).__name__} wrote into its parameter {written[0]} as it predicted, "
                "which it did not do at first: it could not be put back",
                DropkitWarning,
                stacklevel=4,
            )


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
