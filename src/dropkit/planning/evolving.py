"""Rates that move while several copies of a model train: the worst go on from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dropkit.errors import SettingError
from dropkit.kernel.keys import derive
from dropkit.kernel.streams import Stream
from dropkit.planning.plan import Plan

_AWAY = 0.02
"""What a rate of 0 begins with, when it is moved."""
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class Move:
    """One member goes on where another is."""

    member: int
    """Of the members, from 0: its weights and the state of its optimizer are to be replaced."""
    like: int
    """By those of this one."""
    rates: Mapping[str, float]
    """Its rates from now on, by site; its plan has them already."""


class RatePopulation:
    """Population-based training of rates: exploit the best members, explore around their rates.

    Every member is a model with a plan, trained on its own. After some epochs each of the worst
    quarter takes over the weights of one of the best quarter, and its rates, each multiplied by
    `factor` or divided by it. So rates follow a schedule that nobody wrote down.

    Args:
        plans: one for each member, of models of one form.
        names: the roles or paths whose rates move; by default all roles whose sites can be moved.
        factor: of a move, above 1.
        quantile: the part of the members that gives up, and the part that is gone on from.
        key: names the draws.

    Raises:
        SettingError: fewer than 2 plans; no such role or path; a factor or quantile outside range.

    >>> import torch, dropkit
    >>> nets = [torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(p)) for p in (0.1, 0.5)]
    >>> plans = [dropkit.rates(net, torch.ones(2, 4)) for net in nets]
    >>> population = dropkit.RatePopulation(plans, key=3)
    >>> for move in population.step([0.2, 0.9]):  # scores: the lower the better
    ...     nets[move.member].load_state_dict(nets[move.like].state_dict())
    ...     print(move.member, move.like)
    <All keys matched successfully>
    1 0

    Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks".
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        names: Sequence[str] | None = None,
        *,
        factor: float = 1.25,
        quantile: float = 0.25,
        key: int = 0,
    ) -> None:
        if len(plans) < 2:
            raise SettingError(f"plans: expected 2 or more; got {len(plans)}")
        if not factor > 1 or not 0 < quantile <= 0.5:
            raise SettingError(
                f"expected a factor above 1, and a quantile from 0 to 0.5; got {factor}, {quantile}"
            )
        self.plans = tuple(plans)
        moving = [role for role, sites in plans[0].roles.items() if any(s.moves for s in sites)]
        self.names = tuple(names or moving)
        for plan in plans:
            for name in self.names:
                plan.named(name)
        self.factor, self.quantile = factor, quantile
        self.rounds = 0
        self._key = key

    def step(self, scores: Sequence[float], *, direction: str = "minimize") -> list[Move]:
        """Compare the members, and move the rates of the worst.

        Args:
            scores: of the members, in order; one that is no number counts as the worst.
            direction: "minimize" or "maximize".

        Returns:
            What is to be done with weights and optimizers; plans are applied already.

        Raises:
            SettingError: another number of scores; another direction.
        """
        if len(scores) != len(self.plans) or direction not in ("minimize", "maximize"):
            raise SettingError(
                f"expected {len(self.plans)} scores and minimize or maximize; got {len(scores)} "
                f"and {direction!r}"
            )
        sign = 1 if direction == "minimize" else -1
        order = sorted(range(len(scores)), key=lambda one: _rank(sign * scores[one]))
        count = max(1, int(self.quantile * len(order)))
        stream = Stream(derive(self._key, self.rounds))
        self.rounds += 1
        pairs = zip(order[-count:], order[:count], strict=True)
        return [self._move(member, like, stream) for member, like in pairs]

    def _move(self, member: int, like: int, stream: Stream) -> Move:
        plan = self.plans[member]
        plan.update(self.plans[like].rates)
        ups = stream.integers(2, (len(self.names),)).tolist()
        for name, up in zip(self.names, ups, strict=True):
            rates = plan[name].values()
            if up and not any(rates):
                plan[name] = _AWAY
            elif not up or max(rates) * self.factor <= _MOST:
                plan.scale(self.factor if up else 1 / self.factor, name)
        plan.apply(prove=False)
        return Move(
            member, like, {name: rate for n in self.names for name, rate in plan[n].items()}
        )


def _rank(score: float) -> float:
    return math.inf if math.isnan(score) else score
