"""Monte Carlo dropout: a prediction, as often as it is asked for, with other masks each time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from typing import Any, Literal

import torch
from torch import nn

from dropkit import kernel
from dropkit.errors import DropkitWarning, SamplingError
from dropkit.inspection.passes import tensors
from dropkit.intercept import uncompiled
from dropkit.intercept.leaving import deliberate, leaving
from dropkit.intercept.process import mended
from dropkit.intercept.within import unfollowed
from dropkit.kernel import Key
from dropkit.posterior.choosing import Choice, Rates, form_of
from dropkit.posterior.draws import Draws
from dropkit.posterior.entropies import Outputs
from dropkit.posterior.gathering import Gathering, Kept
from dropkit.posterior.options import (
    Goal,
    Scope,
    check_count,
    check_goal,
    check_model,
    check_names,
    check_outputs,
    check_sites,
    check_ways,
)
from dropkit.posterior.preparing import Asked, called, prepared
from dropkit.posterior.running import ElsewhereError, Route, Runner, Strategy
from dropkit.records import Site

_SHARE = 4
"""Of a GPU's memory that is free one part in so many is taken."""
_ON_CPU = 1 << 30
"""Bytes that are taken on a CPU. More draws at once than fit into its caches do not pay."""
_BY_CHANCE = 1e-9
"""So rarely are masks the same that equal outputs are taken for a fault."""
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Sampled:
    """A site, and whether it acted."""

    site: Site
    rate: float | None
    """At which it was to drop."""
    calls: int
    """How often it acts in one draw."""

    @property
    def acted(self) -> bool:
        """Whether it acted at all."""
        return self.calls > 0


def sample(
    model: nn.Module,
    *inputs: Any,
    draws: int | Literal["auto"] = 50,
    key: Key | None = None,
    outputs: Outputs = "values",
    class_axis: int = -1,
    keep: Kept = "samples",
    sites: Choice = None,
    rates: Rates = None,
    insert: Rates = None,
    mask_scope: Scope = "element",
    batch_axis: int = 0,
    strategy: Strategy = "auto",
    memory: int | None = None,
    tolerance: float | None = None,
    quantity: str = "mean",
    most: int = 10_000,
    method: str = "forward",
    keywords: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Draws:
    r"""Predict several times, each time with other dropout masks: Monte Carlo dropout.

    .. math:: y_t = f(x; m_t), \qquad m_t \sim P(m \mid p), \qquad t = 0, \dots, T - 1

    Every dropout that acts in training is switched on, whoever calls it: modules, functions,
    attention, what is within an LSTM, stochastic depth. Nothing else is: the model stays in
    evaluation mode, and batch norm with it. Afterwards it is, bit by bit, what it was.

    While it is sampled, no other thread may use it.

    What hangs on no mask is computed once, and the rest for several draws at a time, where that was
    seen to give the same and to be faster. Draw t has the same masks alone, beside others, and in
    any strategy; the values then agree up to rounding.

    Args:
        model: any module, in evaluation mode or not; what `torch.compile` made of one, too.
        inputs, kwargs: what it is called with. An argument that is called as an option of this
            function goes into `keywords`.
        draws: T; or "auto": as many as the Monte Carlo error of a quantity needs to fall below
            `tolerance`.
        key: 64 bits that name all masks; by default from torch's generator.
        outputs: what the model gives: "values", "logits" or "probabilities"; classes lie along
            `class_axis` of one draw.
        keep: "samples", or "moments": mean and variance are then added up as the draws come.
        sites: which sites act: roles, paths with `*` (and what is within them), or a function of a
            `Site`; by default all.
        rates: other rates than the model's: one for all, or by role or path.
        insert: puts dropout before the layers of a model that has none, meanwhile: a rate, or rates
            by role (`input`, `hidden`, `conv`, `head`) or path.
        mask_scope: "element": each row has masks of its own. "batch": draw t is one thinned network
            for all rows. "fixed": it is the same in all calls, whatever the batch; `key` is 0 then.
        batch_axis: the axis of the rows in the inputs, for these scopes.
        strategy: "loop", "prefix" or "fold" instead of what was measured to be fastest. The last
            bits hang on it.
        memory: bytes that draws may take at a time; by default 1 GiB, on a GPU a quarter of what is
            free, and one draw in any case.
        tolerance, quantity, most: for draws="auto": the largest Monte Carlo error of any element of
            a quantity of `Draws`, and the most draws.
        method: what is called instead of the model itself, such as "generate".
        keywords: see `inputs`.

    Raises:
        SamplingError: no site acts, the outputs do not vary, or are NaN in some draw.
        SettingError: an option outside its range.

    Warns:
        DropkitWarning: a site that was to act did not, or something else of the model is random.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    >>> draws = dropkit.sample(net.eval(), torch.ones(3, 4), draws=100, key=7)
    >>> draws.mean.shape, bool((draws.std > 0).any()), draws.sites[0].acted
    (torch.Size([3, 8]), True, True)

    Source: Gal & Ghahramani 2016, "Dropout as a Bayesian Approximation".
    """
    inner = uncompiled(check_model(model))
    count, goal = check_count(draws, most), check_goal(draws, quantity, tolerance)
    axis = check_outputs(outputs, class_axis)
    check_ways(strategy, memory)
    check_sites(sites, rates, insert, mask_scope, batch_axis, method)
    named = check_names(kwargs, keywords)
    asked = Asked(sites, rates, insert, mask_scope, index(batch_axis), method)
    if key is None:
        key = 0 if mask_scope == "fixed" else kernel.fresh()
    number = int(kernel.check_key(key))

    def gathered() -> tuple[Runner, Gathering, float]:
        route: Route | None = None
        while True:
            gathering = Gathering(keep, outputs, axis, watch=goal is not None)
            try:
                with _ready(inner, inputs, named, asked, number, strategy, memory, route) as runner:
                    error = _gather(runner, gathering, count, goal)
                return runner, gathering, error
            except ElsewhereError as elsewhere:  # at its first draw, and once
                route = elsewhere.route

    runner, gathering, error = mended(gathered)
    sampled = tuple(
        Sampled(one.site, one.rate, runner.calls.get(one.number, 0))
        for one in (*runner.plan.active, *runner.plan.late.values())
    )
    _speak(sampled, runner.plan.restless)
    if goal is not None and error > goal.tolerance:
        _unsure(goal, gathering.count, error)
    if not gathering.varies:
        _still(sampled, runner.bits, gathering)
    return gathering.draws(runner.form, number, sampled)


def _gather(runner: Runner, gathering: Gathering, count: int, goal: Goal | None) -> float:
    """All draws; with a goal as many as it takes: how far the draws are from it then."""
    error = math.inf
    for chunk in runner.run(count):
        gathering.add(chunk, runner.form, count)
        bad = gathering.nan(chunk)
        if bad is not None:
            raise SamplingError(
                f"expected numbers in all draws; draw {bad} gave NaN. {runner.blame(bad)}"
            )
        if goal is not None:
            error = gathering.error(goal.quantity, last=gathering.count == count)
            if error <= goal.tolerance:
                break
            runner.limit = goal.wanted(gathering.count, error)
    return error


@contextmanager
def _ready(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], asked: Asked, key: int,
    strategy: Strategy, memory: int | None, route: Route | None,
) -> Iterator[Runner]:  # fmt: skip
    """A model that can be sampled; when the block ends it is what it was."""
    call = called(model, asked.method)
    with deliberate(), unfollowed():
        plan, way = prepared(model, args, kwargs, asked, route=route)
        form = form_of(args, kwargs)
        with leaving(model, plan.opened, plan.rates, form) as left:
            yield Runner(
                model, call, args, kwargs, plan, key, way, strategy, route is not None, left,
                memory=free_memory(args, kwargs) if memory is None else memory,
                strict=memory is not None,
            )  # fmt: skip


