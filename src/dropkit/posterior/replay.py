"""Does again what a tape holds: for one draw, or for several at once as `torch.vmap` has it.

Its levels are entered by hand. So a site is outside of them, where it sees all draws as one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.vmap import vmap_increment_nesting

from dropkit.posterior.tape import Constant, Drawing, Given, Slot, Step, Tape

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)
"""Under vmap values lie otherwise in memory; what can be seen as a shape may have to be copied."""

Values = dict[int, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Steps between two drawings, which one call of vmap does for all draws."""

    steps: tuple[Step, ...]
    needs: tuple[int, ...]
    gives: tuple[int, ...]


class Replay:
    """A tape, ready to be done again."""

    def __init__(self, tape: Tape, outputs: Sequence[Given]) -> None:
        self.tape = tape
        self.outputs = tuple(outputs)
        wanted = {out.number for out in outputs if isinstance(out, Slot)}
        steps = _needed([_Ties(step) for step in tape.steps], wanted)
        runs = list(_runs(steps, wanted))
        self._steps = [one.step for one in steps if not isinstance(one.step, _Run)]
        self._runs = [one.step for one in runs if not isinstance(one.step, Step)]
        self._last, self._last_runs = _last_uses(steps, wanted), _last_uses(runs, wanted)

    @property
    def foldable(self) -> bool:
        """Whether several draws can be done at once."""
        return not self.tape.seeded

    def peak(self) -> int:
        """Bytes that one draw takes, at its most."""
        now = most = 0
        for at, step in enumerate(self._steps):
            now += sum(self.tape.sizes[number] for number in _gives(step))
            most = max(most, now)
            now -= sum(self.tape.sizes[number] for number in self._last[at])
        return most

    def one(self, draw: int) -> list[Given]:
        """The outputs of a draw."""
        values: Values = {}
        for at, step in enumerate(self._steps):
            if isinstance(step, Drawing):
                given = (self._get(value, values).unsqueeze(0) for value in step.args)
                values[step.out] = step.law(draw, 1, *given).squeeze(0)
            else:
                self._do(step, values, _aten.view.default)
            for number in self._last[at]:
                values.pop(number, None)
        return [self._get(out, values) for out in self.outputs]

    def many(self, first: int, count: int) -> list[Given]:
        """The outputs of the draws first, first + 1, ..., each (count, ...)."""
        values: Values = {}
        for at, step in enumerate(self._runs):
            if isinstance(step, Drawing):
                given = (self._each(value, values, count) for value in step.args)
                values[step.out] = step.law(first, count, *given)
            else:
                self._vmapped(step, values, count)
            for number in self._last_runs[at]:
                values.pop(number, None)
        return [
            self._each(out, values, count) if isinstance(out, Slot | Constant) else out
            for out in self.outputs
        ]

    # ---- one step

    def _vmapped(self, run: _Run, values: Values, count: int) -> None:
        view = _aten.view.default if self.tape.writes else _aten.reshape.default
        with _unwarned(), vmap_increment_nesting(count, "different") as level:
            inner = {
                number: _functorch._add_batch_dim(values[number], 0, level) for number in run.needs
            }
            for step in run.steps:
                self._do(step, inner, view)
            for number in run.gives:
                values[number] = _functorch._remove_batch_dim(inner[number], level, count, 0)

    def _do(self, step: Step, values: Values, view: Any) -> None:
        args = tuple(self._get(value, values) for value in step.args)
        kwargs = {name: self._get(value, values) for name, value in step.kwargs.items()}
        result = (view if step.run in _VIEWS else step.run)(*args, **kwargs)
        parts = result if step.many else (result,)
        for number, part in zip(step.outs, parts, strict=True):
            if number is not None:
                values[number] = part

    def _get(self, given: Given, values: Values) -> Any:
        if isinstance(given, Slot):
            return values[given.number]
        if isinstance(given, Constant):
            return self.tape.constants[given.number]
        if isinstance(given, tuple | list):
            return type(given)(self._get(part, values) for part in given)
        return given

    def _each(self, given: Given, values: Values, count: int) -> Tensor:
        value: Tensor = self._get(given, values)
        return value if isinstance(given, Slot) else value.expand(count, *value.shape)


@contextmanager
def _unwarned() -> Iterator[None]:
    """What an operator without a rule costs was measured, and need not be said."""
    warn: Any = vars(_functorch)["_set_vmap_fallback_warning_enabled"]
    warn(False)
    try:
        yield
    finally:
        warn(True)  # as torch has it at first; nobody can ask


class _Ties:
    """A step, with the numbers of what it needs and gives."""

    __slots__ = ("gives", "seeded", "step", "uses")

    def __init__(self, step: Step | Drawing | _Run) -> None:
        self.step = step
        self.seeded = isinstance(step, Step) and step.seeded
        self.uses = set(step.needs) if isinstance(step, _Run) else _uses(step)
        self.gives = set(step.gives) if isinstance(step, _Run) else _gives(step)


def _needed(steps: Sequence[_Ties], wanted: set[int]) -> list[_Ties]:
    """Steps on which the outputs hang, in order."""
    needs, kept = set(wanted), []
    for one in reversed(steps):
        if not needs.isdisjoint(one.gives) or one.seeded:
            kept.append(one)
            needs |= one.uses
    return kept[::-1]


def _uses(step: Step | Drawing) -> set[int]:
    kwargs = step.kwargs if isinstance(step, Step) else {}
    return {slot.number for slot in _slots((*step.args, *kwargs.values()))}


def _slots(values: Any) -> Iterator[Slot]:
    for value in values:
        if isinstance(value, Slot):
            yield value
        elif isinstance(value, tuple | list):
            yield from _slots(value)


def _gives(step: Step | Drawing) -> set[int]:
    return {step.out} if isinstance(step, Drawing) else {n for n in step.outs if n is not None}


def _last_uses(steps: Sequence[_Ties], wanted: set[int]) -> list[list[int]]:
    """For each step: the values that nothing needs behind it."""
    found: list[list[int]] = []
    needed = set(wanted)
    for one in reversed(steps):
        last = (one.uses | one.gives) - needed
        found.append(sorted(last))
        needed |= last
    return found[::-1]


def _runs(steps: Sequence[_Ties], wanted: set[int]) -> Iterator[_Ties]:
    """The drawings, and what lies between them as one."""
    later: list[set[int]] = []
    needed = set(wanted)
    for one in reversed(steps):
        later.append(set(needed))
        needed |= one.uses
    later.reverse()
    between: list[_Ties] = []
    for at, one in enumerate(steps):
        if isinstance(one.step, Drawing):
            yield one
            continue
        between.append(one)
        if at + 1 == len(steps) or isinstance(steps[at + 1].step, Drawing):
            gives = set().union(*(part.gives for part in between))
            needs = set().union(*(part.uses for part in between)) - gives
            inner = tuple(part.step for part in between if isinstance(part.step, Step))
            yield _Ties(_Run(inner, tuple(sorted(needs)), tuple(sorted(gives & later[at]))))
            between = []
