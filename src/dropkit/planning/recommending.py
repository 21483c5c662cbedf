"""Rates for a model's dropouts, and for places that have none, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import nn

from dropkit.errors import SettingError
from dropkit.inspection.evidence import look
from dropkit.inspection.ranges import FEW, MASSIVE, SMALL
from dropkit.inspection.sitemap import SiteMap
from dropkit.intercept import uncompiled
from dropkit.planning import policy
from dropkit.planning.advice import Advice, Recommendation
from dropkit.planning.depth import alone, numbered
from dropkit.planning.groups import group_of
from dropkit.planning.levers import Lever, found
from dropkit.planning.places import Place, places
from dropkit.planning.plan import Plan
from dropkit.planning.policy import Group
from dropkit.records import Site

Task = Literal["classification", "regression", "language"]
Fit = Literal["underfits", "overfits"]

_IN_BLOCKS = ("attention", "residual", "hidden")
_DROPS = ("dropout", "feature_dropout", "alpha_dropout", "attention", "recurrent", "path", "mask")


def recommend(
    model: nn.Module | Plan | SiteMap | Iterable[Site],
    *args: Any,
    rows: int | None = None,
    tokens: int | None = None,
    pretrained: bool | None = None,
    task: Task | None = None,
    fit: Fit | None = None,
    **kwargs: Any,
) -> Recommendation:
    """Say which rate is usual where, for a model and its data, and why.

    The table is that of the guide "Dropout regularization explained": rates by type of layer, by
    amount of data, for fine-tuning and massive pretraining, beside batch norm, in recurrence, never
    on the output; refined by papers that are named. Thresholds stand in the reasons: small is up
    to 10,000 rows, a fine-tuning on few data up to 100,000, massive from a billion rows or tokens.
    These are beginnings, to be chosen from on validation data.

    Args:
        model: a module; or a plan, or a map of sites, for which nothing is to be put in.
        args, kwargs: what the module is called with.
        rows: examples that it is trained on.
        tokens: tokens that a language model is trained on.
        pretrained: whether it is fine-tuned.
        task: classification, regression or language.
        fit: underfits or overfits, where that was seen.

    Returns:
        Advice for each site and each place without one.

    Raises:
        SettingError: no model, or what was told of it does not fit.

    >>> import torch, dropkit
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64),
    ...                     nn.ReLU(), nn.Linear(64, 2))
    >>> said = recommend(net, torch.ones(8, 4), rows=1_000, task="classification")
    >>> said.rates, said.inserts
    ({'2.p': 0.5}, {'5': 0.5})
    >>> said["2.p"].reason
    'hidden layers start at 0.5...; up to 10,000 rows are few: the high end of the range'
    """
    return _recommended(_Told(rows, tokens, pretrained, task, fit), *_seen(model, args, kwargs))


def _recommended(
    told: _Told,
    name: str,
    found: Sequence[tuple[Site, float | None]],
    fixed: Collection[str],
    free: Sequence[Place],
) -> Recommendation:
    attends = _attends([site for site, _ in found], free)
    depth = _depth([*(alone(site) for site, _ in found if _in_blocks(site)), *map(_path, free)])
    ramp = _depth([alone(site) for site, _ in found if site.role == "path"])
    advice = []
    for site, now in found:
        at = alone(site)
        one = _advice(site, at, group_of(site, attends), told, depth.get(at, 0.0), now)
        advice.append(replace(_scaled(one, ramp.get(at, 1.0)), fixed=at in fixed))
    put_in = [
        replace(
            _advice(place.site, place.path, group, told, depth.get(place.path, 1.0), None),
            role=place.role,
            how=place.how,
        )
        for place in free
        if not _is_covered(place, group := group_of(place.site, attends), found)
    ]
    put_in = [one for one in put_in if one.rate > 0 and told.fit != "underfits"]
    notes = _notes(told, [site for site, _ in found], fixed, put_in)
    return Recommendation(name, str(told), (*_one_for_each_number(advice), *put_in), notes)


def _attends(found: Sequence[Site], free: Sequence[Place]) -> bool:
    """Whether a model has attention, dropped or not."""
    around = (near for place in free for near in (*place.site.fed_by, *place.site.feeds))
    return any(site.role == "attention" for site in found) or any(
        near.step == "attention" for near in around
    )


def _scaled(advice: Advice, share: float) -> Advice:
    """For one block of a ramp: the range is that of the last."""
    low, high = round(advice.low * share, 4), round(advice.high * share, 4)
    return replace(advice, rate=round(advice.rate * share, 4), low=low, high=high)


def _path(place: Place) -> str:
    return place.path


def _in_blocks(site: Site) -> bool:
    return site.role in _IN_BLOCKS


def _depth(names: Sequence[str]) -> dict[str, float]:
    """How deep each lies, from 0 for the first block to 1 for the last; empty: none is numbered."""
    blocks = numbered([name for name in names if any(part.isdigit() for part in name.split("."))])
    last = max((blocks or {"": 0}).values())
    return {name: block / last if last else 1.0 for name, block in (blocks or {}).items()}


def _is_covered(place: Place, group: Group, found: Sequence[tuple[Site, float | None]]) -> bool:
    """Whether a branch is dropped elsewhere: in its block's other dropouts, or as a whole."""
    roles = {site.role for site, _ in found}
    if group == "transformer":
        return bool(roles & {"residual", "hidden", "path"})
    return "path" in roles and _ends_in_sum(place.site)


