"""A model is looked at, and is as it was before."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dropkit.errors import DropkitWarning
from dropkit.intercept.process import InForce, owe
from dropkit.intercept.reach import Reached, reached


class Given(Protocol):
    """One thing that is given back."""

    def restore(self) -> None:
        """It is again what it was."""


class _Part(Given, Protocol):
    """One thing of a model's."""

    def changed(self) -> bool: ...


class Before:
    """What a model was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.in_force = InForce()
        found = reached(model)
        self.random = RandomState()
        self.tensors = [_Contents(tensor) for tensor in found.tensors]
        self.parameters = dict(model.named_parameters())
        self.parts = _parts(found)

    def restore(self) -> None:
        """The model is again what it was, and the generators are where they were."""
        give_back((self.in_force, self.random, *self.parts, *self.tensors))

    def changed(self) -> bool:
        """Whether anything of the model is not what it was."""
        return any(part.changed() for part in (*self.parts, *self.tensors))

    def zeroed(self) -> Mapping[str, tuple[int, int]]:
        """By name of a parameter: elements that were not 0 and now are, and how many it has."""
        contents = {id(was.tensor): was.content for was in self.tensors}
        now = dict(self.model.named_parameters())
        found = {}
        for name, parameter in self.parameters.items():
            was = contents.get(id(parameter))
            if was is None or was.layout != torch.strided or was.is_quantized:
                continue
            given = now.get(name, parameter).detach()
            if (was.shape, was.device) != (given.shape, given.device) or same_bits(given, was):
                continue
            count = int(torch.count_nonzero((given == 0) & (was != 0)))
            if count:
                found[name] = (count, was.numel())
        return found


@contextmanager
def untouched(model: nn.Module) -> Iterator[Before]:
    """Whatever happens within, the model and the random state are afterwards as they were before.

    Parameters, buffers, other tensors that it holds, gradients, versions, modes, hooks, attributes
    (also of objects, lists, dictionaries and sets within), its generators, and those of torch,
    Python and NumPy. Tensors keep their identity and their memory; only those that changed are
    written. It does not reach what hides in slots, closures and classes, in threads, or on disk.
    """
    before = Before(model)
    due = owe(before.restore)
    try:
        yield before
    finally:
        due.settle()


@contextmanager
def forgetting(model: nn.Module) -> Iterator[None]:
    """What is left in attributes within is gone afterwards, such as a mask that is kept for later.

    Parameters, buffers, modules, and the values of tensors go on.
    """
    registries = {
        id(vars(module).get(name))
        for module in model.modules()
        for name in ("_parameters", "_buffers", "_modules")
    }
    parts = [
        part
        for part in _parts(reached(model))
        if id(getattr(part, "container", None)) not in registries
    ]
    due = owe(lambda: give_back(parts))
    try:
        yield
    finally:
        due.settle()


def give_back(parts: Iterable[Given]) -> None:
    """Each part, whatever happens to the others; what is interrupted is done again."""
    interrupted: KeyboardInterrupt | None = None
    lost: list[str] = []
    for part in parts:
        for _ in range(8):
            try:
                part.restore()
                break
            except KeyboardInterrupt as error:
                interrupted = error
            except Exception as error:
                lost.append(f"{type(error).__name__}: {error}")
                break
    if interrupted is not None:
        raise interrupted
    if lost:
        warnings.warn(
            f"not all of the model could be given back as it was: {'; '.join(lost[:3])}. Try to "
            "look at a copy of it",
            DropkitWarning,
            stacklevel=4,
        )


def _parts(found: Reached) -> list[_Part]:
    parts: list[_Part] = [_Attributes(owner) for owner in found.owners]
    parts += [_Container(container) for container in found.containers]
    parts += [_State(get, put) for get, put in found.states]
    return parts


class _Contents:
    """What is in a tensor, where it lies, its gradient and its version."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.data = tensor.data
        with torch.no_grad():
            self.content = tensor.detach().clone()
        self.version = None if tensor.is_inference() else tensor._version
        self.grad = tensor.grad if tensor.is_leaf else None
        self.is_leaf, self.requires_grad = tensor.is_leaf, tensor.requires_grad

    def changed(self) -> bool:
        """Whether anything is otherwise; what was written and is the same again counts, too."""
        tensor = self.tensor
        return (
            not _lies_alike(tensor, self.data)
            or (self.version is not None and tensor._version != self.version)
            or (tensor.is_leaf and tensor.grad is not self.grad)
            or (tensor.is_leaf, tensor.requires_grad) != (self.is_leaf, self.requires_grad)
            or not same_bits(self.data, self.content)
        )

    def restore(self) -> None:
        """Values first, then what autograd knows of them."""
        tensor = self.tensor
        with torch.no_grad():
            if not _lies_alike(tensor, self.data):
                tensor.data = self.data
            if not same_bits(self.data, self.content):
                self.data.copy_(self.content)
        if self.is_leaf and not tensor.is_leaf:
            tensor.detach_()  # it was written in place with what has gradients
        if tensor.is_leaf and tensor.grad is not self.grad:
            tensor.grad = self.grad
        if tensor.requires_grad != self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
        if self.version is not None and tensor._version != self.version:
            set_version(tensor, self.version)


