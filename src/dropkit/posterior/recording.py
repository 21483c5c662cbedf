"""Notes what a model does with what is drawn, so that only that has to be done again.

A pass is run once, and every operator that torch dispatches is looked at. What hangs on a draw is
noted, with what it was given; all else is the prefix, and its values are kept as constants. A step
that writes into memory becomes one that gives a new value, as `torch.func.functionalize` has it.

What cannot be noted is said: then a pass has to be run for each draw. That is so where Python looks
at a drawn value, and where a shape hangs on one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dropkit.intercept.facts import Facts, facts
from dropkit.intercept.process import Ends
from dropkit.kernel import operators
from dropkit.posterior.laws import Law
from dropkit.posterior.rewriting import (
    ATTENTION,
    Attention,
    Copy,
    Keys,
    Partly,
    Position,
    Written,
    giving,
    twin,
)
from dropkit.posterior.tape import Constant, Drawing, Given, Slot, Step, Tape

_PLAIN = (Tensor, nn.Parameter)
_PLAIN_VALUES = (int, float, bool, type(None))
_KEY = operators.draw_key_op
_aten = torch.ops.aten


@dataclass(slots=True, eq=False)
class _Memory:
    """A storage in which a value lies that hangs on a draw."""

    hold: Any
    """As long as it is there, no other storage has the same address."""
    version: int = 0
    base: int | None = None
    """The number of the value that fills it, laid out without gaps."""
    owned: bool = False
    """Whether steps may write into that value: it is a copy, which nobody needs as it is."""


@dataclass(slots=True, eq=False)
class _Known:
    """A tensor of the pass, and the value that it holds."""

    tensor: weakref.ref[Tensor]
    number: int
    storage: int
    memory: _Memory
    version: int


class Recorder(Ends, TorchDispatchMode):
    """Looks at each operator of a pass."""

    def __init__(self, key: int, draw: int) -> None:
        """`key` names all draws, of which this is the one with the number `draw`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = Tape()
        self.route = 0
        """All operators that ran, in order, and the truth of what Python asked, as one number."""
        self.asked = self.told = False
        """Whether Python asked for a value that hangs on no draw; and if it was told more than a
        truth: then nobody knows what it made of it."""
        self._known: dict[int, _Known] = {}
        self._memory: dict[int, _Memory] = {}
        self._kept: dict[int, tuple[Tensor, int]] = {}
        """By identity of a tensor: it, and the number of the constant."""
        self._changed: set[int] = set()
        """Storages that the pass wrote into: the next one may do so, too."""
        self._lying: dict[int, list[int]] = {}
        """By storage: constants that lie there, and must not change."""
        self._key, self._draw, self._keys = key, draw, 0
        self.noticed: Callable[[], None] = lambda: None
        """Told of each draw that no site is asked for."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled while it looks on, and what sees to that takes its time

    # ---- what comes from outside

    def draw(self, law: Law, values: Sequence[Tensor]) -> Tensor:
        """A site acts: its value for a draw."""
        with _disable_current_modes():
            result = law(self._draw, 1, *(value.unsqueeze(0) for value in values)).squeeze(0)
        args = tuple(self._given(value) for value in values)
        self.tape.steps.append(Drawing(law, args, self._made(result, ())))
        return result

    def read(self, values: Tensor) -> None:
        """Values go to what is not torch."""
        if self._hangs(values):
            self._cannot("a value that was drawn is read by what is not torch")
        elif self.sure:
            self.asked = self.told = True

    @property
    def sure(self) -> bool:
        """Whether the way of the model hangs on no draw, as far as it was seen until now."""
        return not self.tape.why_not

    def outputs(self, values: Sequence[Any]) -> list[Given]:
        """What the pass gave: of each tensor, the value that it holds."""
        return [self._given(value) if isinstance(value, Tensor) else value for value in values]

    # ---- operators

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and note it if it hangs on a draw."""
        kwargs = kwargs or {}
        if self.sure:
            self.route = hash((self.route, func))
        if func is _KEY:
            return self._next_key(args[0].device)
        known = facts(func)
        drawn = known.seeded and _draws(func, known, args, kwargs)
        if drawn:
            self.noticed()
        if self.tape.why_not:
            return func(*args, **kwargs)
        if not drawn and not self._memory:  # nothing was drawn yet
            if known.mutates:
                self._changed.update(map(_storage, _written(func, args, kwargs)))
            result = func(*args, **kwargs)
            if known.escapes:
                self._tell(func, args, result)
            return result
        given = _tensors(args, kwargs)
        near = {self._storage(x) for x in given}
        hot = drawn or not near.isdisjoint(self._memory)
        if hot and any(type(x) not in _PLAIN for x in given):
            self._cannot("a tensor of a class of its own")
            return func(*args, **kwargs)
        if hot and known.escapes and self._escapes(func, args):
            self._cannot(f"Python, or a shape, hangs on a drawn value ({func.name()})")
            return func(*args, **kwargs)
        self.tape.seeded |= drawn
        if known.mutates:
            return self._write(func, args, kwargs, hot)
        result = func(*args, **kwargs)
        if hot:
            self._note(func, args, kwargs, result, near, drawn)
        elif known.escapes:
            self._tell(func, args, result)
        return result

    def _next_key(self, device: torch.device) -> Tensor:
        """A layer of dropkit's asks for a key."""
        self.noticed()
        law = Keys(self._key, self._keys, device)
        self._keys += 1
        return self.draw(law, ())

    def _escapes(self, func: Any, args: tuple[Any, ...]) -> bool:
        return func is not _aten.index.Tensor or any(map(self._hangs, _masks(args)))

    def _tell(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Python is told a value, or has a shape, on which the way of the model may hang."""
        if func is _aten.index.Tensor and not _masks(args):
            return
        self.asked = True
        if isinstance(result, bool):
            self.route = hash((self.route, result))
        else:
            self.told = True

    def _note(
        self, func: Any, args: Any, kwargs: Any, result: Any, near: Collection[int], drawn: bool
    ) -> None:
        many = isinstance(result, tuple | list)
        parts = result if many else (result,)
        used = tuple(x if type(x) in _PLAIN_VALUES else self._all_given(x) for x in args)
        named = self._all_given(kwargs) if kwargs else {}
        outs = tuple(self._made(x, near) if isinstance(x, Tensor) else None for x in parts)
        if func is ATTENTION:  # for which vmap has no rule
            tensors = [*used[:3], *(mask for mask in [named.pop("attn_mask", None)] if mask)]
            law = Attention(used[3:], named)
            self.tape.steps.append(Drawing(law, tuple(tensors), outs[0] or 0))
            return
        self.tape.steps.append(Step(func, used, named, outs, many, drawn))

    def _made(self, tensor: Tensor, given: Collection[int]) -> int:
        """A new value, which a tensor holds. `given`: storages of what it was made of."""
        number = self._number(tensor)
        storage = _storage(tensor)
        memory = self._memory.get(storage) if storage in given else None
        if memory is None:
            base = number if tensor.is_contiguous() and _fills(tensor) else None
            memory = self._memory[storage] = _Memory(_held(tensor), base=base)
        known = _Known(weakref.ref(tensor), number, storage, memory, memory.version)
        self._known[id(tensor)] = known
        return number

    def _number(self, tensor: Tensor | None) -> int:
        """A number for a value of such a size; None: it lies in the memory of another."""
        self.tape.sizes.append(0 if tensor is None else tensor.numel() * tensor.element_size())
        return len(self.tape.sizes) - 1

    def _know(self, tensor: Tensor, number: int) -> None:
        storage = _storage(tensor)
        memory = self._memory[storage]
        known = _Known(weakref.ref(tensor), number, storage, memory, memory.version)
        self._known[id(tensor)] = known

    # ---- values

    def _hangs(self, tensor: Tensor) -> bool:
        return self._storage(tensor) in self._memory

    def _storage(self, tensor: Tensor) -> int:
        """Of a tensor; for one that is known it need not be asked."""
        known = self._known.get(id(tensor))
        return known.storage if known and known.tensor() is tensor else _storage(tensor)

    def _all_given(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._given(value)
        if isinstance(value, tuple | list):
            return type(value)(self._all_given(part) for part in value)
        if isinstance(value, dict):
            return {name: self._all_given(part) for name, part in value.items()}
        return value

    def _given(self, tensor: Tensor) -> Given:
        """The value that a tensor holds now."""
        known = self._known.get(id(tensor))
        if known and known.tensor() is tensor and known.version == known.memory.version:
            return Slot(known.number)
        memory = self._memory.get(_storage(tensor))
        if memory is None:
            return self._constant(tensor)
        if memory.base is None:
            self._cannot("a view of what is written into in parts")
            return self._constant(tensor)
        whole = _fills(tensor) and tensor.is_contiguous()
        run = _aten.view.default if whole else _aten.as_strided.default
        place = (list(tensor.shape),) if whole else _place(tensor)
        number = self._number(None)
        self._know(tensor, number)
        self.tape.steps.append(Step(run, (Slot(memory.base), *place), {}, (number,)))
        return Slot(number)

    def _constant(self, tensor: Tensor) -> Constant:
        held = self._kept.get(id(tensor))
        if held is not None and held[0] is tensor:
            return Constant(held[1])
        number, kept = len(self.tape.constants), tensor
        if _storage(tensor) in self._changed:
            with _disable_current_modes():
                kept = tensor.clone()
        else:
            self._lying.setdefault(_storage(tensor), []).append(number)
        self._kept[id(tensor)] = tensor, number
        self.tape.constants.append(kept)
        return Constant(number)

    # ---- writing

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], hot: bool) -> Any:
        """An operator that writes into what it is given."""
        written = [x for x in _written(func, args, kwargs) if isinstance(x, Tensor)]
        if not hot:
            for tensor in written:
                self._save(tensor)
            return func(*args, **kwargs)
        if len(written) != 1:
            self._cannot(f"several values are written into ({func.name()})")
            return func(*args, **kwargs)
        target = written[0]
        if kwargs.get("out") is target and (other := giving(func)) is not None:
            return self._give(func, args, kwargs, other)
        if _fills(target):
            return self._replace(func, args, kwargs, target)
        return self._write_part(func, args, kwargs, target)

    def _give(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], other: Any) -> Any:
        """A result is written where the caller said: it is given, and copied there."""
        target: Tensor = kwargs["out"]
        named = {name: value for name, value in kwargs.items() if name != "out"}
        given, number = self._all_given(args), self._number(target)
        self.tape.steps.append(Step(other, given, self._all_given(named), (number,)))
        if _fills(target):
            step = Step(_aten.expand_copy.default, (Slot(number), list(target.shape)), {}, ())
            return self._rewritten(func, args, kwargs, target, step)
        base = self._base(target)
        if base is None:
            self._cannot(f"a part of a value of odd layout is written into ({func.name()})")
            return func(*args, **kwargs)
        part = Partly(_aten.copy_.default, 0, *_place(target))
        step = Step(part, (Slot(base), Slot(number)), {}, ())
        return self._rewritten(func, args, kwargs, target, step, part=True)

    def _rewritten(
        self, func: Any, args: Any, kwargs: Any, target: Tensor, step: Step, *, part: bool = False
    ) -> Any:
        """Run what writes, and note the step that gives what then fills the storage."""
        self._save(target)
        result = func(*args, **kwargs)
        number = self._number(None if part else target)
        filled = number if part or target.is_contiguous() else None
        self._rebase(target, filled, owned=part)
        if not part:
            self._know(target, number)
        self.tape.steps.append(replace(step, outs=(number,)))
        self.tape.writes |= part
        return result

    def _save(self, tensor: Tensor) -> None:
        """Constants that lie where is written are kept as they are."""
        storage = _storage(tensor)
        self._changed.add(storage)
        numbers = set(self._lying.pop(storage, ()))
        for number in numbers:
            with _disable_current_modes():
                self.tape.constants[number] = self.tape.constants[number].clone()
        if numbers:
            self._kept = {key: one for key, one in self._kept.items() if one[1] not in numbers}

    def _replace(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: Tensor
    ) -> Any:
        """All of a storage is written: its value is another one."""
        step = Step(*self._functional(func, args, kwargs, target), ())
        return self._rewritten(func, args, kwargs, target, step)

    def _functional(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: Tensor
    ) -> tuple[Any, Any, Any]:
        """What gives the value that an operator writes."""
        alike = all(x.dtype == target.dtype for x in _tensors(args, kwargs))
        if func is _aten.copy_.default and alike:
            return _aten.expand.default, (self._given(args[1]), list(target.shape)), {}
        used, named = self._all_given(args), self._all_given(kwargs)
        other = twin(func) if alike and args and args[0] is target else None
        return other or Written(func, _position(args, kwargs, target)), used, named

    def _rebase(self, target: Tensor, number: int | None, *, owned: bool) -> None:
        storage = _storage(target)
        memory = self._memory.get(storage)
        if memory is None:
            memory = self._memory[storage] = _Memory(_held(target))
        memory.version += 1
        memory.base, memory.owned = number, owned

    def _write_part(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: Tensor
    ) -> Any:
        """A part of a storage is written: of what fills it a copy is made, and written into."""
        base = self._base(target)
        if base is None:
            self._cannot(f"a part of a value of odd layout is written into ({func.name()})")
            return func(*args, **kwargs)
        at = _position(args, kwargs, target)
        given: dict[Position, Any] = dict(enumerate(self._all_given(args)))
        given.update(self._all_given(kwargs))
        given[at] = Slot(base)
        places = tuple(given.pop(place) for place in range(len(args)))
        named = {str(name): value for name, value in given.items()}
        step = Step(Partly(func, at, *_place(target)), places, named, ())
        return self._rewritten(func, args, kwargs, target, step, part=True)

    def _base(self, target: Tensor) -> int | None:
        """The number of a value that fills the storage, and may be written into."""
        memory = self._memory.get(_storage(target))
        if memory is not None and (memory.base is None or memory.owned):
            return memory.base
        source: Given
        if memory is None:
            storage = target.untyped_storage()
            with _disable_current_modes():
                flat = torch.empty(0, dtype=target.dtype, device=target.device)
                flat.set_(storage, 0, (storage.nbytes() // target.element_size(),), (1,))
                whole = flat.clone()
            source, number = self._constant(whole), self._number(whole)
        else:
            source, number = Slot(memory.base or 0), self._number(None)
            self.tape.sizes[number] = self.tape.sizes[memory.base or 0]
        self.tape.steps.append(Drawing(Copy(), (source,), number))
        return number

    def _cannot(self, why: str) -> None:
        self.tape.why_not = self.tape.why_not or why


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]
    except (NotImplementedError, RuntimeError):  # sparse, and others without one memory
        return -id(tensor)


def _held(tensor: Tensor) -> Any:
    """The address of its memory, which no other gets meanwhile; the memory itself may go."""
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError):
        return tensor


def _fills(tensor: Tensor) -> bool:
    """Whether it lies without gaps over all of its storage."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return False
    if tensor.numel() * tensor.element_size() != tensor.untyped_storage().nbytes():
        return False
    if tensor.is_contiguous():
        return True
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != reach:
            return False
        reach *= size
    return True


def _place(tensor: Tensor) -> tuple[list[int], list[int], int]:
    """Where in its storage it lies."""
    return list(tensor.shape), list(tensor.stride()), int(tensor.storage_offset())


def _masks(args: tuple[Any, ...]) -> list[Tensor]:
    """Those among the indices whose values say how long the result is."""
    return [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]


def _draws(func: Any, known: Facts, args: Any, kwargs: Any) -> bool:
    """Whether a call draws from torch's own generator; what is dropkit's draws from keys."""
    drawn = known.draws(args, kwargs) or known.dropped(args, kwargs) is not None
    return drawn and func.namespace != "dropkit"


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(part for part in value if isinstance(part, Tensor))
    return found


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What an operator writes into."""
    found: list[Any] = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            found.extend(value if isinstance(value, tuple | list) else [value])
    return found


def _position(args: tuple[Any, ...], kwargs: dict[str, Any], target: Tensor) -> Position:
    """Where an operator is given a tensor."""
    given: dict[Position, Any] = dict(enumerate(args))
    given.update(kwargs)
    return next(at for at, value in given.items() if value is target)
