"""What each member is given: the cocktails of K members as tensors, and the noise they call for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dropkit.kernel import Stream
from dropkit.records import Cocktail
from dropkit.training.encoding import Layout
from dropkit.training.network import EMBEDDING_WIDTH, Inputs, Masks, Shape


class Doses:
    """The cocktails of K members; one (K, 1, 1) tensor per ingredient."""

    def __init__(self, cocktails: Sequence[Cocktail], layout: Layout, device: torch.device) -> None:
        self.cocktails = tuple(cocktails)
        self._layout, self.device = layout, device
        self._columns: dict[str, Tensor] = {}
        self._used = frozenset(name for cocktail in cocktails for name in cocktail.active)
        self._features = 1 + max((*layout.numbers, *layout.flags, *layout.codes), default=-1)
        index = [torch.tensor(part, dtype=torch.int64, device=device) for part in _parts(layout)]
        self._numbers, self._flags, self._codes, self._others = index

    def column(self, name: str) -> Tensor:
        """One ingredient of all members: (members, 1, 1)."""
        if name not in self._columns:
            values = [getattr(cocktail, name) for cocktail in self.cocktails]
            column = torch.tensor(values, dtype=torch.float32, device=self.device)
            self._columns[name] = column.view(-1, 1, 1)
        return self._columns[name]

    def any(self, name: str) -> bool:
        """Whether any member takes an ingredient; what nobody takes costs nothing."""
        return name in self._used

    def only(self, members: Sequence[int]) -> Doses:
        """The doses of some of the members."""
        return Doses([self.cocktails[member] for member in members], self._layout, self.device)

    def corrupt(self, inputs: Inputs, stream: Stream) -> Inputs:
        """Feature masking and noise: cells of other rows swapped in, numbers jittered."""
        numbers, flags, codes = inputs.numbers, inputs.flags, inputs.codes
        if self.any("feature_masking"):
            shape = (*numbers.shape[:2], self._features)
            kept = stream.mask(self.column("feature_masking"), shape)
            numbers, flags, codes = (
                torch.where(kept[..., index], cells, cells.roll(1, dims=1))
                for cells, index in (
                    (numbers, self._numbers),
                    (flags, self._flags),
                    (codes, self._codes),
                )
            )
        if self.any("feature_noise"):
            noise = stream.normal(tuple(numbers.shape))
            numbers = numbers + noise * self.column("feature_noise")
        return Inputs(numbers, flags, codes)

    def mix(self, inputs: Inputs, stream: Stream) -> tuple[Inputs, Tensor | None]:
        """Mixup of each row with its neighbour in the batch, and the row's share (members, 1).

        Levels of embedded categories cannot be averaged: the larger share's level stands.
        """
        if not self.any("mixup"):
            return inputs, None
        share = stream.beta(self.column("mixup"))
        mixed = [
            cells.lerp(cells.roll(1, dims=1), 1.0 - share)
            for cells in (inputs.numbers, inputs.flags)
        ]
        codes = torch.where(share >= 0.5, inputs.codes, inputs.codes.roll(1, dims=1))
        return Inputs(mixed[0], mixed[1], codes), share.squeeze(-1)

    def masks(self, shape: Shape, rows: int, stream: Stream) -> Masks:
        """Dropout masks of one step, input and hidden."""
        members = len(self.cocktails)
        numbers = others = hidden = None
        if self.any("input_dropout") and self._features:
            rate = self.column("input_dropout")
            factor = stream.keep(rate, (members, rows, self._features))
            numbers, others = factor[..., self._numbers], factor[..., self._others]
        if self.any("hidden_dropout"):
            rate = self.column("hidden_dropout")
            hidden = tuple(stream.keep(rate, (members, rows, width)) for width in shape.hidden)
        return Masks(numbers, others, hidden)

    def loss(self, outputs: Tensor, truth: Tensor, share: Tensor | None) -> Tensor:
        """Training loss per member (members,): smoothed cross-entropy, or squared error."""
        smoothing = self.column("label_smoothing").squeeze(-1)
        rows = row_loss(outputs, truth, smoothing)
        if share is not None:
            neighbour = row_loss(outputs, truth.roll(1, dims=1), smoothing)
            rows = share * rows + (1.0 - share) * neighbour
        return rows.mean(1)


def row_loss(outputs: Tensor, truth: Tensor, smoothing: Tensor | float = 0.0) -> Tensor:
    """Loss of each row: (members, rows, outputs) against (members, rows).

    Integer truth: cross-entropy with label smoothing; floating truth: squared error.
    """
    if truth.is_floating_point():
        return (outputs[..., 0] - truth).square()
    logs = functional.log_softmax(outputs, -1)
    hit = logs.gather(-1, truth.unsqueeze(-1)).squeeze(-1)
    return -((1.0 - smoothing) * hit + smoothing * logs.mean(-1))


def _parts(layout: Layout) -> tuple[list[int], list[int], list[int], list[int]]:
    embedded = [feature for feature in layout.codes for _ in range(EMBEDDING_WIDTH)]
    flags = list(layout.flags)
    return list(layout.numbers), flags, list(layout.codes), flags + embedded