def free_memory(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Bytes that draws take at a time, if nobody says."""
    device = next((x.device for x in tensors((args, dict(kwargs)))), torch.device("cpu"))
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // _SHARE
    return _ON_CPU


# ---- what has to be said


def _speak(sampled: Sequence[Sampled], restless: Sequence[Site]) -> None:
    """Say what did not act, and what is random besides."""
    silent = [one.site for one in sampled if not one.acted]
    if len(silent) == len(sampled):
        raise SamplingError(
            f"expected sites that act; none of {len(sampled)} did in evaluation mode: "
            f"{_listed(silent)}. What draws its masks where torch does not see it cannot be sampled"
        )
    if silent:
        _warn(f"{len(silent)} of {len(sampled)} sites did not act: {_listed(silent)}")
    if restless:
        _warn(
            "the model is random in evaluation mode by itself, too, and that is part of what "
            f"varies: {_listed(restless)}"
        )


def _unsure(goal: Goal, count: int, error: float) -> None:
    """Say that all draws that were allowed are too few."""
    needed = count * (error / goal.tolerance) ** 2
    _warn(
        f"the error of {goal.quantity} is still {error:.3g} after {count} draws; for "
        f"{goal.tolerance:g} it would take about {needed:.2g}. Try most="
    )


def _alike(rate: float, draws: int) -> float:
    """The logarithm of the chance that a bit of a mask is the same in all draws."""
    if rate in (0.0, 1.0):
        return 0.0
    less, more = sorted((draws * math.log(rate), draws * math.log1p(-rate)))
    return more + math.log1p(math.exp(less - more))


def _still(
    sampled: Sequence[Sampled], bits: Sequence[tuple[float, int]], gathering: Gathering
) -> None:
    """Say that nothing varies: an error, unless it may be by chance that all masks are the same."""
    draws = gathering.count
    if gathering.is_empty:
        _warn("the outputs are empty, and do not vary")
        return
    chance = math.exp(sum(n * _alike(p, draws) for p, n in bits))
    if chance > _BY_CHANCE:
        _warn(
            f"the outputs are the same in all {draws} draws; so may be their masks (at a chance of "
            f"{chance:.2g}). Try more draws"
        )
        return
    if not gathering.is_numbers:
        _warn(
            f"the outputs, which are no floating-point numbers, are the same in all {draws} draws"
        )
        return
    acted = [one.site for one in sampled if one.acted]
    raise SamplingError(
        f"expected outputs that vary; they are the same in all draws, to the last bit, though "
        f"{len(acted)} sites acted: {_listed(acted)}. What they drop does not reach the outputs"
    )


def _warn(message: str) -> None:
    warnings.warn(f"dropkit.sample: {message}", DropkitWarning, stacklevel=4)


def _listed(sites: Sequence[Site]) -> str:
    places = [f"{site.path or 'the model itself'} ({site.owner})" for site in sites[:_SHOWN]]
    return ", ".join(places) + (f" and {len(sites) - _SHOWN} more" if len(sites) > _SHOWN else "")
