"""Moves the rates of a plan from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dropkit.errors import SettingError
from dropkit.planning.schedules import Schedule, scheduled, whole


class Rates(Protocol):
    """What a schedule needs of a plan."""

    def __getitem__(self, name: str, /) -> Any:
        """The rates of a name; raises where no site has it."""

    def update(self, rates: Mapping[str, float], /) -> None:
        """Ask for rates by name."""

    def apply(self, *, prove: bool = ...) -> Any:
        """Write what is asked for into the model."""


class RateSchedule:
    """Moves the rates of a plan from step to step, as a learning-rate scheduler moves its own.

    The rates of step 0 are in force from the beginning. After each training step call `step()`. A
    role or path has a schedule of its own; where two name the same site, the later one holds. The
    rates hang on nothing but the number of the step, so that a run that goes on from a saved state
    has, to the bit, those of a run that was never stopped.

    Args:
        plan: `dropkit.rates(model, *inputs)`; it is applied whenever a rate changes.
        schedules: by role or path, as in `plan[name]`, a schedule of `dropkit.schedules` or a rate.
        step: how many training steps are done already.

    Raises:
        SettingError: no schedules, a name that no site of the plan has, what is no schedule.

    >>> from dropkit.planning.schedules import early, linear
    >>> class Noted(dict):  # a plan that only says what was asked of it
    ...     def apply(self, *, prove=True):
    ...         pass
    >>> plan = Noted(attention=0.0, hidden=0.0)
    >>> schedule = RateSchedule(plan, {"attention": linear(0.5, 0.25, 4), "hidden": early(0.3, 1)})
    >>> plan
    {'attention': 0.5, 'hidden': 0.3}
    >>> schedule.step()
    {'attention': 0.4375, 'hidden': 0.0}
    >>> schedule.state_dict()["step"]
    1
    """

    def __init__(
        self, plan: Rates, schedules: Mapping[str, Schedule | float], step: int = 0
    ) -> None:
        if not isinstance(schedules, Mapping) or not schedules:
            raise SettingError(
                "schedules: expected a dictionary of roles or paths with their schedules, such as "
                f'{{"hidden": dropkit.schedules.linear(0.3, 0.0, steps=1000)}}; got {schedules!r}'
            )
        self.plan = plan
        self.schedules = {name: scheduled(schedule) for name, schedule in schedules.items()}
        for name in self.schedules:
            plan[name]  # raises where there is no such site
        self._step = -1
        self.move_to(step)

    @property
    def last_step(self) -> int:
        """The number of the step whose rates are in force."""
        return self._step

    @property
    def rates(self) -> dict[str, float]:
        """The rates that are in force, by role or path."""
        return self.rates_at(self._step)

    def rates_at(self, step: int) -> dict[str, float]:
        """The rates of any step; nothing is changed."""
        return {name: schedule(step) for name, schedule in self.schedules.items()}

    def step(self) -> dict[str, float]:
        """A training step is done: the rates of the next are put in force, and returned."""
        return self.move_to(self._step + 1)

    def move_to(self, step: int) -> dict[str, float]:
        """Put the rates of a step in force, whichever came before, and return them."""
        step = whole("step", step)
        rates = self.rates_at(step)
        if self._step < 0 or rates != self.rates:
            self._write(rates)
        self._step = step
        return rates

    def _write(self, rates: Mapping[str, float]) -> None:
        self.plan.update(rates)
        self.plan.apply(prove=False)

    def state_dict(self) -> dict[str, Any]:
        """Where it is, and what its schedules are, in numbers and text."""
        return {"step": self._step, "schedules": self._told()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, with its rates in force.

        Raises:
            SettingError: it is the state of other names or schedules, or no state at all.
        """
        if not isinstance(state, Mapping) or set(state) != {"step", "schedules"}:
            raise SettingError(f"state: expected what state_dict() gives; got {state!r}")
        self.check(state["schedules"])
        step = whole("state", state["step"])
        self._step = -1  # whatever became of the model in between, its rates are written anew
        self.move_to(step)

    def check(self, told: Mapping[str, str]) -> None:
        """Whether a state is of these schedules.

        Raises:
            SettingError: it is of others; which are told.
        """
        mine = self._told()
        if not isinstance(told, Mapping):
            raise SettingError(f"state: expected schedules by name; got {told!r}")
        if list(told.items()) == list(mine.items()):
            return
        names = [name for name in dict.fromkeys([*told, *mine]) if told.get(name) != mine.get(name)]
        if not names:
            raise SettingError(
                f"state: expected the schedules in the order {', '.join(mine)}; got "
                f"{', '.join(told)}. Of two that name one site the later holds"
            )
        raise SettingError(
            "state: expected one of the same schedules; "
            + "; ".join(
                f"{n}: here {mine.get(n, 'none')}, saved {told.get(n, 'none')}" for n in names
            )
            + ". Make the schedules of the saved run, or begin anew without its state"
        )

    def _told(self) -> dict[str, str]:
        return {name: str(schedule) for name, schedule in self.schedules.items()}

    def __repr__(self) -> str:
        told = ", ".join(f"{name}: {text}" for name, text in self._told().items())
        return f"RateSchedule({{{told}}}, step={self._step})"
