"""What a plan has changed in a model, and how it is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dropkit.errors import SettingError
from dropkit.intercept import attach, detach
from dropkit.intercept.numbers import Number
from dropkit.planning.levers import Lever
from dropkit.planning.turning import Turn, compile_anew


@dataclass(frozen=True, slots=True)
class Touched:
    """One thing of a model that a plan has changed."""

    what: str
    """The path of an attribute, or of a module whose calls are given other rates."""
    was: float
    now: float
    at: str = ""
    """File and line, where a call is given another rate."""

    def __str__(self) -> str:
        where = f"{self.what} at {self.at}" if self.at else self.what
        return f"{where}: {self.was:.4g} -> {self.now:.4g}"


@dataclass(slots=True)
class _Wanted:
    """What is to be changed."""

    numbers: dict[Number, float]
    calls: list[tuple[Lever, float]]
    """With the rate that each call comes with."""


class Moved:
    """Changes nothing at first."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._before: dict[Number, float] = {}
        self._turns: dict[nn.Module, Turn] = {}
        self._touched: list[Touched] = []

    @property
    def touched(self) -> tuple[Touched, ...]:
        """Everything that is not as it was."""
        numbers = (Touched(n.path, was, n.value) for n, was in self._before.items())
        return (*numbers, *self._touched)

    def move(self, levers: Sequence[Lever], *, compiled: bool) -> None:
        """The model has the rates that are asked; what is not asked any more is given back.

        Args:
            levers: all of the model.
            compiled: whether its numbers stay as they are, since a compiler has read them.

        Raises:
            SettingError: two sites that hang on one number are asked for two rates.
        """
        wanted = _wanted(levers, self._before, compiled=compiled)
        turns = self._planned(_with_others(wanted.calls, levers), compiled=compiled)
        for number in [*self._before]:
            if number not in wanted.numbers:
                number.write(self._before.pop(number))
        for number, value in wanted.numbers.items():
            if number.value != value:
                self._before.setdefault(number, number.held)
                number.write(value)
        if turns.keys() - self._turns.keys():
            compile_anew()
        self._turn(turns, compiled=compiled)
        self._touched = [
            Touched(lever.path or "the model itself", given, lever.wanted, str(lever.site.place))
            for lever, given in wanted.calls
            if lever.wanted != given
        ]

    def restore(self) -> None:
        """The model is as it was."""
        for number in [*self._before]:
            number.write(self._before.pop(number))
        self._turn({})
        self._touched = []

    def _planned(
        self, calls: Iterable[tuple[Lever, float]], *, compiled: bool
    ) -> dict[nn.Module, Turn]:
        """By module: what its own calls are given."""
        turns: dict[nn.Module, Turn] = {}
        for lever, given in calls:
            module = part(self.model, lever)
            turn = turns.setdefault(module, Turn(module))
            moved = lever.wanted != lever.rate
            if not turn.ask(lever.key[1:], given, lever.wanted, moved=moved) and compiled:
                raise SettingError(
                    f"{lever.name}: expected one rate for calls that a compiler cannot tell apart, "
                    f"of one module at a rate of {given:g}; got {lever.wanted:g} and another. "
                    "Try compiled=False, and compile after the plan is applied"
                )
        return turns

    def _turn(self, turns: dict[nn.Module, Turn], *, compiled: bool = False) -> None:
        """Those and no others; what programs know stays the same, all else is seen to be new."""
        for module in [*self._turns]:
            if module not in turns:
                detach(module, self._turns.pop(module))
        for module, turn in turns.items():
            there = self._turns.get(module)
            if there is not None and compiled:
                there.take(turn)
            elif there is None or (there.asked, there.held) != (turn.asked, turn.held):
                if there is not None:
                    detach(module, there)
                self._turns[module] = turn
                attach(module, turn, parts=False)


def part(model: nn.Module, lever: Lever) -> nn.Module:
    """The module that a lever's calls are made in.

    Raises:
        SettingError: the model does not have it as a part.
    """
    try:
        return model.get_submodule(lever.path)
    except AttributeError:
        raise SettingError(
            f"expected rates of modules that the model has as its parts; {lever.name} at "
            f"{lever.site.place} is held in a list, or made as the model runs. Try nn.ModuleList, "
            "or leave it at its own rate"
        ) from None


def _wanted(levers: Sequence[Lever], before: Mapping[Number, float], *, compiled: bool) -> _Wanted:
    wanted = _Wanted({}, [])
    stays = compiled or any(lever.derived for lever in levers)
    for number, group in _by_number(levers):
        free = [lever for lever in group if lever.at_call]
        bound = [lever for lever in group if not lever.at_call]
        if number is not None and not stays and len({lever.wanted for lever in group}) == 1:
            free, bound = [], group
        own = 0.0 if number is None else before.get(number, number.value)
        value = _agreed(bound, own)
        if number is not None and value != own:
            wanted.numbers[number] = value
        for lever in free:
            moved = value if lever.sign > 0 else 1 - value
            given = lever.rate if value == own else moved
            if compiled or lever.wanted != given:
                wanted.calls.append((lever, given))
    return wanted


def _with_others(
    calls: Sequence[tuple[Lever, float]], levers: Sequence[Lever]
) -> list[tuple[Lever, float]]:
    """With what the same modules call and is left as it is: it has to be told from the others."""
    paths, moved = {lever.path for lever, _ in calls}, {lever for lever, _ in calls}
    others = (lever for lever in levers if lever.at_call and lever.path in paths)
    return [*calls, *((lever, lever.wanted) for lever in others if lever not in moved)]


def _by_number(levers: Iterable[Lever]) -> Iterator[tuple[Number | None, list[Lever]]]:
    groups: dict[Number | None, list[Lever]] = {}
    for lever in levers:
        if lever.moves:
            groups.setdefault(lever.number, []).append(lever)
    yield from groups.items()


def _agreed(levers: Sequence[Lever], own: float) -> float:
    """What a number has to be for the sites that nothing else moves."""
    for other in levers[1:]:
        if other.wanted != levers[0].wanted:
            raise SettingError(
                f"expected one rate for {levers[0].name} and {other.name}, which hang on one "
                f"number ({other.site.holder}); got {levers[0].wanted:g} and {other.wanted:g}"
            )
    if not levers or levers[0].wanted == levers[0].rate:
        return own
    return levers[0].wanted if levers[0].sign > 0 else 1 - levers[0].wanted
