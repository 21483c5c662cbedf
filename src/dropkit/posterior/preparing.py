"""What has to be known of a model before it can be sampled; found once, for as long as it stays.

Which modules have to be opened, because their dropout is not even called in evaluation mode; where
dropout is put in; which axis of a site is that of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dropkit.errors import SamplingError, SettingError
from dropkit.inspection.passes import mapped, said, tensors
from dropkit.intercept.leaving import leaving
from dropkit.intercept.trace import Where
from dropkit.posterior.choosing import (
    Choice,
    Plan,
    Rates,
    drops,
    fingerprint,
    form_of,
    found,
    is_chosen,
    plan,
)
from dropkit.posterior.directing import Directing
from dropkit.posterior.inserting import inserted
from dropkit.posterior.options import Scope
from dropkit.posterior.recording import Recorder
from dropkit.posterior.running import Route, Runner, Way

NEW: Route = (-1, -1, -1)
"""A route that no model goes: it is looked at with these inputs, whatever is known."""
_PLANS = 16
"""Ways that a model may go with inputs of one form, and be remembered."""
_CHANCES = 6
"""Passes before a site is taken for silent, where layers are left out at random."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which sites are to act, and how."""

    sites: Choice = None
    rates: Rates = None
    insert: Rates = None
    scope: Scope = "element"
    batch_axis: int = 0
    method: str = "forward"

    @property
    def name(self) -> Any:
        """Equal for equal wishes; None: nobody knows, since a function is among them."""
        if callable(self.sites):
            return None
        told = (self.sites, self.rates, self.insert, self.scope, self.batch_axis, self.method)
        return tuple(map(str, told))


@dataclass(slots=True, eq=False)
class _Learned:
    form: Any
    plans: dict[Any, list[Plan]]
    """The one that was used last comes last."""
    ways: dict[Any, Way]


_learned: WeakKeyDictionary[nn.Module, _Learned] = WeakKeyDictionary()


def prepared(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    asked: Asked,
    *,
    route: Route | None = None,
) -> tuple[Plan, Way]:
    """The plan for a model, and what is known of how to run it with inputs of this form.

    Args:
        model, args, kwargs: what is called, and with what.
        asked: which sites are to act, and how.
        route: the way that the model goes with these inputs, where it is not the one of last time.
    """
    form = fingerprint(model)
    known = _learned.get(model)
    if known is None or known.form != form:
        known = _learned[model] = _Learned(form, {}, {})
    name = asked.name, form_of(args, kwargs)
    plans = known.plans.setdefault(name, []) if asked.name is not None else []
    there = [one for one in plans if route is None or route == (*one.route, one.trained)]
    made = there[-1] if there else None
    if made is None:
        made = _Preparation(model, args, kwargs, asked, route is not None).plan()
    plans[:] = [*(one for one in plans if one is not made), made][-_PLANS:]
    sizes = tuple((x.shape, x.dtype, x.device) for x in tensors((args, dict(kwargs))))
    state = name, sizes, torch.is_autocast_enabled(), torch.get_num_threads(), id(made)
    return made, known.ways.setdefault(state, Way()) if asked.name is not None else Way()


def called(model: nn.Module, name: str) -> Any:
    """What is called: the model itself, or a method of it.

    Raises:
        SettingError: it has no such method.
    """
    if name == "forward":
        return model
    call = getattr(model, name, None)
    if not callable(call):
        raise SettingError(f"method: expected one of {type(model).__name__}'s; got {name!r}")
    return call


