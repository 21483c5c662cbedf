"""Switches on what is to act in one pass of a model, and leaves the rest as it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.intercept import Operation, turned
from dropkit.intercept.steering import Director, Function
from dropkit.intercept.trace import Where
from dropkit.kernel import Key, derive_on
from dropkit.posterior.choosing import Active, Plan
from dropkit.posterior.laws import Drop, Law, dropping, noise
from dropkit.posterior.recording import Recorder
from dropkit.records import Site

_NORMS = (
    *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
)
"""What torch.nn.functional.batch_norm takes, in order."""
_SITES, _DRAWS = 1, 2
"""Streams of a key: of sites, and of what a model draws otherwise."""


class Directing(Director):
    """Decides what becomes of each call in the pass of one draw."""

    def __init__(self, plan: Plan, key: Key, draw: int, recorder: Recorder | None = None) -> None:
        self.plan, self.number, self.recorder = plan, draw, recorder
        self.begin(key)
        self.met = 0
        """All calls of dropouts, to act or not, in order, as one number; as long as the way of the
        model hangs on no draw."""
        self.unshared: Site | None = None
        """A site whose masks were to be shared along the batch, and are not."""
        self.suspicious = False
        """Whether to look for NaN; what is found first is `blamed`: a site, and if it made it."""
        self.blamed: tuple[Site, bool] | None = None
        self.shapes: dict[tuple[int, int], tuple[int, ...]] = {}
        """By site and occurrence: what one draw has the shape of."""

    def begin(self, key: Key) -> None:
        """A pass begins, whose masks a key names."""
        self.key = key
        self.calls: Counter[int] = Counter()
        """By number of a site: how often it acted."""
        self.drawn = self.weighed = 0
        self.bits: list[tuple[float, int]] = []
        """Of each mask: the rate, and how many draws are in it."""

    # ---- dropout

    def drop(self, call: Operation, where: Callable[[], Where]) -> Any:
        """A site that is to act does; another does what it would have done in evaluation mode."""
        here, call = where(), turned(call)
        if self.recorder is None or self.recorder.sure:
            self.met = hash((self.met, here.key))
        site = self.plan.find(here.key, call) or self.plan.later(here, call)
        rate = None if site is None else _rate(site, call)
        if site is None or rate is None:
            return call.run(**self._off(call, here))
        arguments = call.arguments
        values = [call.x]
        if call.is_attention:
            values += [arguments["key"], arguments["value"]]
            values += [mask for mask in [arguments["attn_mask"]] if mask is not None]
        result = self._act(site, values, lambda key, batch: dropping(call, rate, key, batch))
        in_place = arguments.get("inplace", call.name.endswith("_"))
        return call.x.copy_(result) if in_place and not call.is_attention else result

    def _off(self, call: Operation, here: Where) -> dict[str, Any]:
        """What was not chosen does not drop because its module, or attention, was opened."""
        if here.key in self.plan.always:
            return {}
        return {"dropout_p": 0.0} if call.is_attention else {"training": False}

    def _act(
        self, site: Active, values: Sequence[Tensor], law: Callable[[Key, int | None], Law]
    ) -> Tensor:
        shape = _shape(values)
        occurrence = site.number, self.calls[site.number]
        self.calls[site.number] += 1
        self.shapes[occurrence] = shape
        batch = self.plan.batch.get(occurrence)
        if batch is None and self.plan.shared:
            self.unshared = site.site
        size = math.prod(length for axis, length in enumerate(shape) if axis != batch)
        key = derive_on(self.key, _SITES, *occurrence, size)
        shared = (*site.site.shared, *_axes(batch))
        self.bits.append((site.rate or 0.0, _count(shape, shared)))
        result = self._run(law(key, batch), values)
        if self.suspicious and self.blamed is None:
            came = any(bool(value.isnan().any()) for value in values if value.is_floating_point())
            if came or bool(result.isnan().any()):
                self.blamed = site.site, not came
        return result

    def _run(self, law: Law, values: Sequence[Tensor]) -> Tensor:
        if self.recorder is not None:
            return self.recorder.draw(law, values)
        return law(self.number, 1, *(value.unsqueeze(0) for value in values)).squeeze(0)

    # ---- recurrent networks, whose dropout lies between their layers

    def recur(self, function: Function, args: Sequence[Any], where: Callable[[], Where]) -> Any:
        """Layer by layer, with a site between each two."""
        site = self.plan.find(where().key)
        if site is None or site.rate is None:
            return function(*args)
        rate = site.rate
        packed = isinstance(args[1], Tensor) and not args[1].is_floating_point()
        head, hidden = ((*args[:2],), args[2]) if packed else ((args[0],), args[1])
        weights, biased, layers, _, _, both = args[len(head) + 1 :][:6]
        rest = () if packed else args[8:9]
        states = hidden if isinstance(hidden, tuple | list) else (hidden,)
        ways, each = 1 + both, len(weights) // layers
        x, last = head[0], []
        for layer in range(layers):
            if layer:
                x = self._act(
                    site, [x], lambda key, batch: Drop("dropout", rate, key, _axes(batch))
                )
            own = [state[layer * ways : (layer + 1) * ways] for state in states]
            given = own if isinstance(hidden, tuple | list) else own[0]
            part = weights[layer * each : (layer + 1) * each]
            x, *states_after = function(
                x, *head[1:], given, part, biased, 1, 0.0, False, both, *rest
            )
            last.append(states_after)
        return x, *(torch.cat(state) for state in zip(*last, strict=True))

    # ---- all else

    def draw(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any],
             where: Callable[[], Where]) -> Any:  # fmt: skip
        """What is drawn otherwise comes from the key, too, where its law is known."""
        self.mark(where())
        made = noise(function, args, kwargs, derive_on(self.key, _DRAWS, self.drawn))
        self.drawn += 1
        if made is None:
            return function(*args, **kwargs)
        law, values = made
        result = self._run(law, values)
        return args[0].copy_(result) if function.__name__.endswith("_") else result

    def mark(self, here: Where) -> None:
        """Something is drawn here: the sites that are here act."""
        there = self.plan.at.get(here.key) or [
            one for one in self.plan.active if one.site.path == here.path
        ]
        self.calls.update(one.number for one in there)
        if self.plan.shared:
            own = (one.site for one in there if one.number in self.plan.own)
            self.unshared = self.unshared or next(own, None)
        self.bits += [(one.rate or 0.5, _count(one.site.shape, one.site.shared)) for one in there]

    def normalize(
        self, function: Function, args: Sequence[Any], kwargs: dict[str, Any], inside: str
    ) -> Any:
        """A batch norm takes no statistics of the batch because its module was opened."""
        tracked = kwargs.get("running_mean", args[1] if len(args) > 1 else None) is not None
        if tracked and inside in self.plan.opened:
            return function(
                **{**dict(zip(_NORMS, args, strict=False)), **kwargs, "training": False}
            )
        return function(*args, **kwargs)

    def weigh(
        self,
        function: Function,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        where: Callable[[], Where],
    ) -> Any:
        """A dropout that was put before a layer acts on what comes into it."""
        site = self.plan.inserted.get(self.weighed)
        self.weighed += 1
        if site is None or site.rate is None or not args:
            return function(*args, **kwargs)
        rate, shared = site.rate, range(2, args[0].dim()) if site.site.kind != "dropout" else ()
        x = self._act(
            site, [args[0]],
            lambda key, batch: Drop("dropout", rate, key, (*_axes(batch), *shared)),
        )  # fmt: skip
        return function(x, *args[1:], **kwargs)

    def read(self, values: Tensor) -> None:
        """Values go to what is not torch."""
        if self.recorder is not None:
            self.recorder.read(values)


class Probing(Directing):
    """Notes where a model draws if all of it is in training; what is seen to drop does not."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, 0, 0)
        self.keys: set[object] = set()

    def drop(self, call: Operation, where: Callable[[], Where]) -> Any:
        """Noted, and not done."""
        self.keys.add(where().key)
        return call.run(**({"dropout_p": 0.0} if call.is_attention else {"training": False}))

    def recur(self, function: Function, args: Sequence[Any], where: Callable[[], Where]) -> Any:
        """Noted, and done as in training."""
        self.keys.add(where().key)
        return function(*args)

    def mark(self, here: Where) -> None:
        """Noted; what is drawn otherwise is drawn as ever."""
        self.keys.add(here.key)


def _count(shape: Sequence[int], shared: Sequence[int]) -> int:
    """Draws in a mask."""
    return math.prod(size for axis, size in enumerate(shape) if axis not in shared)


def _rate(site: Active, call: Operation) -> float | None:
    """What was asked for; else what the call says, if it says anything in evaluation mode."""
    given = float(call.arguments["dropout_p" if call.is_attention else "p"])
    return given if given > 0 and not site.asked else site.rate


def _axes(batch: int | None) -> tuple[int, ...]:
    return () if batch is None else (batch,)


def _shape(values: Sequence[Tensor]) -> tuple[int, ...]:
    """Of a value; of attention, of its weights."""
    if len(values) == 1:
        return tuple(values[0].shape)
    return (*values[0].shape[:-1], values[1].shape[-2])
