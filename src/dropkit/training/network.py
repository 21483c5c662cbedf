"""K multilayer perceptrons of one shape, computed as one.

Each parameter of the K members is one tensor with the members along its first axis, and each
layer is one batched matrix product. A single network is the case K = 1.

The network is the one that simple, careful tabular deep learning has converged on: quantile
piecewise-linear encoding of numbers (Gorishniy et al. 2022, https://arxiv.org/abs/2203.05556),
whose weights start at zero, so that a member starts as a plain network and bends only where the
data ask for it (as in TabM, https://arxiv.org/abs/2410.24210); SiLU; dropout after each
activation and none on the output; an output layer that starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from dropkit.kernel import Stream

Parameters = dict[str, Tensor]

EMBEDDING_WIDTH = 8
"""Width of the vector learned per level of a many-level category, as in RealMLP."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What K networks share: the widths of all layers."""

    numbers: int
    """Scaled numeric inputs."""
    pieces: int
    """Pieces of the piecewise-linear encoding, over all numbers."""
    flags: int
    """0/1 and -1/1 inputs: one-hot levels, booleans, missing indicators."""
    levels: tuple[int, ...]
    """Rows of the embedding table of each many-level category."""
    hidden: tuple[int, ...]
    outputs: int

    @property
    def plain(self) -> int:
        """Width of the input without the piecewise-linear encoding."""
        return self.numbers + self.flags + EMBEDDING_WIDTH * len(self.levels)

    @property
    def parameters(self) -> int:
        """Trainable parameters of one member."""
        return sum(math.prod(size) for size in sizes(self).values())

    def __str__(self) -> str:
        """The network in words."""
        widths = " x ".join(str(width) for width in self.hidden)
        return (
            f"multilayer perceptron, hidden layers {widths}, SiLU, dropout after each activation, "
            f"{self.numbers} numbers also in {self.pieces} quantile pieces, {self.outputs} outputs"
        )


@dataclass(frozen=True, slots=True)
class Bins:
    """Quantile bins of all numbers, one after the other, as a linear map to be clamped.

    A map, since a matrix product picks each piece's number six times as fast as an index does.
    """

    slope: Tensor
    """(numbers, pieces): 1 / width of a piece in the row of its number, else 0."""
    offset: Tensor
    """(pieces,): minus where a piece starts, in widths."""

    def to(self, target: torch.device | torch.dtype | str) -> Bins:
        """The same bins on another device, or at another precision."""
        return Bins(self.slope.to(target), self.offset.to(target))

    @property
    def owner(self) -> Tensor:
        """(numbers, pieces): 1 where a piece encodes a number."""
        return (self.slope != 0).to(self.slope.dtype)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch for each member: (members, rows, width) and (members, rows, embedded columns)."""

    numbers: Tensor
    flags: Tensor
    codes: Tensor


@dataclass(frozen=True, slots=True)
class Masks:
    """Factors by which activations are multiplied in training: 0, or 1 / (1 - rate)."""

    numbers: Tensor | None
    """(members, rows, numbers); applies to a number and to all its pieces alike."""
    others: Tensor | None
    """(members, rows, flags + embedded width)."""
    hidden: tuple[Tensor, ...] | None
    """One (members, rows, width) per hidden layer; None where no member drops."""


def sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Sizes of one member's parameters by name."""
    result: dict[str, tuple[int, ...]] = {}
    for index, rows in enumerate(shape.levels):
        result[f"embedding.{index}"] = (rows, EMBEDDING_WIDTH)
    if shape.pieces:
        result["pieces"] = (shape.pieces, shape.hidden[0])
    widths = (shape.plain, *shape.hidden, shape.outputs)
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        result[f"weight.{index}"] = (fan_in, fan_out)
        result[f"bias.{index}"] = (1, fan_out)
    return result


