"""K networks of one shape trained as one computation, over cross-validation folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropkit.kernel import Stream, derive
from dropkit.records import Cocktail, Curve
from dropkit.training.doses import Doses, row_loss
from dropkit.training.encoding import Encoded, Layout
from dropkit.training.network import Bins, Inputs, Masks, Parameters, Shape, forward, initialize
from dropkit.training.optimizer import Optimizer

_TRAIN_ROWS = 1024
"""Training rows looked at in evaluation mode: enough for a curve, and cheap."""
_CELLS = 1 << 22
"""Activations of one evaluation pass: larger row sets are evaluated in pieces."""


@dataclass(frozen=True, slots=True)
class Material:
    """What every member of a population learns from."""

    rows: Encoded
    truth: Tensor
    """Class codes (int64), or standardized values (float32)."""
    layout: Layout
    bins: Bins
    shape: Shape
    prior: Tensor
    """Output of a network that has learned nothing: log class frequencies, or 0."""


@dataclass(frozen=True, slots=True)
class Member:
    """One network to be trained: its cocktail, its fold and the name of its starting point."""

    cocktail: Cocktail
    fold: int
    key: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and in which strides a population trains."""

    epochs: int
    batch: int
    evaluations: int
    patience: float
    """A member stops when its validation loss has not improved for this share of the epochs."""