def set_version(tensor: Tensor, version: int) -> None:
    """So often was a tensor written into, as far as autograd knows."""
    put: Any = torch._C._autograd._unsafe_set_version_counter
    try:
        put((tensor,), (version,))
    except TypeError:  # before torch 2.7
        put(tensor, version)


def _lies_alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same view of the same memory."""
    if first.layout != torch.strided or first.is_nested:
        return True
    return (
        first.untyped_storage()._cdata == second.untyped_storage()._cdata
        and first.shape == second.shape
        and first.dtype == second.dtype
        and first.stride() == second.stride()
        and first.storage_offset() == second.storage_offset()
    )


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Bit by bit: nan is nan, and -0 is not 0."""
    if first.is_nested:
        return all(map(same_bits, first.unbind(), second.unbind()))
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.layout != torch.strided or first.is_quantized:
        return False  # written, whether it changed or not
    first, second = (torch.view_as_real(x) if x.is_complex() else x for x in (first, second))
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    return torch.equal(first.view(bits), second.view(bits))


class _Attributes:
    """All that stands in a module, or in another object."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.own = dict(vars(owner))
        self.training = owner.training if isinstance(owner, torch.jit.ScriptModule) else None

    def changed(self) -> bool:
        """Whether an attribute is another object."""
        if self.training is not None:  # a mode that is not among the attributes
            return bool(self.owner.training != self.training)
        own = vars(self.owner)
        return own.keys() != self.own.keys() or any(own[k] is not v for k, v in self.own.items())

    def restore(self) -> None:
        """Each attribute is again the object that it was."""
        if not self.changed():
            return
        if self.training is not None:
            self.owner.train(self.training)
            return
        own = vars(self.owner)
        own.clear()
        own.update(self.own)


class _Container:
    """What is in a list, a dictionary, a set or a queue."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.content = container.copy()

    def changed(self) -> bool:
        """Whether it has other content, or in another order."""
        return not is_as(self.container, self.content)

    def restore(self) -> None:
        """It has again the same content, in the same order."""
        if self.changed():
            refill(self.container, self.content)


def refill(container: Any, content: Any) -> None:
    """A list, a dictionary, a set or a queue has this content again."""
    container.clear()
    put: Callable[[Any], None] = getattr(container, "extend", None) or container.update
    put(content)


def is_as(container: Any, content: Any) -> bool:
    """Whether a container holds the same objects, in the same order."""
    if len(container) != len(content):
        return False
    if isinstance(container, Mapping):
        pairs = zip(container.items(), content.items(), strict=True)
        return all(a[0] is b[0] and a[1] is b[1] for a, b in pairs)
    return all(a is b for a, b in zip(container, content, strict=True))


class _State:
    """Of a generator, or an array, that a model holds."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        self.put, self.was = put, get()

    def changed(self) -> bool:
        """Nobody knows, until it is written again."""
        return True

    def restore(self) -> None:
        """It goes on from where it was."""
        self.put(self.was)


class Generators:
    """The states of torch's generators."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        begun: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self.cuda = torch.cuda.get_rng_state_all() if begun else []

    def moved(self) -> bool:
        """Whether somebody drew since."""
        now = Generators()
        pairs = zip((self.cpu, *self.cuda), (now.cpu, *now.cuda), strict=False)
        return not all(torch.equal(a, b) for a, b in pairs)

    def restore(self) -> None:
        """Go on from here."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


class RandomState:
    """Of every generator that all share."""

    def __init__(self) -> None:
        self.torch = Generators()
        self.python = sys.modules["random"].getstate()  # torch has loaded it
        self.numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None

    @property
    def moved_elsewhere(self) -> bool:
        """Whether Python's or NumPy's generator has moved, whose draws no mode of torch sees."""
        now = RandomState()
        numpy = self.numpy is not None and str(now.numpy) != str(self.numpy)
        return now.python != self.python or numpy

    def restore(self) -> None:
        """All of them go on from where they were."""
        self.torch.restore()
        sys.modules["random"].setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
