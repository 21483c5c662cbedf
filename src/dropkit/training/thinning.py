"""Networks thinned by their dropout: what the draws of a sampled prediction are.

A draw is one thinned network, the same for every row: its masks are a function of a key, and which
network it thins of its number alone. So a row's draws depend neither on the rows beside it nor on
how many draws there are. Only dropout is drawn. Feature noise, swapped cells and mixup act on the
table that a network learns from, not on the network, and stay off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dropkit.kernel import Stream, derive
from dropkit.records import Cocktail
from dropkit.training.doses import Doses
from dropkit.training.encoding import Encoded, Layout
from dropkit.training.network import Bins, Inputs, Masks, Parameters, Shape, enter, finish
from dropkit.training.outputs import Readout

_CELLS = 1 << 22
"""Activations at a time: what a draw needs of memory."""
_ROUNDING = 1e-9
"""What sums of shares may miss."""


class Rates(NamedTuple):
    """The dropout rates at which a network was trained."""

    input: float
    hidden: float

    @classmethod
    def of(cls, cocktail: Cocktail) -> Rates:
        """Those of a cocktail."""
        return cls(float(cocktail.input_dropout), float(cocktail.hidden_dropout))


class Kind(NamedTuple):
    """What all networks of a model share: how rows become outputs, and outputs predictions."""

    shape: Shape
    layout: Layout
    bins: Bins
    """In float64."""
    readout: Readout


class Network(NamedTuple):
    """One network and its rates."""

    parameters: Parameters
    """Of one member, in float64."""
    rates: Rates


def order(shares: Sequence[float], count: int) -> list[int]:
    """Which network each of `count` draws thins, so that after every draw each network has its
    share of the draws so far, to within one.

    Of the networks that are due, the one is next whose turn would be too late first.

    Source: Steiner and Yeomans 1993, "Level Schedules for Mixed-Model, Just-in-Time Processes",
    https://doi.org/10.1287/mnsc.39.6.728.

    >>> order([0.5, 0.25, 0.25], 8)
    [0, 1, 0, 2, 0, 1, 0, 2]
    """
    share = torch.tensor(shares, dtype=torch.float64)
    share = share / share.sum()
    deadline = torch.where(share > 0, (1.0 / share - _ROUNDING).ceil(), torch.inf)
    turns = torch.zeros_like(share)
    found = []
    for draw in range(1, count + 1):
        due = turns < share * draw - _ROUNDING
        chosen = int(torch.where(due, deadline, torch.inf).argmin())
        turns[chosen] += 1
        deadline[chosen] = ((turns[chosen] + 1) / share[chosen] - _ROUNDING).ceil()
        found.append(chosen)
    return found


def masks(kind: Kind, rates: Rates, key: int) -> Masks | None:
    """The masks of one thinned network, in float64 with one row that stands for all; None where
    it does not drop."""
    if not any(rates):
        return None
    cocktail = Cocktail(input_dropout=rates.input, hidden_dropout=rates.hidden)
    doses = Doses([cocktail], kind.layout, torch.device("cpu"))
    drawn = doses.masks(kind.shape, 1, Stream(key))
    hidden = None if drawn.hidden is None else tuple(mask.double() for mask in drawn.hidden)
    return Masks(_double(drawn.numbers), _double(drawn.others), hidden)


def _double(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.double()


def _inputs(rows: Encoded) -> Inputs:
    return Inputs(rows.numbers[None].double(), rows.flags[None].double(), rows.codes[None])


@torch.no_grad()
def draws(
    kind: Kind,
    networks: Sequence[Network],
    shares: Sequence[float],
    rows: Encoded,
    key: int,
    numbers: range,
) -> Tensor:
    """The draws of these numbers: probabilities (draws, rows, classes) or values (draws, rows).

    Draw t thins network `order(shares, t + 1)[t]` by masks of `derive(key, t)`.
    """
    turns = order(shares, numbers.stop)
    drawn = {draw: masks(kind, networks[turns[draw]].rates, derive(key, draw)) for draw in numbers}
    shape = kind.shape
    step = max(1, _CELLS // (shape.pieces + shape.plain + sum(shape.hidden)))
    found = torch.zeros(len(numbers), len(rows), shape.outputs, dtype=torch.float64)
    for start in range(0, len(rows), step):
        inputs = _inputs(rows[start : start + step])
        for place in sorted({turns[draw] for draw in numbers}):
            mine = {draw: mask for draw, mask in drawn.items() if turns[draw] == place}
            for draw, outputs in _of_network(kind, networks[place], inputs, mine):
                found[draw - numbers.start, start : start + step] = outputs[0]
    return kind.readout.read(found)


def _of_network(
    kind: Kind, network: Network, inputs: Inputs, drawn: Mapping[int, Masks | None]
) -> Iterator[tuple[int, Tensor]]:
    """Outputs of one network under masks; what no mask touches is computed once for all."""
    shape, weights = kind.shape, network.parameters
    untouched = None if network.rates.input else enter(shape, weights, kind.bins, inputs)
    for draw, mask in drawn.items():
        state = enter(shape, weights, kind.bins, inputs, mask) if untouched is None else untouched
        yield draw, finish(shape, weights, state, mask)
