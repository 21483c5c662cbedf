"""Runs networks of which the masks are told, and sees to it that nothing else is random in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees

from dropkit.errors import SamplingError, SettingError
from dropkit.intercept import uncompiled
from dropkit.intercept.leaving import deliberate, leaving
from dropkit.posterior.choosing import Choice, Plan, Rates
from dropkit.posterior.preparing import Asked, prepared
from dropkit.posterior.running import Chunk, Runner, Way, alike, part
from dropkit.posterior.sampling import free_memory
from dropkit.posterior.tape import Recorder
from dropkit.posterior.telling import Bits, Pattern, Telling, named

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Networks:
    """What many networks gave."""

    bits: tuple[Bits, ...]
    samples: Any
    """A tree of tensors, the networks along their first axis."""
    scaled: Any
    """What the model gives if nothing is dropped, and nothing scaled: as in evaluation mode."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A model, and which of its masks are told."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sites: Choice
    rates: Rates
    batch_axis: int | None

    def networks(self, choose: Callable[[Sequence[Bits]], tuple[Pattern, int]]) -> Networks:
        """Run them. `choose`: of the masks, which networks there are, and how many.

        Raises:
            SettingError: what is given is no module.
            SamplingError: something else is random, masks that cannot be told, NaN, or outputs that
                are the same in all networks.
        """
        if not isinstance(self.model, nn.Module):
            raise SettingError(
                f"model: expected a torch.nn.Module; got {type(self.model).__name__}"
            )
        with deliberate():
            plan = self._plan()
            with leaving(self._inner, plan.opened, plan.rates):
                bits = tuple(self._told(plan).masks)
                pattern, count = choose(bits)
                directs = partial(Telling, pattern=pattern, layout=bits)
                runner = replace(self._runner(plan), directs=directs)
                leaves = _checked(runner, count)
            scaled = self._scaled()
        return Networks(bits, trees.tree_unflatten(leaves, runner.form), scaled)

    @property
    def _inner(self) -> nn.Module:
        return uncompiled(self.model)

    def _plan(self) -> Plan:
        """One mask for all rows, of sites that take what they are told."""
        asked = Asked(self.sites, self.rates)
        plan, _ = prepared(self._inner, self.args, self.kwargs, asked)
        with leaving(self._inner, plan.opened, plan.rates):
            _check_told(plan, self._told(plan))
        if self.batch_axis is None:
            return plan
        shared = replace(asked, scope="batch", batch_axis=self.batch_axis)
        try:
            return prepared(self._inner, self.args, self.kwargs, shared)[0]
        except SettingError as error:
            said = str(error).replace("mask_scope: ", "batch_axis: ", 1)
            raise SettingError(
                f"{said}, or batch_axis=None, with masks of its own for each row"
            ) from error

    def _told(self, plan: Plan) -> Telling:
        """Who decided in a pass in which nothing is dropped."""
        director = Telling(plan, 0, 0, recorder := Recorder(0, 0))
        self._runner(plan).directed(0, recorder, director)
        return director

    def _runner(self, plan: Plan) -> Runner:
        room = free_memory(self.args, self.kwargs)
        return Runner(self._inner, self._inner, self.args, self.kwargs, plan, 0, Way(), memory=room)

    def _scaled(self) -> Any:
        """What would drop in evaluation mode, too, does not."""
        with leaving(self._inner):
            runner = self._runner(Plan((), {}, frozenset()))
            leaves = [x[0] if isinstance(x, Tensor) else x for x in runner.first(0).leaves]
        return trees.tree_unflatten(leaves, runner.form)


def _check_told(plan: Plan, director: Telling) -> None:
    """All sites took what they were told, and nothing else was drawn."""
    own = [one.site for one in plan.active if not director.calls[one.number]]
    if own:
        raise SamplingError(
            f"expected sites whose masks can be told; {_listed(list(map(named, own)))} draw their "
            "own, or do not act with these inputs. Leave them out with sites="
        )
    others = [f"{here.path or 'the model itself'} ({here.owner})" for here in director.others]
    if others:
        raise SamplingError(
            f"expected a model in which nothing but the masks is random; {_listed(others)} draws "
            "by itself in evaluation mode"
        )


def _checked(runner: Runner, count: int) -> list[Any]:
    """The outputs of all networks, some of them run once more with other random numbers."""
    leaves = _gathered(runner, count)
    for network in sorted({0, count // 3, 2 * count // 3, count - 1}):  # 0101... and 1010... of all
        again = runner.loop(network)
        if not alike(again, replace(runner, key=1).loop(network)):
            raise SamplingError(
                f"expected a model in which nothing but the masks is random; network {network} "
                "gave other outputs when it ran again"
            )
        if not alike(again, part(Chunk(0, count, leaves), network)):
            runner = replace(runner, strategy="loop")
            return _gathered(runner, count)
    return leaves


def _gathered(runner: Runner, count: int) -> list[Any]:
    chunks = list(runner.run(count))
    leaves = [_joined(parts) for parts in zip(*(chunk.leaves for chunk in chunks), strict=True)]
    numbers = [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]
    for x in numbers:
        bad = x.isnan().reshape(count, -1).any(1)
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            raise SamplingError(
                f"expected numbers in all networks; network {at} gave NaN. {runner.blame(at)}"
            )
    if count > 1 and numbers and all(bool((x == x[:1]).all()) for x in numbers):
        raise SamplingError(
            f"expected outputs that vary; they are the same in all {count:,} networks, to the last "
            "bit. What the sites drop does not reach the outputs"
        )
    return leaves


def _joined(parts: Sequence[Any]) -> Any:
    if not isinstance(parts[0], Tensor):
        return parts[0]
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise SamplingError(
            "expected outputs of one shape in all networks; got "
            + " and ".join(map(str, sorted(shapes)[:2]))
        )
    return torch.cat(list(parts))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
