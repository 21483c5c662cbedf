"""What moves the rate of each site of a model; found by moving it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dropkit.errors import SettingError
from dropkit.inspection.evidence import Evidence, explained, look
from dropkit.inspection.runs import Run
from dropkit.intercept import uncompiled
from dropkit.intercept.numbers import Number, nudged, numbers
from dropkit.intercept.operations import SIGNATURES
from dropkit.records import Site

Key = tuple[object, ...]

_EXACT = 1e-14
"""Rates that are further apart are two: a number is moved by more."""
_AT_CALL = frozenset(signature.name for signature in SIGNATURES.values())


@dataclass(slots=True, eq=False)
class Lever:
    """A site of a model, what moves its rate, and what is asked of it."""

    site: Site
    """As the model has it."""
    key: Key
    """How its calls are known again."""
    number: Number | None
    """The attribute that its rate is; None: it is written in the source."""
    sign: int
    """-1: that attribute is what is kept."""
    at_call: bool
    """Whether the rate can be set at each call, whatever the model says."""
    derived: bool = False
    """Whether its rate is computed, of numbers that may move other sites as well."""
    asked: float | None = None
    """None: the model's own."""

    @property
    def path(self) -> str:
        """Of the module within which it runs."""
        return self.site.path

    @property
    def rate(self) -> float:
        """The model's own."""
        return self.site.rate or 0.0

    @property
    def wanted(self) -> float:
        """The rate that it is to have."""
        return self.rate if self.asked is None else self.asked

    @property
    def moves(self) -> bool:
        """Whether anything moves it."""
        return self.number is not None or self.at_call

    @property
    def by_hand(self) -> bool:
        """Whether the model makes its mask itself, so that no call says at which rate."""
        return not self.at_call and self.site.kind != "recurrent"

    @property
    def name(self) -> str:
        """For a person: where it is and what it does."""
        return f"{self.path or 'the model itself'} ({self.site.kind})"


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of a model's rates."""

    levers: list[Lever]
    """In the order in which their sites run."""
    unread: tuple[Site, ...]
    """Sites whose rate is not seen, as one that Python compares a drawn number with."""
    evidence: Evidence
    """Of the model with all its numbers a little moved."""


def found(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Looked:
    """The levers of a model.

    It is looked at while every number that it holds is a little moved, each by something else. So
    what a rate hangs on is seen, not guessed from names; and a rate of 0 that would skip its
    dropout is none meanwhile.
    """
    inner = uncompiled(model)
    held = list(numbers(inner))
    with nudged(held) as who:
        evidence = look(inner, args, kwargs, gradients=False)
    trained = evidence.passes.train[0]
    if trained.failed is not None:
        raise SettingError(explained(trained.failed, trained)) from trained.failed
    runs = [*_runs(evidence)]
    levers = [_lever(run, who(run.site.rate or 0.0)) for run in runs if run.site.rate is not None]
    if any(_computed(lever) for lever in levers):
        _unmoved(levers, _runs(look(inner, args, kwargs, gradients=False)))
    unread = tuple(run.site for run in runs if run.site.rate is None)
    return Looked(levers, unread, evidence)


def writable(number: Number) -> bool:
    """Whether its owner takes a value; one that is frozen does not."""
    try:
        setattr(number.owner, number.name, vars(number.owner)[number.name])
    except Exception:  # whatever a class of somebody else says no with
        return False
    return True


def _computed(lever: Lever) -> bool:
    return lever.number is None and abs(lever.rate - round(lever.rate, 6)) > _EXACT


def _unmoved(levers: Iterable[Lever], runs: Iterable[Run]) -> None:
    """What rates that are computed are, while no number is moved."""
    there: dict[Key, list[float]] = {}
    for run in runs:
        there.setdefault(run.events[0].where.key, []).append(run.site.rate or 0.0)
    for lever in filter(_computed, levers):
        seen = lever.rate
        rate = min(
            there.get(lever.key, ()), key=lambda one: abs(one - seen), default=round(seen, 6)
        )
        lever.site = replace(lever.site, rate=rate)
        lever.derived = abs(rate - seen) > _EXACT


def _runs(evidence: Evidence) -> Iterator[Run]:
    for run in evidence.runs:
        asked = run.trained and any(event.asked for event in run.events)
        if asked and run.site.kind not in ("random", "noise"):
            yield run


def _lever(run: Run, moved: tuple[Number, int] | None) -> Lever:
    number, sign = moved or (None, 1)
    rate, event = run.site.rate, run.events[0]
    at_call = event.call in _AT_CALL
    if at_call and number is not None and not _is_near(number, run.site.path):
        number, sign = None, 1  # half of a number that was moved by what another was moved by
    if number is not None:
        rate = round(number.value if sign > 0 else 1 - number.value, 12)
        number = number if writable(number) else None
    holder = "" if number is None else number.path
    site = replace(run.site, rate=rate, holder=holder)
    return Lever(site, event.where.key, number, sign, at_call)


def _is_near(number: Number, path: str) -> bool:
    """Whether it is of a module within which something runs, of a part of that, or of none."""
    owner, own = number.path[: -len(number.name)], f"{path}." if path else ""
    is_part = own.startswith(owner) or owner.startswith(own)
    return is_part or not isinstance(number.owner, nn.Module)