# ---- what is known


@dataclass(frozen=True, slots=True)
class _Told:
    """What a user says of a model's training."""

    rows: int | None
    tokens: int | None
    pretrained: bool | None
    task: Task | None
    fit: Fit | None

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("tokens", self.tokens)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if value is not None and not whole:
                raise SettingError(f"{name}: expected a whole number above 0; got {value!r}")
        if self.task is not None and self.task not in get_args(Task):
            raise SettingError(f"task: expected {_either(Task)}; got {self.task!r}")
        if self.fit is not None and self.fit not in get_args(Fit):
            raise SettingError(f"fit: expected {_either(Fit)}; got {self.fit!r}")
        if self.pretrained not in (None, True, False):
            raise SettingError(f"pretrained: expected True or False; got {self.pretrained!r}")

    @property
    def massive(self) -> bool:
        """Whether it is pretrained on so much that data regularize."""
        return not self.pretrained and max(self.rows or 0, self.tokens or 0) >= MASSIVE

    @property
    def tuned_on_few(self) -> bool:
        """Whether it is fine-tuned on few rows; on a number not said, few are taken for granted."""
        return bool(self.pretrained) and (self.rows is None or self.rows <= FEW)

    def __str__(self) -> str:
        said = [f"{self.rows:,} rows"] if self.rows is not None else []
        said += [f"{self.tokens:,} tokens"] if self.tokens is not None else []
        said += ["fine-tuned"] if self.pretrained else []
        said += [part for part in (self.task, self.fit) if part is not None]
        return ", ".join(said) or "nothing said of its data (try rows=, pretrained=)"


def _either(kind: Any) -> str:
    return " or ".join(get_args(kind))


def _seen(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, list[tuple[Site, float | None]], set[str], list[Place]]:
    """The name of a model, its sites with their rates, those that stay, places without one."""
    if isinstance(model, nn.Module):
        looked = found(model, args, kwargs)  # which knows dropouts at a rate of 0, too
        empty = {place.path for place in places(looked.evidence, args, kwargs)}
        there = places(look(model, args, kwargs, gradients=False), args, kwargs)
        free = [one for one in there if one.usual and not one.refused and one.path in empty]
        return type(uncompiled(model)).__name__, *_with_rates(looked.levers), free
    if isinstance(model, Plan):
        return type(model.model).__name__, *_with_rates(model.levers), []
    name = model.model if isinstance(model, SiteMap) else "a list of sites"
    ran = (site for site in _listed(model) if _is_dropout(site) and site.ran)
    return name, [(site, site.rate) for site in ran], set(), []


def _with_rates(levers: Sequence[Lever]) -> tuple[list[tuple[Site, float | None]], set[str]]:
    """Sites with their rates, and those that stay."""
    fixed = {alone(lever.site) for lever in levers if not lever.moves}
    return [(lever.site, lever.rate) for lever in levers if _is_dropout(lever.site)], fixed


