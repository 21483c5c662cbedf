"""AdamW for K members at once, each with its own learning rate and penalties."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.training.doses import Doses
from dropkit.training.network import Parameters, decays

MOMENTUM, SECOND = 0.9, 0.95
"""Decay of the first and second moments; 0.95 follows RealMLP: tables want a short memory."""
_TINY = 1e-8
"""AdamW's epsilon. Its square is added to each squared gradient, so that no second moment is a
denormal number, whose root takes thirty times as long on CPUs."""


class Optimizer:
    """One step for all members: decoupled decay, proximal L1, max-norm, averaged weights.

    Source: Loshchilov & Hutter 2019 (AdamW). Differs from `torch.optim.AdamW` in that the rates
    are tensors over members, and in what follows the step.
    """

    def __init__(self, parameters: Parameters, doses: Doses, steps_per_epoch: int) -> None:
        self.steps = 0
        self._steps_per_epoch = steps_per_epoch
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.average: Parameters | None = None
        if doses.any("weight_averaging"):
            self.average = {name: value.clone() for name, value in parameters.items()}
        self._take(doses)

    def _take(self, doses: Doses) -> None:
        self._rate = doses.column("learning_rate")
        self._decay = doses.column("weight_decay")
        self._l1 = doses.column("l1") if doses.any("l1") else None
        norm = doses.column("max_norm")
        self._norm = norm.masked_fill(norm == 0, torch.inf) if doses.any("max_norm") else None
        self._memory = doses.column("weight_averaging").pow(1 / self._steps_per_epoch)

    @torch.no_grad()
    def step(self, parameters: Parameters, gradients: Parameters, schedule: float) -> None:
        """Move all parameters by one step, at `schedule` times each member's learning rate.

        The gradients are used up: their memory is the step's scratch paper.
        """
        self.steps += 1
        rate = self._rate * schedule
        stride = rate * (1.0 - SECOND**self.steps) ** 0.5 / (1.0 - MOMENTUM**self.steps)
        for name, value in parameters.items():
            gradient, first, second = gradients[name], self.first[name], self.second[name]
            first.lerp_(gradient, 1.0 - MOMENTUM)
            second.lerp_(gradient.mul_(gradient).add_(_TINY**2), 1.0 - SECOND)
            move = second.rsqrt().mul_(first)
            if decays(name):
                value.mul_(1.0 - rate * self._decay)
            value.addcmul_(move, stride, value=-1.0)
            if self._l1 is not None and name in ("weight.0", "pieces"):
                threshold = rate * self._l1  # soft threshold: what is nearer to zero becomes zero
                value.sub_(value.clamp(-threshold, threshold))
        self._bound(parameters)
        self._remember(parameters)

    def _bound(self, parameters: Parameters) -> None:
        """Max-norm of all weights into each hidden unit, the first layer's pieces among them."""
        if self._norm is None:
            return
        last = sum(name.startswith("weight") for name in parameters) - 1
        for index in range(last):
            names = [f"weight.{index}"] + ["pieces"] * (index == 0 and "pieces" in parameters)
            squares = [parameters[name].square().sum(1, keepdim=True) for name in names]
            length = torch.stack(squares).sum(0).sqrt_().clamp_min_(_TINY)
            shrink = (self._norm / length).clamp_max_(1.0)
            for name in names:
                parameters[name].mul_(shrink)

    def _remember(self, parameters: Parameters) -> None:
        if self.average is None:
            return
        warm = self.steps / (self.steps + 10.0)  # a young average forgets its start quickly
        weight = 1.0 - self._memory.clamp_max(warm)
        weight = torch.where(self._memory == 0, torch.ones_like(weight), weight)
        for name, value in parameters.items():
            self.average[name].lerp_(value, weight)

    def weights(self, parameters: Parameters) -> Parameters:
        """What to evaluate: the averaged weights where a member averages, else the current ones."""
        return parameters if self.average is None else self.average

    def keep(self, members: Tensor, doses: Doses) -> None:
        """Go on with some of the members; `doses` are theirs."""
        for state in (self.first, self.second, self.average or {}):
            for name in state:
                state[name] = state[name][members]
        self._take(doses)