def initialize(shape: Shape, prior: Tensor, keys: Sequence[int]) -> Parameters:
    """Starting parameters on the prior's device, member k from `keys[k]` alone.

    Hidden weights are normal with variance 1 / fan-in; the encoding's pieces and the output
    weights start at zero and the output bias at `prior`, so that an untrained member predicts
    the class frequencies or the mean.
    """
    members = [_initialize_one(shape, key) for key in keys]
    result = {
        name: torch.stack([member[name] for member in members]).to(prior.device)
        for name in members[0]
    }
    result[f"bias.{len(shape.hidden)}"] += prior
    return result


def _initialize_one(shape: Shape, key: int) -> Parameters:
    stream, last = Stream(key), len(shape.hidden)
    result: Parameters = {}
    for name, size in sizes(shape).items():
        layer, _, index = name.partition(".")
        if layer == "weight" and int(index) < last:
            result[name] = stream.normal(size) / math.sqrt(max(1, size[0]))
        elif layer == "embedding":
            result[name] = stream.normal(size) / math.sqrt(EMBEDDING_WIDTH)
        elif layer == "bias" and int(index) < last:
            result[name] = 0.1 * stream.normal(size)
        else:
            result[name] = torch.zeros(size)
    return result


def decays(name: str) -> bool:
    """Whether weight decay, L1 or max-norm may touch a parameter: matrices yes, biases no."""
    return not name.startswith("bias")


def encode(numbers: Tensor, bins: Bins) -> Tensor:
    """Piecewise-linear encoding: how far a number has passed through each quantile bin, 0 to 1.

    (..., numbers) to (..., pieces).
    """
    flat = torch.addmm(bins.offset, numbers.flatten(0, -2), bins.slope).clamp_(0.0, 1.0)
    return flat.view(*numbers.shape[:-1], -1)


def forward(
    shape: Shape,
    parameters: Parameters,
    bins: Bins,
    inputs: Inputs,
    masks: Masks | None = None,
) -> Tensor:
    """Outputs (members, rows, outputs): logits, or standardized values. No masks: evaluation."""
    return finish(shape, parameters, enter(shape, parameters, bins, inputs, masks), masks)


def enter(
    shape: Shape,
    parameters: Parameters,
    bins: Bins,
    inputs: Inputs,
    masks: Masks | None = None,
) -> Tensor:
    """What the first layer makes of inputs, before its activation: (members, rows, width)."""
    plain, encoded = _inputs(shape, parameters, bins, inputs, masks)
    state = torch.baddbmm(parameters["bias.0"], plain, parameters["weight.0"])
    return state if encoded is None else torch.baddbmm(state, encoded, parameters["pieces"])


def finish(
    shape: Shape, parameters: Parameters, state: Tensor, masks: Masks | None = None
) -> Tensor:
    """Outputs, from what the first layer made of inputs."""
    for index in range(len(shape.hidden)):
        if index:
            state = torch.baddbmm(parameters[f"bias.{index}"], state, parameters[f"weight.{index}"])
        state = functional.silu(state)
        if masks is not None and masks.hidden is not None:
            state = state * masks.hidden[index]
    last = len(shape.hidden)
    return torch.baddbmm(parameters[f"bias.{last}"], state, parameters[f"weight.{last}"])


def _inputs(
    shape: Shape, parameters: Parameters, bins: Bins, inputs: Inputs, masks: Masks | None
) -> tuple[Tensor, Tensor | None]:
    numbers, others = inputs.numbers, inputs.flags
    if shape.levels:
        embedded = [
            _lookup(parameters[f"embedding.{index}"], inputs.codes[..., index])
            for index in range(len(shape.levels))
        ]
        others = torch.cat([others, *embedded], -1)
    encoded = encode(numbers, bins) if shape.pieces else None
    if masks is not None and masks.numbers is not None:
        numbers = numbers * masks.numbers
        encoded = None if encoded is None else encoded * (masks.numbers @ bins.owner)
    if masks is not None and masks.others is not None:
        others = others * masks.others
    plain = torch.cat([numbers, others], -1) if others.shape[-1] else numbers
    return plain, encoded


def _lookup(table: Tensor, codes: Tensor) -> Tensor:
    members, rows, width = table.shape
    first = torch.arange(members, device=table.device).mul_(rows).unsqueeze(1)
    return functional.embedding(codes + first, table.reshape(members * rows, width))
