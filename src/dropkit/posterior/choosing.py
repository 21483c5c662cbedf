"""Which sites of a model are to act, and how they are known again when it runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

from torch import Tensor, nn
from torch.utils import _pytree as trees

from dropkit.errors import SamplingError, SettingError
from dropkit.inspection.evidence import look
from dropkit.inspection.names import ROLES, is_at, nearest
from dropkit.inspection.roles import role
from dropkit.intercept.operations import Operation
from dropkit.intercept.trace import Where, shape_of
from dropkit.records import Place, Site

Choice = str | Sequence[str] | Callable[[Site], bool] | None
"""Roles, paths (with * for any part), or a function of a site; None: all that drop."""
Rates = float | Mapping[str, float] | None
"""A rate for all, or by role or path; None: those of the model."""
Key = tuple[object, ...]

_PLAIN = (int, float, bool, str)
_BUILT_IN = (dict, OrderedDict, list, tuple, set, str, bytes, type(None), Tensor, nn.Parameter)
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A site of a model, and how it is known again."""

    site: Site
    key: Key


@dataclass(frozen=True, slots=True, eq=False)
class Active:
    """A site that is to act."""

    number: int
    """Of the site in its model; with it goes the stream of its masks."""
    site: Site
    rate: float | None
    asked: bool = False
    """Whether that is another rate than the model's."""


@dataclass(slots=True, eq=False)
class Plan:
    """The sites that are to act, and what else has to be known for it."""

    active: tuple[Active, ...]
    at: dict[Key, list[Active]]
    always: frozenset[Key]
    """Sites that act in evaluation mode by themselves, and are left alone."""
    known: frozenset[Key] = frozenset()
    """All sites that were found, to act or not."""
    all: bool = True
    """Whether all that drops is to act, also what is found later."""
    numbers: set[int] = field(default_factory=set)
    """Those that are taken."""
    late: dict[Key, Active] = field(default_factory=dict)
    """Dropouts that are called at some inputs, or some draws, only."""
    restless: tuple[Site, ...] = ()
    """What is random in evaluation mode, and is no dropout."""
    route: tuple[int, int] = (0, 0)
    """What a pass came to before its way hung on a draw: modules and dropouts, and operators."""
    trained: int = 0
    """Where the model draws if all of it is in training, as one number."""
    sure: bool = True
    """Whether its way hangs on no draw."""
    asks: bool = False
    """Whether it looks at values that hang on no draw: on them its way may hang."""
    shapes: set[Any] = field(default_factory=set)
    """Of inputs with which it is known to draw there."""
    opened: set[str] = field(default_factory=set)
    """Paths of modules that have to take themselves for training, or they call no dropout."""
    inserted: dict[int, Active] = field(default_factory=dict)
    """Dropouts that the model does not have: before its n-th linear layer or convolution."""
    rates: dict[str, float] = field(default_factory=dict)
    """Attributes that hold another rate meanwhile, of sites that draw their own masks."""
    own: set[int] = field(default_factory=set)
    """Sites that were not seen to let another decide, where their masks are to be shared."""
    shared: bool = False
    """Whether masks are shared along the batch."""
    batch: dict[tuple[int, int], int] = field(default_factory=dict)
    """By site and occurrence: then the axis of the batch."""

    def find(self, key: Key, call: Operation | None = None) -> Active | None:
        """The site of a call; of several at one line, that of its rate."""
        there = self.at.get(key, ())
        if len(there) > 1 and call is not None:
            rate = call.arguments["dropout_p" if call.is_attention else "p"]
            alike = [one for one in there if one.site.rate == rate]
            return (alike or there)[0]
        return there[0] if there else None

    def later(self, where: Where, call: Operation) -> Active | None:
        """A dropout that was not there when the model was looked at; None: it is none."""
        key = where.key
        if not self.all or key in self.known or call.is_attention or call.arguments["p"] == 0:
            return None
        if key not in self.late:
            rate = float(call.arguments["p"])
            site = Site(
                path=where.path, owner=where.owner, kind="dropout", rate=rate, place=where.place,
                role=role(where.path, "dropout", shape_of(call.x), (), (), False),
                operation=call.name, fired_in_train=False, fired_in_eval=False, bypassed=False,
                shape=shape_of(call.x),
            )  # fmt: skip
            number = _number(where.path, where.place, self.numbers)
            self.late[key] = Active(number, site, rate)
        return self.late[key]