def _listed(sites: Any) -> list[Site]:
    found = list(sites) if isinstance(sites, Iterable) else [sites]
    for site in found:
        if not isinstance(site, Site):
            raise SettingError(
                "model: expected a module with its inputs, a plan of dropkit.rates, or a map of "
                f"dropkit.sites; got {site!r}"
            )
    return found


def _is_dropout(site: Site) -> bool:
    return site.kind in _DROPS


# ---- where a place is


def _ends_in_sum(site: Site) -> bool:
    """Whether the layer that it feeds is the last of a residual branch."""
    later = [near.step for near in site.feeds[1:]]
    ends = (step for step in later if step in ("linear", "convolution", "residual_add", "output"))
    return next(ends, "") == "residual_add"


# ---- the rate


def _advice(
    site: Site, name: str, group: Group, told: _Told, depth: float, now: float | None
) -> Advice:
    row = _row(group, told, depth)
    if row is None:
        row = _by_amount(policy.USUAL[group], told, now)
    return Advice(name, site.role, row.rate, row.low, row.high, row.reason, row.source, now)


def _row(group: Group, told: _Told, depth: float) -> policy.Row | None:
    """The situation that goes before what is usual, if there is one."""
    if group == "output":
        return policy.OUTPUT
    if told.massive:
        return policy.PRETRAINING
    if told.tuned_on_few and group == "head":
        return policy.TUNED_HEAD
    if told.tuned_on_few and group in ("transformer", "embedding"):
        return policy.UPPER if depth > 0.5 else policy.LOWER
    return None


def _by_amount(usual: policy.Usual, told: _Told, now: float | None) -> policy.Row:
    """What is usual, at the end of its range that the data ask for."""
    low, high = usual.range.low, usual.range.high
    share = _share(told) if usual.by_rows or told.fit is not None else None
    rate, reason = usual.start, usual.reason
    if share is not None:
        amount, part = share
        step = 0.05 if high - low >= 0.2 else 0.01
        rate = round(round((low + (high - low) * part) / step) * step, 4)
        reason = f"{reason}; {policy.AMOUNTS[amount]}"
    if told.fit == "underfits":
        rate, low = min(rate, (now or 0.0) / 2), 0.0
    elif told.fit == "overfits":
        rate = max(rate, now or 0.0)
    return policy.Row("usual", low, max(high, rate), rate, reason, usual.source)


def _share(told: _Told) -> tuple[str, float] | None:
    """How far from the low end to the high one, and by which rule."""
    if told.fit is not None:
        return told.fit, float(told.fit == "overfits")
    if told.rows is None:
        return None
    if told.rows <= SMALL:
        return "small", 1.0
    if told.rows >= policy.LARGE:
        return "large", 0.0
    return "between", math.log(policy.LARGE / told.rows) / math.log(policy.LARGE / SMALL)


def _one_for_each_number(advice: Sequence[Advice]) -> list[Advice]:
    """Of sites whose rate is one number of the model, the lowest that is advised."""
    lowest: dict[str, Advice] = {}
    for one in advice:
        there = lowest.get(one.name)
        if there is None or one.rate < there.rate:
            lowest[one.name] = one
    return list(lowest.values())


def _notes(
    told: _Told, found: Sequence[Site], fixed: Collection[str], put_in: Sequence[Advice]
) -> tuple[str, ...]:
    notes = list(policy.NOTES)
    if told.pretrained and told.rows is None:
        notes.insert(0, f"How many rows was not said: up to {FEW:,} were taken for granted.")
    if any(site.role == "path" for site in found):
        notes.append("Stochastic depth is a ramp over the blocks; dropkit.depth_ramp makes others.")
    if fixed:
        notes.append(
            f"Nothing moves the rate of {', '.join(sorted(fixed)[:3])}: see dropkit.rates."
        )
    if put_in:
        notes.append("What is to be put in: dropkit.insert(model, recommendation, *inputs).")
    return tuple(notes)
