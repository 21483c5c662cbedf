"""Networks of one hidden layer, one dropout rate and any weight decays, trained as one computation.

`copies` networks for each of `splits` row sets: member (c, s) is number c * splits + s. Activations
are kept as (members, units, rows): both products of a layer are then wide ones, and rows, of which
there are most, lie beside each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import dropkit.functional as F
from dropkit.kernel import Stream, derive

BATCH, LEARNING_RATE, BETAS, EPSILON = 128, 1e-3, (0.9, 0.999), 1e-7
"""Keras 2.2's Adam and the publishers' batch."""
PRIOR_LENGTH = 1e-2


def weight_decay(rate: float, tau: Tensor, rows: int) -> Tensor:
    """The publishers' factor of the squared weights: l^2 (1 - p) / (2 N tau)."""
    return PRIOR_LENGTH**2 * (1.0 - rate) / (2.0 * rows * tau)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The parameters of all members in one matrix, so that Adam is a handful of operations."""

    flat: Tensor
    """(members, (columns + 2) * hidden + 1): first layer, its bias, second layer, its bias."""
    columns: int
    hidden: int

    @property
    def first(self) -> Tensor:
        """(members, columns + 1, hidden); the last row is the bias."""
        size = (self.columns + 1) * self.hidden
        return self.flat[:, :size].unflatten(1, (self.columns + 1, self.hidden))

    @property
    def second(self) -> Tensor:
        """(members, 1, hidden)."""
        start = (self.columns + 1) * self.hidden
        return self.flat[:, None, start : start + self.hidden]

    @property
    def last(self) -> Tensor:
        """(members, 1), the bias of the output."""
        return self.flat[:, -1:]

    def like(self, flat: Tensor) -> Weights:
        """The same layout over other values."""
        return Weights(flat, self.columns, self.hidden)

    def part(self, members: slice) -> Weights:
        """Some of the members, not copied."""
        return self.like(self.flat[members])


def initial(members: int, columns: int, hidden: int, key: int) -> Weights:
    """Glorot's uniform weights, and biases of 0."""
    weights = Weights(torch.zeros(members, (columns + 2) * hidden + 1), columns, hidden)
    stream = Stream(key)
    for layer, fan in (
        (weights.first[:, :columns], columns + hidden),
        (weights.second, hidden + 1),
    ):
        limit = math.sqrt(6.0 / fan)
        layer.copy_((2.0 * stream.uniform(tuple(layer.shape)) - 1.0) * limit)
    return weights


def forward(weights: Weights, x: Tensor, rate: float, key: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dropped inputs, dropped activations and outputs of x: (members, columns, rows)."""
    first = weights.first
    x = F.dropout(x, rate, key=derive(key, 0))
    matrix, bias = first[:, :-1].transpose(1, 2), first[:, -1, :, None]
    h = F.activation_dropout(torch.baddbmm(bias, matrix, x), "relu", rate, key=derive(key, 1))
    return x, h, torch.bmm(weights.second, h).squeeze(1).add_(weights.last)


def gradient(weights: Weights, x: Tensor, y: Tensor, rate: float, key: int) -> Tensor:
    """Of the mean squared error of each member, in the layout of the weights.

    A unit is either off, or (w x + b) / (1 - p): one product of errors and units that are on gives
    the gradients of both layers.
    """
    x, h, outputs = forward(weights, x, rate, key)
    error = (outputs - y).mul_(2.0 / y.shape[-1]).unsqueeze(1)
    on = torch.gt(h, 0.0, out=h)  # as 0 and 1
    product = torch.bmm(torch.cat([x.mul_(error), error], 1), on.transpose(1, 2))
    product /= 1.0 - rate
    result = weights.like(torch.empty_like(weights.flat))
    torch.mul(product, weights.second, out=result.first)
    torch.sum(product.mul_(weights.first), 1, keepdim=True, out=result.second)
    torch.sum(error, 2, out=result.last)
    return result.flat


class Adam:
    """Keras 2.2's: epsilon is added to the root of the second moment as it stands."""

    def __init__(self, weights: Weights, decay: Tensor) -> None:
        self._weights, self._steps = weights, 0
        self._mean, self._square = torch.zeros_like(weights.flat), torch.zeros_like(weights.flat)
        shrink = weights.like(torch.zeros_like(weights.flat))  # biases are left alone
        shrink.first[:, :-1] = 2.0 * decay[:, None, None]
        shrink.second[:] = 2.0 * decay[:, None, None]
        self._shrink = shrink.flat

    def step(self, gradient: Tensor) -> None:
        """Move the weights; `gradient` is used up."""
        self._steps += 1
        flat, (first, second) = self._weights.flat, BETAS
        gradient.addcmul_(self._shrink, flat)
        self._mean.lerp_(gradient, 1.0 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        pace = math.sqrt(1.0 - second**self._steps) / (1.0 - first**self._steps)
        root = torch.sqrt(self._square, out=gradient).add_(EPSILON)
        flat.addcdiv_(self._mean, root, value=-LEARNING_RATE * pace)


def batches(rows: int) -> list[slice]:
    """The last one is what is left."""
    return [slice(start, min(start + BATCH, rows)) for start in range(0, rows, BATCH)]


@torch.no_grad()
def train(
    x: Tensor, y: Tensor, hidden: int, rate: float, decay: Tensor, epochs: int, key: int
) -> Weights:
    """Weights of decay.numel() members, those of one split in its order of rows.

    Args:
        x: (splits, columns, rows).
        y: (splits, rows).
        hidden: units.
        rate: of the inputs' and the units' dropout.
        decay: (copies, splits), the factor of the squared weights in the loss.
        epochs: passes over the rows, in an order drawn for each.
        key: names the initial weights, the orders and the masks.
    """
    (splits, columns, rows), copies = x.shape, len(decay)
    weights = initial(copies * splits, columns, hidden, derive(key, 0))
    adam, parts = Adam(weights, decay.reshape(-1).float()), batches(rows)
    for epoch in range(epochs):
        order = Stream(derive(key, 1, epoch)).permutation(rows)
        shuffled_x = x.gather(2, order.expand(splits, columns, -1))  # several times faster than []
        shuffled_y = y[:, order]
        for number, part in enumerate(parts):
            batch_x = shuffled_x[:, :, part].repeat(copies, 1, 1)
            batch_y = shuffled_y[:, part].repeat(copies, 1)
            step = derive(key, 2, epoch * len(parts) + number)
            adam.step(gradient(weights, batch_x, batch_y, rate, step))
    return weights
