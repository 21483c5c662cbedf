"""Whether each rate that is asked for is the one that a model has, seen as it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.bounds import binomial_limits
from dropkit.inspection.evidence import look
from dropkit.inspection.passes import copied
from dropkit.intercept import Operation, forgetting, untouched
from dropkit.intercept.steering import Director, Function, steering
from dropkit.intercept.trace import Where
from dropkit.planning.levers import Key, Lever

FALSE_ALARM = 1e-6
"""Of a whole proof: in a million of a model whose rates are right, one says that they are not."""
_DRAWS = 1 << 16
"""Of each site: a rate that is off by .012 is found in 99 of 100 proofs, at any rate."""
_CLOSE = 1e-9
_PASSES = 24
"""A layer that is left out in half of all passes is seen but for one proof in ten million."""
_TIMES = 8
"""How often one line is counted at each rate that it comes with: a helper is several sites."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one site."""

    name: str
    asked: float
    called: float | None
    """The rate that it says it drops at; None: that was counted, or it did not run."""
    drawn: int
    """Independent draws that were counted; 0: it could not be measured, or did not run."""
    dropped: int
    limits: tuple[float, float]
    """Fractions between which the dropped ones are, but for a false alarm."""

    @property
    def ran(self) -> bool:
        """Whether anything was seen of it."""
        return self.drawn > 0 or self.called is not None

    @property
    def realized(self) -> float | None:
        """The fraction that was dropped."""
        return self.dropped / self.drawn if self.drawn else None

    @property
    def holds(self) -> bool:
        """Whether it has the rate that is asked."""
        if not self.ran:
            return True
        near = self.called is None or abs(self.called - self.asked) < _CLOSE
        return near and (self.realized is None or self.limits[0] <= self.realized <= self.limits[1])

    def __str__(self) -> str:
        if self.realized is not None:
            seen = f"dropped {self.realized:.4f} of {self.drawn:,}"
        else:
            seen = "did not run" if self.called is None else f"was called with {self.called:.4g}"
        return f"{self.name}: asked {self.asked:.4g}, {seen}"


