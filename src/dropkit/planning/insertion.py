"""Puts dropout where a model has none, so that nothing else of it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import nn

from dropkit.bounds import binomial_limits
from dropkit.errors import PlanError, SettingError
from dropkit.inspection.evidence import look
from dropkit.inspection.names import ROLES, is_within
from dropkit.intercept import untouched
from dropkit.nn import LockedDropout
from dropkit.planning.advice import Recommendation
from dropkit.planning.apply import INSERTED, Applied, applied, take_out
from dropkit.planning.levers import found
from dropkit.planning.places import Place, fitting, places
from dropkit.planning.proving import FALSE_ALARM, Proof, Row, proof
from dropkit.planning.text import weight
from dropkit.records import Edit

_SHOWN = 6
_SIDE = 256


class Inserted:
    """What `dropkit.insert` put into a model; in a `with` statement it takes it out again."""

    def __init__(self, model: nn.Module, rates: Mapping[str, float], proven: Proof | None) -> None:
        self.model = model
        self.rates = dict(rates)
        """By path of what was put in, as `dropkit.rates` and `dropkit.sites` have it."""
        self.proof = proven
        """That each drops at its rate in training; None: it was not asked for."""

    def restore(self, model: nn.Module | None = None) -> None:
        """Take out what was put in, of the model or of a copy of it."""
        take_out(self.model if model is None else model)

    def __enter__(self) -> Inserted:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def __iter__(self) -> Iterator[str]:
        return iter(self.rates)

    def __len__(self) -> int:
        return len(self.rates)

    def __str__(self) -> str:
        lines = [f"{type(self.model).__name__}: {len(self)} dropouts put in"]
        lines += [f"  {path}: {rate:.4g}" for path, rate in self.rates.items()]
        return "\n".join([*lines, *([str(self.proof)] if self.proof else [])])


def insert(
    model: nn.Module,
    rates: float | Mapping[str, float] | Recommendation,
    *args: Any,
    prove: bool = True,
    **kwargs: Any,
) -> Inserted:
    """Put dropout into a model that has none, before its layers, without touching its state.

    It stands between an activation and a linear layer or convolution, whose whole channels it
    drops, and before and after recurrent layers, with one mask for all steps. Never does it stand
    where a batch norm that learns comes after it, on the output, on the trunk of a residual
    network, in a loop over time, or where a dropout stands already.

    Each becomes a part of the layer that it feeds, `dropkit_dropout`, which has no tensors: keys of
    the state dictionary stay as they are. It follows `train()` and `eval()`, and is copied with the
    model. `torch.compile` has to come after it.

    Args:
        model: any module; it is changed, until `restore`.
        rates: one rate for all usual places; rates by role (`hidden`, `conv`, `recurrent`, `head`;
            `input` and `embedding` only where named) or by path of a layer; or what
            `dropkit.recommend` says.
        args, kwargs: what the model is called with; a few rows will do.
        prove: whether to see by a run that each drops at its rate in training, and not in
            evaluation.

    Returns:
        What was put in, with the proof; `restore()` gives the model back.

    Raises:
        SettingError: no module, rates outside [0, 1), a name that no place has, or one where
            dropout may not stand, with the reason.
        PlanError: it does not drop as asked. The model was given back as it was.

    >>> import torch, dropkit
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> done = insert(net, 0.5, torch.ones(2, 4))
    >>> done.rates, done.proof.holds, list(net.state_dict())
    ({'2.dropkit_dropout': 0.5}, True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    >>> done.restore()
    >>> [site.path for site in dropkit.sites(net, torch.ones(2, 4))]
    []
    """
    _check(model)
    args, kwargs = fitting(model, args, kwargs)
    chosen = _chosen(type(model).__name__, _looked(model, args, kwargs, rates), rates)
    named = {_name(place.path): rate for place, rate in chosen}
    done = applied(model, [_edit(place, rate) for place, rate in chosen])
    try:
        _check_all(done)
        proven = _proven(model, args, kwargs, named) if prove else None
    except BaseException:
        done.undo()
        raise
    return Inserted(model, named, proven)


def _check_all(done: Applied) -> None:
    for edit, why in done.refused:
        raise SettingError(f"{edit.path}: expected a layer to put dropout before; {why}")


def _looked(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], rates: object
) -> list[Place]:
    """The places of a model; what hangs on draws may run in one look and not in another."""
    asked = set(rates.inserts) if isinstance(rates, Recommendation) else set()
    there = places(look(model, args, kwargs, gradients=False), args, kwargs)
    if asked - {place.path for place in there}:
        there = places(look(model, args, kwargs, gradients=False), args, kwargs)
    return there


def _check(model: object) -> None:
    if isinstance(model, torch.jit.ScriptModule) or not isinstance(model, nn.Module):
        raise SettingError(
            f"model: expected a module of torch that runs as Python; got {type(model).__name__}"
        )
    if hasattr(model, "_orig_mod") or model._compiled_call_impl is not None:
        raise SettingError(
            "model: expected one that is not compiled yet, since a compiled program has no place "
            "for more. Put dropout in first, then call torch.compile"
        )


def _name(path: str) -> str:
    return f"{path}.{INSERTED}".removeprefix(".")


def _edit(place: Place, rate: float) -> Edit:
    kind, arguments = "torch.nn.Dropout", {"p": rate}
    if place.how == "channels":
        kind = f"torch.nn.Dropout{place.axes}d"
    elif place.how == "locked":
        kind, arguments = "dropkit.nn.LockedDropout", arguments | {"batch_first": place.batch_first}
    return Edit("insert", place.path, kind, arguments, says=f"drop {rate:g} before {place.path}")


# ---- which places


def _chosen(
    model: str, there: Sequence[Place], rates: float | Mapping[str, float] | Recommendation
) -> list[tuple[Place, float]]:
    """Where, and at which rate."""
    if isinstance(rates, Recommendation):
        rates = rates.inserts
        if not rates:
            raise SettingError(
                f"rates: expected some to put in; the recommendation for {model} has none"
            )
    if isinstance(rates, Mapping):
        return _by_name(model, there, rates)
    rate = _rate("rates", rates)
    free = [place for place in there if place.usual and not place.refused]
    if not free:
        raise SettingError(f"expected a place for dropout in {model}. {_why_none(there)}")
    return [(place, rate) for place in free]


def _rate(name: str, rate: object) -> float:
    if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 < rate < 1:
        raise SettingError(f"{name}: expected a rate between 0 and 1; got {rate!r}")
    return float(rate)


def _by_name(
    model: str, there: Sequence[Place], rates: Mapping[str, float]
) -> list[tuple[Place, float]]:
    """By role or path; the more particular name goes first."""
    asked: dict[str, float] = {}
    for name in sorted(rates, key=weight):
        rate = _rate(name, rates[name])
        asked.update(dict.fromkeys((place.path for place in _fitting(model, there, name)), rate))
    return [(place, asked[place.path]) for place in there if place.path in asked]


def _fitting(model: str, there: Sequence[Place], name: str) -> list[Place]:
    if name in ROLES:
        named = [place for place in there if place.role == name]
        optional = name in ("input", "embedding")
        free = [p for p in named if not p.refused and (p.usual or optional)]
    else:
        named = [place for place in there if is_within(place.path, name)]
        free = [place for place in named if not place.refused]
    if free:
        return free
    if named:
        raise SettingError(f"{name}: expected a place for dropout in {model}. {_why_none(named)}")
    known = list(dict.fromkeys([*(p.role for p in there), *(p.path for p in there)]))
    raise SettingError(
        f"expected a role or a path of layers of {model}; {name!r} fits none. It has "
        f"{', '.join(map(repr, known[:_SHOWN])) or 'no layer that something feeds'}"
    )


def _why_none(there: Sequence[Place]) -> str:
    """Why there is no place."""
    if not there:
        return "It calls no layer of torch with weights that is fed by another part"
    why = [
        f"before {place.path}: {place.refused or 'no activation feeds it; name it to insist'}"
        for place in there
    ]
    rest = f"; and {len(why) - _SHOWN} more" if len(why) > _SHOWN else ""
    return f"None may be {'; '.join(why[:_SHOWN])}{rest}"


# ---- that it acts


def _proven(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], rates: Mapping[str, float]
) -> Proof:
    """That each acts at its rate in training, and none in evaluation mode."""
    levers = {
        lever.path: lever for lever in found(model, args, kwargs).levers if lever.path in rates
    }
    for path, rate in rates.items():
        lever = levers.get(path)
        if lever is None or lever.rate != rate:
            seen = "was not come to" if lever is None else f"drops {lever.rate:g}"
            raise PlanError(f"{path}: expected to drop {rate:g} in training; it {seen}")
        if not lever.site.fired_in_train and 0 not in lever.site.shape:
            raise PlanError(f"{path}: expected to drop {rate:g} in training; it dropped nothing")
        if lever.site.fired_in_eval:
            raise PlanError(f"{path}: expected to drop nothing in evaluation mode; it dropped")
    proven = proof(model, args, kwargs, list(levers.values()))
    with untouched(model):
        layers = (model.get_submodule(path) for path in levers)
        rows = tuple(map(_counted, layers, proven.rows))
    proven = replace(proven, rows=rows)
    if not proven.holds:
        raise PlanError(
            f"expected dropouts at their rates; {'; '.join(map(str, proven.failed[:5]))}"
        )
    return proven


def _counted(layer: nn.Module, row: Row) -> Row:
    """A row that was not counted in the run, since it is dropkit's own law: counted by itself."""
    if row.drawn or not isinstance(layer, LockedDropout):
        return row
    shape = (_SIDE, 1, _SIDE) if layer.batch_first else (1, _SIDE, _SIDE)
    dropped = int((layer.train()(torch.ones(shape)) == 0).sum())
    low, high = binomial_limits(_SIDE**2, row.asked, FALSE_ALARM)
    limits = low / _SIDE**2, high / _SIDE**2
    return replace(row, called=None, drawn=_SIDE**2, dropped=dropped, limits=limits)
