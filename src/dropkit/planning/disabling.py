"""Dropout that is off, whatever the mode, with the proof that it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.errors import PlanError, SettingError
from dropkit.inspection.evidence import look
from dropkit.inspection.passes import tensors
from dropkit.intercept import Operation, attach, detach, forgetting, uncompiled, untouched
from dropkit.intercept.numbers import Number, is_called_rate, numbers
from dropkit.intercept.untouched import same_bits
from dropkit.planning.levers import found, writable
from dropkit.planning.moving import Touched
from dropkit.records import Site


def disable(model: nn.Module, *args: Any, **kwargs: Any) -> Disabled:
    """Switch off all dropout of a model, also in training mode, until it is restored.

    For preference optimization, whose ratios of probabilities take dropout's noise for preference;
    for gradient checks, and to overfit one batch. Numbers that are rates become 0, by their names
    and, with inputs, by what they do; those that evaluation hangs on are left. Hooks let no dropout
    of torch's functions drop, not those of the source and of attention either. Parameters, modes
    and `state_dict` stay as they are.

    Args:
        model: any module; what `torch.compile` makes of it has to be compiled after, and a step
            that is compiled with it after `torch._dynamo.reset()`.
        args, kwargs: what it is called with. Given, it is run twice in training mode, and has to
            give the same to the bit, in tensors; else nothing is proven.

    Returns:
        What was touched and whether it is proven. It can stand in a `with`, and `restore()` undoes
        it.

    Raises:
        SettingError: no module.
        PlanError: it still draws; the message says where. It is given back as it was.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5))
    >>> with dropkit.disable(net, torch.ones(2, 4)) as off:
    ...     print(off)
    1.p: 0.5 -> 0
    off, proven: two passes in training mode are equal to the bit
    >>> net[1].p
    0.5
    """
    if not isinstance(model, nn.Module):
        raise SettingError(f"model: expected a torch.nn.Module; got {type(model).__name__}")
    inner = uncompiled(model)
    given = bool(args or kwargs)
    rates = {_same_as(number): (number, is_rate) for number, is_rate in _named(inner)}
    stuck, only_named = False, {**rates}
    unread: tuple[Site, ...] = ()
    if given:
        unread = (looked := found(inner, args, kwargs)).unread
        for lever in looked.levers:
            stuck |= not lever.moves and lever.rate > 0
            if lever.number is not None:
                only_named.pop(_same_as(lever.number), None)
                rates[_same_as(lever.number)] = lever.number, lever.sign > 0
    disabled = Disabled(inner, {}, proven=False)
    told = _evaluated(inner, args, kwargs) if given else []
    try:
        disabled.switch_off(rates.values())
        attach(inner, _off)
        if given:
            if not _equal([told, _evaluated(inner, args, kwargs)]):
                disabled.spare(number for number, _ in only_named.values())
            disabled.lacks = _lacking(inner, args, kwargs, unread, stuck=stuck)
            disabled.proven = not disabled.lacks
    except BaseException:
        disabled.restore()
        raise
    return disabled


def _same_as(number: Number) -> tuple[int, str]:
    return id(number.owner), number.name


@dataclass(eq=False)
class Disabled:
    """A model whose dropout is off."""

    model: nn.Module
    before: dict[Number, float]
    proven: bool
    """Whether two passes in training mode were equal to the bit."""
    lacks: str = "without inputs"
    """What a proof would need."""

    @property
    def touched(self) -> tuple[Touched, ...]:
        """Numbers of the model that have another value."""
        return tuple(Touched(n.path, was, n.value) for n, was in self.before.items())

    def switch_off(self, numbers: Iterable[tuple[Number, bool]]) -> None:
        """Those that are rates become 0, those that are what is kept 1."""
        for number, is_rate in numbers:
            if writable(number):
                self.write(number, 0.0 if is_rate else 1.0)

    def write(self, number: Number, value: float) -> None:
        """Another value, which is remembered."""
        if number.value != value:
            self.before.setdefault(number, number.held)
            number.write(value)

    def spare(self, numbers: Iterable[Number]) -> None:
        """Give some back, since evaluation hangs on them: only their names are those of rates."""
        for number in numbers:
            if number in self.before:
                number.write(self.before.pop(number))

    def restore(self) -> None:
        """Give the model back as it was."""
        self.spare([*self.before])
        detach(self.model, _off)

    def __enter__(self) -> Disabled:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def __str__(self) -> str:
        said = ", proven: two passes in training mode are equal to the bit" if self.proven else ""
        return "\n".join([*map(str, self.touched), f"off{said or '; not proven, ' + self.lacks}"])


_NO_RATES = ("_last", "_scale")
"""Ends of names that tell of a dropout, and not of how much it drops."""


def _off(call: Operation) -> Any:
    """The handler: nothing drops."""
    return call.run(**({"dropout_p": 0.0} if call.is_attention else {"training": False}))


_off.precedes = True  # type: ignore[attr-defined]


def _named(model: nn.Module) -> Iterator[tuple[Number, bool]]:
    """Numbers that are called a rate, and whether they are one; False: a part that is kept."""
    for number in numbers(model):
        name = number.name.lower()
        if "keep" in name and any(word in name for word in ("prob", "rate", "drop")):
            yield number, False
        elif is_called_rate(number.owner, name) and not name.endswith(_NO_RATES):
            yield number, True


def _lacking(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    unread: Sequence[Site],
    *,
    stuck: bool,
) -> str:
    """What a proof would need; "": it is proven. `stuck`: a mask may seldom show in two passes."""
    passes = _passes(model, args, kwargs, training=True, count=2)
    equal = _equal(passes)
    sites = look(model, args, kwargs, gradients=False).sites if stuck or not equal else ()
    drawn = [site for site in sites if site.fired_in_train and not (equal and not _drops(site))]
    if equal and not drawn:
        if not passes[0]:
            return "without tensors that have values"
        return f"without the rate of {_said(unread[0])}, which is not seen" if unread else ""
    said = "a mask could make them differ" if equal else "they differ"
    raise PlanError(
        f"expected two passes in training mode that are equal to the bit; {said}, and what still "
        f"draws is {'; '.join(map(_said, drawn[:5])) or 'not seen'}. It was given back as it was. "
        "Try to make the rate there an attribute of the module, such as self.drop_prob"
    )


def _passes(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    training: bool,
    count: int,
) -> list[list[Tensor]]:
    """What comes out; each pass finds what the model was, and other random states."""
    passes = []
    with untouched(model), torch.no_grad():
        model.train(training)
        for _ in range(count):
            with forgetting(model):
                outputs = tensors(model(*args, **kwargs))
                passes.append([x.clone() for x in outputs if not x.is_meta])
    return passes


def _evaluated(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """What comes out in evaluation mode; nothing if it cannot run in it."""
    try:
        return _passes(model, args, kwargs, training=False, count=1)[0]
    except Exception:  # of somebody else's model, which needs not evaluate
        return []


def _equal(passes: list[list[Tensor]]) -> bool:
    one, other = passes
    return len(one) == len(other) and all(map(same_bits, one, other))


def _drops(site: Site) -> bool:
    return site.kind not in ("random", "noise") and (site.rate or 0.0) > 0


def _said(site: Site) -> str:
    return f"{site.path or 'the model itself'} ({site.operation}) at {site.place or 'no line'}"