# ---- the sites of a model, found once


_known: WeakKeyDictionary[nn.Module, dict[Any, tuple[Found, ...]]] = WeakKeyDictionary()


def fingerprint(model: nn.Module) -> Any:
    """Equal as long as a model has the same modules, with the same numbers and words in them.

    They are also those of objects that they hold, such as a configuration.
    """
    numbers: list[Any] = []
    seen: set[int] = set()
    for module in model.modules():
        numbers += [id(module), *module._forward_hooks, *module._forward_pre_hooks]
        for name, value in vars(module).items():
            if type(value) in _PLAIN:
                if name != "training":
                    numbers.append(value)
            elif type(value) not in _BUILT_IN and id(value) not in seen and _is_plain(value):
                seen.add(id(value))
                numbers += _held(value)
    return tuple(numbers)


def _held(value: Any) -> list[Any]:
    """Numbers and words that an object holds."""
    return [part for part in vars(value).values() if type(part) in _PLAIN]


def _is_plain(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type)


def form_of(args: Any, kwargs: Mapping[str, Any]) -> Any:
    """What the sites of a call may hang on: which inputs there are, and what is no tensor."""
    leaves, structure = trees.tree_flatten((args, dict(kwargs)))
    return structure, tuple(map(_kind, leaves))


def _kind(x: Any) -> tuple[Any, ...]:
    if isinstance(x, Tensor):
        return x.dim(), x.dtype
    return repr(x)[:200], *(_held(x) if _is_plain(x) else ())


