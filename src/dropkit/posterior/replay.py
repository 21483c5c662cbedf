"""Does again what a tape holds: for one draw, or for several at once under `torch.vmap`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
        self._steps = _needed(tape.steps, wanted)
        self._runs = list(_runs(self._steps, wanted))
        self._last = _last_uses(self._steps, wanted)
        self._last_runs = _last_uses(self._runs, wanted)
        self.hangs = bool(wanted)
        """Whether any output hangs on a draw."""

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
        def body(*given: Tensor) -> tuple[Tensor, ...]:
            inner: Values = dict(zip(run.needs, given, strict=True))
            view = _aten.view.default if self.tape.writes else _aten.reshape.default
            for step in run.steps:
                self._do(step, inner, view)
            return tuple(inner[number] for number in run.gives)

        given = tuple(values[number] for number in run.needs)
        if not given:  # a constant, seen otherwise
            values.update(
                (n, x.expand(count, *x.shape)) for n, x in zip(run.gives, body(), strict=True)
            )
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            results = torch.vmap(body, randomness="different")(*given)
        values.update(zip(run.gives, results, strict=True))

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


def _needed(steps: Sequence[Step | Drawing], wanted: set[int]) -> list[Step | Drawing]:
    """Steps on which the outputs hang, in order; what writes is kept."""
    needs, kept = set(wanted), []
    for step in reversed(steps):
        if needs.isdisjoint(_gives(step)):
            continue
        kept.append(step)
        needs.update(_uses(step))
    return kept[::-1]


def _uses(step: Step | Drawing | _Run) -> set[int]:
    if isinstance(step, _Run):
        return set(step.needs)
    kwargs = step.kwargs if isinstance(step, Step) else {}
    return {slot.number for slot in _slots((*step.args, *kwargs.values()))}


def _slots(values: Any) -> Iterator[Slot]:
    for value in values:
        if isinstance(value, Slot):
            yield value
        elif isinstance(value, tuple | list):
            yield from _slots(value)


def _gives(step: Step | Drawing | _Run) -> set[int]:
    if isinstance(step, _Run):
        return set(step.gives)
    return {step.out} if isinstance(step, Drawing) else {n for n in step.outs if n is not None}


def _last_uses(steps: Sequence[Step | Drawing | _Run], wanted: set[int]) -> list[list[int]]:
    """For each step: the values that nothing needs behind it."""
    found: list[list[int]] = []
    needed = set(wanted)
    for step in reversed(steps):
        last = (_uses(step) | _gives(step)) - needed
        found.append(sorted(last))
        needed |= last
    return found[::-1]


def _runs(steps: Sequence[Step | Drawing], wanted: set[int]) -> Iterator[Drawing | _Run]:
    """The drawings, and what lies between them as one."""
    later: list[set[int]] = []
    needed = set(wanted)
    for step in reversed(steps):
        later.append(set(needed))
        needed |= _uses(step)
    later.reverse()
    between: list[Step] = []
    for at, step in enumerate(steps):
        if isinstance(step, Step):
            between.append(step)
            if at + 1 < len(steps) and isinstance(steps[at + 1], Step):
                continue
            given = set().union(*map(_gives, between))
            needs = set().union(*map(_uses, between)) - given
            yield _Run(tuple(between), tuple(sorted(needs)), tuple(sorted(given & later[at])))
            between = []
        else:
            yield step