@dataclass(frozen=True, slots=True)
class Proof:
    """That a model drops at the rates of a plan, site by site."""

    rows: tuple[Row, ...]
    false_alarm: float = FALSE_ALARM

    @property
    def holds(self) -> bool:
        """Whether every site has the rate that is asked."""
        return not self.failed

    @property
    def unseen(self) -> tuple[Row, ...]:
        """Those that are asked to drop, and did not run in any pass."""
        return tuple(row for row in self.rows if not row.ran and row.asked > 0)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Those that do not."""
        return tuple(row for row in self.rows if not row.holds)

    def __str__(self) -> str:
        ran = [row for row in self.rows if row.ran]
        counted = sum(row.drawn > 0 for row in ran)
        said = "all have the rates asked" if self.holds else f"{len(self.failed)} do not"
        idle = f"; {len(self.unseen)} did not run" if self.unseen else ""
        return (
            f"{len(self.rows)} sites, {said}; {counted} by counting "
            f"{sum(row.drawn for row in ran):,} draws (false alarm {self.false_alarm:g}), "
            f"{len(ran) - counted} by what they were called with{idle}"
        )


def proof(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    levers: Sequence[Lever],
) -> Proof:
    """Run a model in training mode, and count at each of its sites.

    Again, with what it drops, while some did not run: which layers and experts do hangs on chance.
    """
    if any(x.is_meta for x in (*model.parameters(), *model.buffers())):
        args, kwargs = copied((args, dict(kwargs)), torch.device("meta"))
    by_hand = {lever.key for lever in levers if lever.by_hand}
    called = {lever.key for lever in levers if not lever.by_hand}
    wanted = {lever.key for lever in levers if lever.key in called and lever.wanted > 0}
    counting = _Counting(called)
    with untouched(model), torch.no_grad():
        model.train()
        for number in range(_PASSES):
            counting.drops = number > 0
            with forgetting(model), steering(model, counting) as within:
                within.begin_here()
                model(*args, **kwargs)
            if wanted <= counting.seen.keys():
                break
    seen = counting.seen
    if by_hand:
        seen |= _looked_at(model, args, kwargs, by_hand)
    shares: dict[Key, list[Lever]] = {}
    for lever in levers:
        shares.setdefault(lever.key, []).append(lever)
    alarm = FALSE_ALARM / max(1, len(levers) + sum(map(len, seen.values())))
    rows = (_row(lever, shares[lever.key], seen.get(lever.key, ()), alarm) for lever in levers)
    return Proof(tuple(rows))


@dataclass(slots=True)
class _Seen:
    called: float | None
    drawn: int = 0
    dropped: int = 0


def _row(lever: Lever, shares: Sequence[Lever], seen: Sequence[_Seen], alarm: float) -> Row:
    """Of several at one line, the one whose rate is the nearest to what is asked.

    If there is one whose rate none of those that share the line is asked for, it is that one.
    """
    rows = [_counts(lever, one, alarm) for one in seen or (_Seen(None),)]
    for one, row in zip(seen, rows, strict=False):
        if not any(_counts(other, one, alarm).holds for other in shares):
            return row
    return min(rows, key=lambda row: _apart(row, lever.wanted))


def _counts(lever: Lever, one: _Seen, alarm: float) -> Row:
    """What was seen once, as of a site."""
    wanted = lever.wanted
    low, high = binomial_limits(one.drawn, wanted, alarm) if one.drawn else (0, 0)
    limits = (low / one.drawn, high / one.drawn) if one.drawn else (0.0, 0.0)
    return Row(lever.name, wanted, one.called, one.drawn, one.dropped, limits)


def _apart(row: Row, wanted: float) -> float:
    rate = row.called or 0.0 if row.realized is None else row.realized
    return abs(rate - wanted)


def _looked_at(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], mine: set[Key]
) -> dict[Key, list[_Seen]]:
    """Masks that a model makes itself, as its map has them."""
    evidence = look(model, args, kwargs, gradients=False)
    found: dict[Key, list[_Seen]] = {}
    for run in evidence.runs:
        key, met = run.events[0].where.key, run.site.measured
        if key in mine and run.trained:
            counts = (met.drawn, met.dropped) if met is not None else (0, 0)
            called = run.site.rate if run.site.fired_in_train or run.site.rate == 0 else 0.0
            found.setdefault(key, []).append(_Seen(called, *counts))
    return found


class _Counting(Director):
    """Counts what each call drops of ones, and hands on what came in."""

    def __init__(self, keys: set[Key]) -> None:
        self.keys = keys
        self.drops = False
        """Whether what is called drops, beside being counted."""
        self.seen: dict[Key, list[_Seen]] = {}
        self._times: dict[tuple[Key, float], int] = {}

    def drop(self, call: Operation, where: Callable[[], Where]) -> Any:
        """A dropout, or attention."""
        if call.is_attention or call.arguments["training"]:
            key = where().key
            rate = call.arguments["dropout_p" if call.is_attention else "p"]
            times = self._times.get((key, rate), 0)
            if key in self.keys and times < _TIMES:
                self._times[key, rate] = times + 1
                self.seen.setdefault(key, []).append(_Seen(None, *_counted(call)))
        if self.drops:
            return call.run()
        return call.run(dropout_p=0.0) if call.is_attention else call.x

    def recur(self, function: Function, args: Sequence[Any], where: Callable[[], Where]) -> Any:
        """A recurrent network, which says what it drops between its layers."""
        at = 6 if isinstance(args[1], Tensor) and not args[1].is_floating_point() else 5
        if args[at + 1]:
            self.seen.setdefault(where().key, []).append(_Seen(float(args[at])))
        return function(*args)


def _counted(call: Operation) -> tuple[int, int]:
    """How many of how many draws a call drops, at the rate that it comes to in the end."""
    x, side = call.x, math.isqrt(_DRAWS)
    options: dict[str, Any] = {"device": "cpu" if x.is_meta else x.device, "dtype": x.dtype}
    if call.is_attention:  # of weights that are all the same, each shown by its own value
        zeros, each = torch.zeros(1, 1, side, side, **options), torch.eye(side, **options)
        alone = {"attn_mask": None, "is_causal": False, "enable_gqa": False}
        kept = call.run(query=zeros, key=zeros, value=each[None, None], **alone) > 0
    else:
        spatial = call.name[-2:] in ("1d", "2d", "3d")
        axes = int(call.name[-2]) if spatial else 1
        whole = spatial or call.name.startswith("feature")
        shape = (side, side, *(1,) * axes) if whole else (_DRAWS,)
        kept = call.run(input=torch.ones(shape, **options)) > 0
    return _DRAWS, _DRAWS - int(kept.sum())
