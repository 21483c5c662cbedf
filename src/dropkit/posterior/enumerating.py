"""Runs networks of which the masks are told, and sees to it that nothing else is random in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as trees

from dropkit.errors import SamplingError, SettingError
from dropkit.intercept import uncompiled
from dropkit.intercept.leaving import deliberate, leaving
from dropkit.posterior.choosing import Choice, Plan, Rates, form_of
from dropkit.posterior.directing import Directing
from dropkit.posterior.preparing import NEW, Asked, prepared
from dropkit.posterior.recording import Recorder
from dropkit.posterior.running import Chunk, Runner, Way, alike, part
from dropkit.posterior.sampling import free_memory
from dropkit.posterior.telling import Bits, Pattern, Still, Telling, named

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
            with self._ready(plan, Telling) as runner:
                bits = tuple(_told(runner).masks)
            pattern, count = choose(bits)
            with self._ready(plan, partial(Telling, pattern=pattern, layout=bits)) as runner:
                samples = trees.tree_unflatten(_checked(runner, count), runner.form)
            with self._ready(Plan((), {}, frozenset()), Still) as runner:
                leaves = [x[0] if isinstance(x, Tensor) else x for x in runner.first(0).leaves]
                scaled = trees.tree_unflatten(leaves, runner.form)
        return Networks(bits, samples, scaled)

    @property
    def _inner(self) -> nn.Module:
        return uncompiled(self.model)

    def _plan(self) -> Plan:
        """One mask for all rows, of sites that take what they are told."""
        asked = Asked(self.sites, self.rates)
        plan, _ = prepared(self._inner, self.args, self.kwargs, asked, route=NEW)
        with self._ready(plan, Telling) as runner:
            _check_told(plan, _told(runner))
        if self.batch_axis is None:
            return plan
        shared = replace(asked, scope="batch", batch_axis=self.batch_axis)
        try:
            return prepared(self._inner, self.args, self.kwargs, shared, route=NEW)[0]
        except (SettingError, SamplingError) as error:  # it runs, but not with twice the rows
            said = str(error).removeprefix("mask_scope: ").removeprefix("batch_axis: ")
            raise SettingError(
                f"batch_axis: {said}. Or try batch_axis=None: masks of its own for each row"
            ) from error

    @contextmanager
    def _ready(self, plan: Plan, directs: Callable[..., Directing]) -> Iterator[Runner]:
        """The model, with somebody who decides in each pass; it is afterwards what it was."""
        model, args, kwargs = self._inner, self.args, self.kwargs
        room = free_memory(args, kwargs)
        with leaving(model, plan.opened, plan.rates, form_of(args, kwargs)) as left:
            yield Runner(
                model,
                model,
                args,
                kwargs,
                plan,
                0,
                Way(),
                anywhere=True,
                left=left,
                memory=room,
                directs=directs,
            )


def _told(runner: Runner) -> Telling:
    """Who decided in a pass in which nothing is dropped."""
    director = Telling(runner.plan, 0, 0, recorder := Recorder(0, 0))
    runner.directed(0, recorder, director)
    return director


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