@dataclass(frozen=True, slots=True, eq=False)
class _Preparation:
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    asked: Asked
    anew: bool = False

    def plan(self) -> Plan:
        """All of it."""
        asked = self.asked
        made = self._chosen() if asked.insert is None else self._inserted()
        steered = self._opened(made)
        self._moved(made, steered)
        if asked.scope != "element":
            self._shared(made, steered)
        runner = self._runner(made)
        made.trained = runner.trained()
        made.shapes.add(runner.shapes)
        return made

    def _chosen(self) -> Plan:
        sites = found(self.model, self.args, self.kwargs, self.asked.method, anew=self.anew)
        return plan(type(self.model).__name__, sites, self.asked.sites, self.asked.rates)

    def _inserted(self) -> Plan:
        """Sites that the model has, if it has any, and those that are put in."""
        name, choice = type(self.model).__name__, self.asked.sites
        sites = found(self.model, self.args, self.kwargs, self.asked.method, anew=self.anew)
        chosen = [one for one in sites if is_chosen(one.site, choice)]
        made = Plan((), {}, frozenset(), known=frozenset(one.key for one in sites))
        if any(map(drops, (one.site for one in chosen))):
            made = plan(name, sites, lambda site: is_chosen(site, choice), None)
        noted = self._pass(made, _Weighing)
        put = inserted(name, noted, self.asked.insert)
        made.inserted = {at: one for at, one in put.items() if is_chosen(one.site, choice)}
        made.active += tuple(made.inserted.values())
        if not made.active:
            raise SettingError(f"sites: expected some among those that are put in; got {choice!r}")
        return made

    def _pass(self, made: Plan, kind: Callable[..., Any] = Directing, draw: int = 0) -> Any:
        """What decided in a pass."""
        recorder, runner = Recorder(0, draw), self._runner(made)
        with leaving(self.model, made.opened, made.rates, form_of(self.args, self.kwargs)):
            director = runner.directed(draw, recorder, kind(made, 0, draw, recorder))[0]
        made.route = hash((runner.path, director.met)), recorder.route
        made.asks, made.sure = recorder.asked, recorder.sure
        return director

    def _runner(self, made: Plan) -> Runner:
        call = called(self.model, self.asked.method)
        return Runner(self.model, call, self.args, self.kwargs, made, 0, Way())

    def _opened(self, made: Plan) -> set[int]:
        """Open the modules whose dropout is called in training alone; the sites that were asked.

        At first none is opened; then those with a site that did not act, and those around them.
        """
        layers = any(one.site.kind == "path" for one in made.active)
        asked: set[int] = set()
        for widened in range(3):
            acted: set[int] = set()
            for draw in range(_CHANCES):  # chance may leave a layer out, with the sites in it
                director = self._pass(made, draw=draw)
                acted |= set(director.calls)
                asked |= {number for number, _ in director.shapes}
                silent = [one for one in made.active if one.number not in acted]
                if not silent:
                    return asked
                if made.sure and not layers:
                    break
            made.opened |= {path for one in silent for path in _around(one.site.path, widened)}
        return asked

    def _moved(self, made: Plan, steered: set[int]) -> None:
        """Where a site draws its own mask, another rate is what its attribute holds meanwhile."""
        for one in made.active:
            if one.asked and one.number not in steered and one.rate is not None:
                if not one.site.holder:
                    raise SettingError(
                        f"rates: expected sites whose rate can be moved; {one.site.path} "
                        f"({one.site.owner}) draws its own mask, and no attribute holds its rate"
                    )
                made.rates[one.site.holder] = one.rate

    def _shared(self, made: Plan, steered: set[int]) -> None:
        """Find the axis of the batch, at each site: the one that grows with the batch."""
        made.own = {one.number for one in made.active} - steered
        drawn = self._pass(made).calls
        own = [one for one in made.active if one.number in made.own and drawn[one.number]]
        if own:
            raise SettingError(
                f"mask_scope: expected sites whose masks can be shared; {own[0].site.path} "
                f"({own[0].site.owner}) draws its own. Leave it out with sites="
            )
        size = self._batch()
        for draw in range(_CHANCES):
            self._grow(made, draw, size)
            if made.sure:  # all draws go that way
                break
        made.shared = True

    def _grow(self, made: Plan, draw: int, size: int) -> None:
        """Find axes in a draw; the more are known, the more twice the rows go the way of the rows.

        Raises:
            SettingError: a site has none.
        """
        twice, once = self._twice(made, draw, size), self._pass(made, draw=draw).shapes
        for occurrence, shape in once.items():
            axis = _grown(shape, twice.get(occurrence, ()), size)
            if axis is not None:
                made.batch[occurrence] = axis
            elif occurrence in twice or made.sure:
                raise SettingError(_no_axis(made, occurrence[0], shape, size))

    def _twice(self, made: Plan, draw: int, size: int) -> Mapping[tuple[int, int], Sequence[int]]:
        """What sites drop in a draw with each row twice."""
        args, kwargs = self._doubled(self.args, size), self._doubled(dict(self.kwargs), size)
        try:
            shapes = replace(self, args=args, kwargs=kwargs)._pass(made, draw=draw).shapes
        except SamplingError as error:
            raise SettingError(
                "batch_axis: expected the axis of the rows in the inputs, along which the model "
                f"takes any number; got {self.asked.batch_axis}, where it takes {size} and not "
                f"{2 * size}: {said(error.__cause__ or error)}. Try another one"
            ) from error
        found: Mapping[tuple[int, int], Sequence[int]] = shapes
        return found

    def _batch(self) -> int:
        """How many rows the inputs have."""
        axis = self.asked.batch_axis
        for x in tensors((self.args, dict(self.kwargs))):
            if -x.dim() <= axis < x.dim() and x.shape[axis]:
                return x.shape[axis]
        shapes = [str(tuple(x.shape)) for x in tensors((self.args, dict(self.kwargs)))]
        raise SettingError(
            f"batch_axis: expected an axis of the inputs with rows in it; got {axis}, of "
            f"{', '.join(shapes) or 'no tensor'}"
        )

    def _doubled(self, value: Any, size: int) -> Any:
        axis = self.asked.batch_axis

        def double(x: Tensor) -> Tensor:
            fits = -x.dim() <= axis < x.dim() and x.shape[axis] == size
            return torch.cat([x, x], axis) if fits else x

        return mapped(value, double)


class _Weighing(Directing):
    """Notes the layers before which dropout can be put."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.layers: list[tuple[str, str, str, int]] = []
        """Path, class, function and axes of the input."""

    def weigh(
        self,
        function: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        where: Callable[[], Where],
    ) -> Any:
        here = where()
        rank = args[0].dim() if args else 0
        self.layers.append((here.path, here.owner, function.__name__, rank))
        return function(*args, **kwargs)


def _around(path: str, widened: int) -> list[str]:
    """A path; and, if it was widened, those of all modules around it."""
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(len(parts) + 1)] if widened else [path]


def _no_axis(made: Plan, number: int, shape: Sequence[int], size: int) -> str:
    sites = (one.site for one in (*made.active, *made.late.values()) if one.number == number)
    site = next(sites)
    return (
        f"mask_scope: expected an axis of the batch, of {size}, at each site; "
        f"{site.path or 'the model itself'} ({site.owner}) drops {list(shape)}. "
        "Try batch_axis=, or leave it out with sites="
    )


def _grown(once: Sequence[int], twice: Sequence[int], size: int) -> int | None:
    """The axis of the batch: it has its size, and it alone is twice as long with two batches."""
    if len(once) != len(twice):
        return None
    other = [axis for axis, (a, b) in enumerate(zip(once, twice, strict=True)) if a != b]
    fits = len(other) == 1 and once[other[0]] == size and twice[other[0]] == 2 * size
    return other[0] if fits else None