class _Method(nn.Module):
    """A method of a model, to be looked at as a model."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return getattr(self.model, self.name)(*args, **kwargs)


def found(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    method: str = "forward",
    *,
    anew: bool = False,
) -> tuple[Found, ...]:
    """All sites of a model: it is looked at if it is new, has changed, or is called otherwise."""
    form = fingerprint(model), method, form_of(args, kwargs)
    held = _known.setdefault(model, {})
    if anew or form not in held:
        held.clear() if any(other[0] != form[0] for other in held) else None
        seen = model if method == "forward" else _Method(model, method)
        evidence = look(seen, args, kwargs, device="real", gradients=False)
        runs = [Found(run.site, run.events[0].where.key) for run in evidence.runs]
        idle = [Found(site, ()) for site in evidence.sites[len(runs) :]]
        held[form] = tuple([*runs, *idle] if seen is model else map(_without, [*runs, *idle]))
    return held[form]


def _without(one: Found) -> Found:
    """A site of a method, by its path in the model."""
    path = one.site.path.removeprefix("model").removeprefix(".")
    holder = one.site.holder.removeprefix("model.")
    return Found(replace(one.site, path=path, holder=holder), (path, *one.key[1:]))


# ---- which of them


def plan(model: str, sites: Sequence[Found], choice: Choice, rates: Rates) -> Plan:
    """The sites of a choice that drop, at their rates.

    Raises:
        SettingError: a role or path that the model does not have; a rate outside [0, 1].
        SamplingError: nothing drops.
    """
    taken: set[int] = set()
    numbered = [(_number(one.site.path, one.site.place, taken), one) for one in sites]
    dropping = [(number, one) for number, one in numbered if drops(one.site)]
    chosen = [(number, one) for number, one in dropping if is_chosen(one.site, choice)]
    _check_names(_names(choice), [one.site for _, one in dropping], "sites")
    _check_names(
        list(rates) if isinstance(rates, Mapping) else [], [o.site for _, o in dropping], "rates"
    )
    active = [_active(number, one, rates) for number, one in chosen]
    acting = [one for one in active if one.rate is None or one.rate > 0]
    if not acting:
        raise SamplingError(_nothing(model, [one.site for one in sites], active, choice))
    numbers = {one.number for one in acting}
    at: dict[Key, list[Active]] = {}
    keys = {number: one.key for number, one in numbered}
    for one in acting:
        at.setdefault(keys[one.number], []).append(one)
    others = [one for number, one in numbered if number not in numbers and one.site.fired_in_eval]
    return Plan(
        active=tuple(acting),
        at=at,
        always=frozenset(one.key for one in others),
        known=frozenset(one.key for one in sites),
        numbers=taken,
        all=choice is None and rates is None,
        restless=tuple(one.site for one in others if one.site.kind in ("random", "noise")),
    )


def _number(path: str, place: Place | None, taken: set[int]) -> int:
    """Of a site: by where it stands, whichever others there are, and on whatever machine."""
    line = "" if place is None else f"{place.function}:{place.line}"
    number = crc32(f"{path}|{line}".encode())
    while number in taken:
        number += 1
    taken.add(number)
    return number


def drops(site: Site) -> bool:
    """Whether it is a dropout: of what is drawn in evaluation mode anyway, not all is."""
    if not (site.fired_in_train or site.fired_in_eval) or site.kind == "random":
        return site.rate == 0 and site.ran and site.kind != "random"
    return not (site.kind == "noise" and site.fired_in_eval)


def is_chosen(site: Site, choice: Choice) -> bool:
    """Whether a choice takes a site."""
    if choice is None:
        return True
    if callable(choice):
        return bool(choice(site))
    return any(_matches(site, name) for name in _names(choice))


def _names(choice: Choice) -> list[str]:
    if choice is None or callable(choice):
        return []
    return [choice] if isinstance(choice, str) else list(choice)


def _matches(site: Site, name: str) -> bool:
    """Whether a name is its role, its path, or that of what it is a part of."""
    if name in ROLES:
        return site.role == name
    return is_at(site, name)


def _active(number: int, one: Found, rates: Rates) -> Active:
    rate = one.site.rate
    wanted = None if isinstance(rates, Mapping) else rates
    if isinstance(rates, Mapping):
        fitting = [value for name, value in rates.items() if _matches(one.site, name)]
        wanted = fitting[-1] if fitting else None
    if wanted is None:
        return Active(number, one.site, rate)
    return Active(number, one.site, float(wanted), asked=float(wanted) != rate)


def _check_names(names: Iterable[str], sites: Sequence[Site], option: str) -> None:
    for name in names:
        if not any(_matches(site, name) for site in sites):
            near = nearest(name, sites)
            raise SettingError(
                f"{option}: expected roles or paths of sites that drop; got {name!r}, which fits "
                f"none. Try {', '.join(map(repr, near)) if near else 'a model that drops'}"
            )


def _nothing(model: str, sites: Sequence[Site], active: Sequence[Active], choice: Choice) -> str:
    """What was looked at, and why it does not drop."""
    advice = "Try insert=0.1, which puts dropout before its layers while it is sampled"
    if active:
        places = ", ".join(_place(one.site) for one in active[:_SHOWN])
        return (
            f"expected sites at rates above 0; all {len(active)} of {model} are at 0 ({places}). "
            "Try rates=0.1"
        )
    if choice is not None and any(map(drops, sites)):
        return f"expected sites that fit {choice!r}; {model} drops, but at none of these"
    seen = [f"{_place(site)}: {_why(site)}" for site in sites[:_SHOWN]]
    looked = f"; looked at {'; '.join(seen)}" if seen else "; it holds no dropout at all"
    return f"expected a model that drops when it is trained; {model} does not{looked}. {advice}"


def _place(site: Site) -> str:
    return f"{site.path or 'the model itself'} ({site.kind})"


def _why(site: Site) -> str:
    if site.kind == "random":
        return "draws, and drops nothing"
    if not site.ran:
        return "never runs"
    return "rate 0" if site.rate == 0 else "never acts"
