"""What a search may turn in a model: the rates of its roles, and what regularizes beside them."""

from __future__ import annotations

from collections.abc import Sequence

from dropkit.inspection.ranges import HIDDEN, Range
from dropkit.planning.groups import group_of
from dropkit.planning.levers import Lever
from dropkit.planning.plan import Plan
from dropkit.planning.policy import USUAL
from dropkit.records import Knob, Role, Space

_BELOW, _ABOVE, _MOST = 0.2, 1.5, 0.9
"""A search looks from a fifth of the lowest usual rate to 1.5 times the highest; and at none."""


def discover(plan: Plan, *, classes: bool = False, training: bool = True) -> Space:
    """The space in which a model's regularization is searched.

    For each role that it has, whether it drops and how much, around the rates that are usual for
    what the sites are and around the model's own, with which the search begins. Beside them the
    learning rate, weight decay and, for classes, label smoothing: they trade off with dropout, so
    that one alone is never at its best.

    Args:
        plan: of the model, `dropkit.rates(model, *inputs)`.
        classes: whether labels can be smoothed.
        training: whether the learning rate and weight decay are searched, too.

    >>> import torch, dropkit
    >>> from dropkit.planning.discovering import discover
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5),
    ...                           torch.nn.Linear(8, 2))
    >>> for knob in discover(dropkit.rates(net, torch.ones(2, 4))):
    ...     print(knob.name, knob.low, knob.high, knob.default)
    hidden 0.06 0.75 0.5
    lr 0.0001 0.03 0.001
    weight_decay 1e-06 0.1 0.0
    """
    movable = [lever for lever in plan if lever.moves]
    roles = dict.fromkeys(lever.site.role for lever in movable)
    attends = any(lever.site.role == "attention" for lever in plan)
    knobs = [
        _knob(role, [lever for lever in movable if lever.site.role == role], attends)
        for role in roles
    ]
    if training:
        knobs += [_learning_rate(attends), _decay(attends)]
    return Space((*knobs, _SMOOTHING)) if classes else Space(tuple(knobs))


def _knob(role: Role, levers: Sequence[Lever], attends: bool) -> Knob:
    """From the lowest to the highest of its sites, and the model's own rate among them."""
    ranges = [_usual(lever, attends) for lever in levers]
    rates = [lever.rate for lever in levers]
    low = min(part.low or part.high / 4 for part in ranges)
    high = max(part.high for part in ranges)
    own = sum(rates) / len(rates)
    said = ", ".join(
        dict.fromkeys(f"{part.low:g} to {part.high:g} for {part.of}" for part in ranges)
    )
    bottom = round(min(_BELOW * low, *(rate for rate in rates if rate > 0), 1.0), 4)
    top = round(min(_MOST, max(_ABOVE * high, *rates)), 4)
    return Knob(
        role,
        bottom,
        top,
        kind="rate",
        optional=True,
        default=min(max(own, bottom), top) if own else 0.0,
        reason=f"{len(levers)} sites, of {own:.3g} in the mean; usual: {said}",
    )


def _usual(lever: Lever, attends: bool) -> Range:
    """As `recommend` has it; of what is dropped on an output, where none is usual, as hidden."""
    usual = USUAL.get(group_of(lever.site, attends))
    return HIDDEN if usual is None else usual.range


def _learning_rate(attends: bool) -> Knob:
    low, high, default = (1e-5, 1e-3, 1e-4) if attends else (1e-4, 3e-2, 1e-3)
    of = "a transformer" if attends else "networks without attention"
    return Knob("lr", low, high, log=True, default=default, reason=f"of Adam, for {of}")


def _decay(attends: bool) -> Knob:
    return Knob(
        "weight_decay",
        1e-6,
        0.3 if attends else 0.1,
        log=True,
        optional=True,
        default=0.0,
        reason="complements dropout: most strong baselines use both",
    )


_SMOOTHING = Knob(
    "label_smoothing",
    0.01,
    0.2,
    optional=True,
    default=0.0,
    reason="keeps classes from being told with certainty",
)