class Population:
    """Members in training; those that stop are taken out of the computation.

    Every member's best weights so far, by validation loss, are kept. All randomness is a
    function of `key`, the step and the members alive, so a restored population goes on in the
    same bits.
    """

    def __init__(
        self,
        material: Material,
        folds: Sequence[Tensor],
        members: Sequence[Member],
        pace: Pace,
        key: int,
    ) -> None:
        self.material, self.pace, self.members = material, pace, tuple(members)
        self._key, self._device = key, material.truth.device
        self._validation = [fold.to(self._device) for fold in folds]
        self._train = [_others(fold, len(material.truth)).to(self._device) for fold in folds]
        self._rows = max(len(rows) for rows in self._train)
        self.batch = min(pace.batch, self._rows)
        self.steps_per_epoch = self._rows // self.batch
        self.total = pace.epochs * self.steps_per_epoch
        self.step = 0
        self.alive = list(range(len(members)))
        cocktails = [member.cocktail for member in members]
        self.doses = Doses(cocktails, material.layout, self._device)
        keys = [member.key for member in members]
        self.parameters = initialize(material.shape, material.prior, keys)
        self.optimizer = Optimizer(self.parameters, self.doses, self.steps_per_epoch)
        self.best = {name: value.clone() for name, value in self.parameters.items()}
        self.best_loss = [math.inf] * len(members)
        self.best_point = [0] * len(members)
        self.history: list[list[tuple[float, float, float, float]]] = [[] for _ in members]
        self._noisy: list[Tensor] = []
        self._places()

    # ---- training

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.step >= self.total or not self.alive

    @property
    def progress(self) -> float:
        """Share of the planned steps that is behind us."""
        return 1.0 if self.finished else self.step / self.total

    @property
    def interval(self) -> int:
        """Steps between evaluations."""
        return max(1, round(self.total / self.pace.evaluations))

    def advance(self) -> bool:
        """One optimizer step for all members; True when an evaluation followed it."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = Stream(derive(self._key, 0, epoch), self._device).permutation(self._rows)
        places = order[position * self.batch : (position + 1) * self.batch]
        rows = self._table[:, places]
        truth = self.material.truth[rows]
        stream = Stream(derive(self._key, 1, self.step), self._device)
        inputs, share = self.doses.mix(self.doses.corrupt(self._inputs(rows), stream), stream)
        masks = self.doses.masks(self.material.shape, self.batch, stream)
        for value in self.parameters.values():
            value.requires_grad_()
        outputs = self._forward(self.parameters, inputs, masks)
        losses = self.doses.loss(outputs, truth, share)
        values = list(self.parameters.values())
        gradients = dict(
            zip(self.parameters, torch.autograd.grad(losses.sum(), values), strict=True)
        )
        for value in values:
            value.requires_grad_(False)
        self._noisy.append(losses.detach())
        schedule = 0.5 * (1.0 + math.cos(math.pi * self.step / self.total))
        self.optimizer.step(self.parameters, gradients, schedule)
        self.step += 1
        due = self.step % self.interval == 0 or self.step == self.total
        if due:
            self.evaluate()
        return due

    def evaluate(self) -> None:
        """Note the three losses of every living member and keep the weights that are best."""
        weights = self.optimizer.weights(self.parameters)
        validation = self._mean_loss(weights, self._judged, self._judged_real)
        train = self._mean_loss(weights, self._shown, self._shown_real)
        noisy = torch.stack(self._noisy).mean(0).tolist() if self._noisy else train
        self._noisy = []
        improved: list[int] = []
        for place, member in enumerate(self.alive):
            epoch = self.step / self.steps_per_epoch
            self.history[member].append((epoch, noisy[place], train[place], validation[place]))
            if validation[place] < self.best_loss[member]:
                self.best_loss[member] = validation[place]
                self.best_point[member] = len(self.history[member]) - 1
                improved.append(place)
        if improved:
            self._store(weights, improved)
        self._retire()

    def _retire(self) -> None:
        waited = self.pace.patience * self.pace.epochs
        stay = [
            member
            for member in self.alive
            if self.step / self.steps_per_epoch - self.history[member][self.best_point[member]][0]
            <= waited
            and math.isfinite(self.history[member][-1][3])
        ]
        self.keep(stay)

    def keep(self, members: Sequence[int]) -> None:
        """Train on with these members only (numbers as in `members`)."""
        stay = set(members)
        places = [place for place, member in enumerate(self.alive) if member in stay]
        if len(places) == len(self.alive):
            return
        index = torch.tensor(places, dtype=torch.int64, device=self._device)
        self.alive = [self.alive[place] for place in places]
        self.doses = self.doses.only(places)
        self.parameters = {name: value[index] for name, value in self.parameters.items()}
        self.optimizer.keep(index, self.doses)
        self._noisy = [losses[index] for losses in self._noisy]
        self._places()

    # ---- results

    def predict(self, members: Sequence[int]) -> list[Tensor]:
        """Outputs of each member's best weights on its own fold's validation rows."""
        results = []
        for member in members:
            weights = {name: value[member : member + 1] for name, value in self.best.items()}
            rows = self._validation[self.members[member].fold].unsqueeze(0)
            results.append(self._outputs(weights, rows)[0])
        return results

    def curve(self, member: int) -> Curve:
        """A member's history."""
        epochs, noisy, train, validation = zip(*self.history[member], strict=True)
        return Curve(epochs, noisy, train, validation, self.best_point[member])

    # ---- state

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a restored population needs: tensors and plain values."""
        tensors = {
            f"{group}.{name}": value.clone()
            for group, kept in self._groups().items()
            for name, value in kept.items()
        }
        if self._noisy:
            tensors["noisy"] = torch.stack(self._noisy)
        return tensors, {
            "step": self.step,
            "steps": self.optimizer.steps,
            "alive": self.alive,
            "best_loss": self.best_loss,
            "best_point": self.best_point,
            "history": self.history,
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a `state` of a population of the same members."""
        self.keep(values["alive"])
        self.step, self.optimizer.steps = values["step"], values["steps"]
        self.best_loss, self.best_point = list(values["best_loss"]), list(values["best_point"])
        self.history = [[tuple(point) for point in points] for points in values["history"]]
        self._noisy = list(tensors["noisy"].unbind()) if "noisy" in tensors else []
        for group, kept in self._groups().items():
            for name in kept:
                value = tensors[f"{group}.{name}"]
                if value.shape != kept[name].shape:
                    raise ValueError(
                        f"tensor {group}.{name} is {tuple(value.shape)}, "
                        f"expected {tuple(kept[name].shape)}"
                    )
                kept[name] = value.to(self._device, copy=True)

    # ---- inside

    def _groups(self) -> dict[str, Parameters]:
        return {
            "now": self.parameters,
            "best": self.best,
            "first": self.optimizer.first,
            "second": self.optimizer.second,
            "average": self.optimizer.average or {},
        }

    def _places(self) -> None:
        """Row tables of the living members: training, validation, training as shown."""
        folds = [self.members[member].fold for member in self.alive]
        self._table = _padded([self._train[fold] for fold in folds], self._rows)[0]
        self._judged, self._judged_real = _padded([self._validation[fold] for fold in folds])
        shown = [_thinned(self._train[fold]) for fold in folds]
        self._shown, self._shown_real = _padded(shown)

    def _inputs(self, rows: Tensor) -> Inputs:
        table = self.material.rows
        return Inputs(table.numbers[rows], table.flags[rows], table.codes[rows])

    def _forward(self, weights: Parameters, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        return forward(self.material.shape, weights, self.material.bins, inputs, masks)

    @torch.no_grad()
    def _outputs(self, weights: Parameters, rows: Tensor) -> Tensor:
        shape = self.material.shape
        width = shape.pieces + shape.plain + sum(shape.hidden)
        step = max(1, _CELLS // (width * max(1, len(rows))))
        starts = range(0, rows.shape[1], step)
        parts = [self._forward(weights, self._inputs(rows[:, at : at + step])) for at in starts]
        return torch.cat(parts, 1)

    def _mean_loss(self, weights: Parameters, rows: Tensor, real: Tensor) -> list[float]:
        losses = row_loss(self._outputs(weights, rows), self.material.truth[rows])
        means: list[float] = ((losses * real).sum(1) / real.sum(1)).tolist()
        return means

    def _store(self, weights: Parameters, places: list[int]) -> None:
        members = torch.tensor([self.alive[place] for place in places], device=self._device)
        index = torch.tensor(places, device=self._device)
        for name, value in self.best.items():
            value[members] = weights[name][index]


def _others(fold: Tensor, rows: int) -> Tensor:
    """The rows that are not in a validation fold."""
    keep = torch.ones(rows, dtype=torch.bool)
    keep[fold.cpu()] = False
    return keep.nonzero().squeeze(1)


def _thinned(rows: Tensor) -> Tensor:
    step = max(1, len(rows) // _TRAIN_ROWS)
    return rows[::step]


def _padded(lists: Sequence[Tensor], length: int = 0) -> tuple[Tensor, Tensor]:
    """Lists of rows as one rectangle, filled up with their own rows, and what is no filling."""
    if not lists:
        return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0)
    length = max(length, *(len(rows) for rows in lists))
    table = torch.stack([rows.repeat(1 + length // len(rows))[:length] for rows in lists])
    real = torch.stack([(torch.arange(length) < len(rows)).float() for rows in lists])
    return table, real.to(table.device)
