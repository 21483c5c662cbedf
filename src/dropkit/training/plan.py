"""How much work a table is given, and in which strides: a function of its size and the budget."""

from __future__ import annotations

from dataclasses import dataclass

from dropkit.errors import SettingError
from dropkit.training.population import Pace

_STEPS = 2500
"""Optimizer steps per member: beyond it, validation losses on the tables of the docs are flat."""
_LAYERS = 3
_LEVELS = {"quick": 1 / 3, "standard": 1.0, "thorough": 3.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search may spend and how each population trains."""

    hidden: tuple[int, ...]
    pace: Pace
    folds: int
    trials: int
    """Cocktails that may be trained on all folds, over all rounds."""
    first: int
    """Of these, in the first round: the guide's grid and samples."""
    refined: int
    """Of these, in each round of refinement: neighbours of the best."""
    ablated: int
    """Of these, at the end: the winner, and the winner without one regularizer each."""

    @property
    def trial(self) -> int:
        """Member-epochs of one trial that stays to the end."""
        return self.folds * self.pace.epochs

    @property
    def budget(self) -> float:
        """Member-epochs allowed."""
        return float(self.trials * self.trial)

    def refines(self, work: float) -> bool:
        """Whether another round of refinement leaves enough for the ablation."""
        return self.refined > 0 and work + (self.refined + self.ablated) * self.trial <= self.budget


def plan(rows: int, folds: int, budget: str | float) -> Plan:
    """The plan for a table of so many rows; raises SettingError for a budget that is none."""
    hidden, batch, usual = _size(rows)
    trained = rows * (folds - 1) // folds if folds > 1 else rows
    epochs = int(min(150, max(8, round(_STEPS * batch / max(1, trained)))))
    pace = Pace(epochs, batch, evaluations=min(40, epochs), patience=0.3)
    trials = _trials(budget, usual, folds * epochs)
    first, refined, ablated = max(1, round(0.45 * trials)), trials // 5, min(8, trials // 4)
    return Plan((hidden,) * _LAYERS, pace, folds, trials, first, refined, ablated)


def _size(rows: int) -> tuple[int, int, int]:
    """Hidden width, batch and usual number of trials."""
    if rows < 3_000:
        return 64, 32, 26
    if rows < 10_000:
        return 128, 64, 18
    if rows < 100_000:
        return 192, 256, 14
    return 256, 512, 8


def _trials(budget: str | float, usual: int, cost: int) -> int:
    if isinstance(budget, str) and budget in ("auto", *_LEVELS):
        return max(6, round(usual * _LEVELS.get(budget, 1.0)))
    try:
        amount = float(budget)
    except (TypeError, ValueError):
        amount = float("nan")
    if not 0 < amount < float("inf"):
        raise SettingError(
            f"budget must be auto, {', '.join(_LEVELS)} or a positive number of member-epochs, "
            f"not {budget!r}"
        )
    return max(1, round(amount / cost))
