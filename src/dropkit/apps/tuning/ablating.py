"""What each knob was worth: the best setting is tried again, and without each of its knobs.

Each is tried with the same seeds, so that what is compared are pairs, and the error is that of
their differences.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from dropkit.apps.tuning.results import Search, Tried, Worth
from dropkit.apps.tuning.serving import Work
from dropkit.records import Knob


def instead(knob: Knob, value: Any) -> Any:
    """What a knob is put back to: off, its default, or the middle of its range.

    >>> instead(Knob("hidden", 0.0, 0.6, kind="rate"), 0.25)
    0.0
    >>> instead(Knob("lr", 1e-5, 1e-1, log=True), 0.02)
    0.001
    """
    if knob.optional or (knob.kind == "rate" and knob.low == 0):
        return knob.off
    if knob.default is not None:
        return knob.default
    if knob.kind == "choice":
        return next((choice for choice in knob.choices if choice != value), value)
    middle = math.sqrt(knob.low * knob.high) if knob.log else (knob.low + knob.high) / 2
    return round(middle) if knob.kind == "int" else float(f"{middle:.4g}")


def ablation(search: Search, work: Work, repeats: int) -> Work | None:
    """The work of it: the best setting, then each one without a knob, all repeated."""
    best = search.best
    if best is None:
        return None
    without = [best.params | {k.name: instead(k, best.params[k.name])} for k in search.space]
    settings = [best.params, *(params for params in without if params != best.params)]
    queue = tuple(setting for setting in settings for _ in range(repeats))
    name = f"{work.terms.name}/without/{best.number}"
    terms = replace(work.terms, name=name, queue=queue, repeats=repeats)
    return replace(
        work,
        terms=terms,
        trials=len(queue),
        left=math.inf,
        keep=0,
        patience=None,
        known=frozenset(),
    )


def worths(search: Search, ablated: Search) -> tuple[Worth, ...]:
    """What each knob was worth, most first."""
    groups: dict[str, dict[int, Tried]] = {}
    for trial in ablated.of("done"):
        groups.setdefault(repr(sorted(trial.params.items(), key=str)), {})[trial.seed] = trial
    best = search.best
    if best is None:
        return ()
    whole = groups.pop(repr(sorted(best.params.items(), key=str)), {})
    found = [
        _worth(search, best, whole, without)
        for without in groups.values()
        if whole.keys() & without
    ]
    return tuple(sorted(found, key=lambda worth: -worth.loss))


def _worth(
    search: Search, best: Tried, whole: dict[int, Tried], without: dict[int, Tried]
) -> Worth:
    params = next(iter(without.values())).params
    knob = next(name for name in best.params if params[name] != best.params[name])
    sign = -1.0 if search.direction == "maximize" else 1.0
    losses = [
        sign * ((without[seed].score or 0.0) - (whole[seed].score or 0.0))
        for seed in sorted(whole.keys() & without.keys())
    ]
    error = stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else None
    return Worth(knob, best.params[knob], params[knob], mean(losses), error, len(losses))
