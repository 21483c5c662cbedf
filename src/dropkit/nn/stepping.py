"""Recurrent layers a step at a time, for masks on what goes from one step to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

State = tuple[Tensor, ...]
"""(h, c) of an LSTM, (h,) of a GRU; each of shape (sequences, features)."""


class Weights(NamedTuple):
    """The weights of one layer in one direction, as torch names them."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    hr: Tensor | None


Step = Callable[[Tensor, State, Tensor, Weights], State]
"""The next state from projected inputs, the state, and the h that the weights are to see."""


def lstm_step(inputs: Tensor, state: State, seen: Tensor, weights: Weights) -> State:
    """One step of torch.nn.LSTM."""
    gates = inputs + linear(seen, weights.hh, weights.bias_hh)
    enter, forget, cell, leave = gates.chunk(4, -1)
    c = forget.sigmoid() * state[1] + enter.sigmoid() * cell.tanh()
    h = leave.sigmoid() * c.tanh()
    return (h if weights.hr is None else linear(h, weights.hr)), c


def gru_step(inputs: Tensor, state: State, seen: Tensor, weights: Weights) -> State:
    """One step of torch.nn.GRU."""
    reset, update, new = inputs.chunk(3, -1)
    h_reset, h_update, h_new = linear(seen, weights.hh, weights.bias_hh).chunk(3, -1)
    stay = (update + h_update).sigmoid()
    fresh = (new + (reset + h_reset).sigmoid() * h_new).tanh()
    return (fresh + stay * (state[0] - fresh),)


def run(
    step: Step,
    x: Tensor,
    counts: Sequence[int] | None,
    state: State,
    weights: Weights,
    mask: Tensor,
    reverse: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction over dense (T, N, F) or, with `counts`, packed (rows, F) data.

    `mask` multiplies h wherever the recurrent weights see it; its rows are ordered as the state's.
    """
    inputs = linear(x, weights.ih, weights.bias_ih)
    parts = inputs.unbind(0) if counts is None else inputs.split_with_sizes(list(counts))
    outputs: list[Tensor] = []
    ended: list[State] = []
    now = tuple(part[: len(parts[-1 if reverse else 0])] for part in state)
    for part in reversed(parts) if reverse else parts:
        now = _resized(now, len(part), state, ended)
        now = step(part, now, now[0] * mask[: len(part)], weights)
        outputs.append(now[0])
    if reverse:
        outputs.reverse()
    last = tuple(torch.cat(pieces) for pieces in zip(now, *reversed(ended), strict=True))
    return torch.stack(outputs) if counts is None else torch.cat(outputs), last


def _resized(now: State, count: int, start: State, ended: list[State]) -> State:
    """The state of the sequences that take part in a step; those that end are set aside."""
    have = len(now[0])
    if count < have:
        ended.append(tuple(part[count:] for part in now))
        return tuple(part[:count] for part in now)
    if count > have:
        pairs = zip(now, start, strict=True)
        return tuple(torch.cat([part, first[have:count]]) for part, first in pairs)
    return now
