"""How much work a table is given, and in which strides: a function of its size and the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dropkit.errors import SettingError
from dropkit.records import Origin
from dropkit.training.population import Pace

_STEPS = 2500
"""Optimizer steps per member: beyond it, validation losses on the tables of the docs are flat."""
_LAYERS = 3
_FEW = 8
"""Below so many trials all of them explore: refining and ablating want something to stand on."""
_GRID = 5
"""Fewest trials of the first round, if there are so many: the whole grid of rates."""
_LEAST = 2
"""Fewest trials of another round: one is no comparison."""
_CROWD = 32
"""Most trials of one round: a larger budget buys more rounds, and each learns from the last."""
_LEVELS = {"quick": 1 / 3, "standard": 1.0, "thorough": 3.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search may spend and how each population trains."""

    hidden: tuple[int, ...]
    pace: Pace
    folds: int
    trials: int
    """Cocktails that may be trained on all folds to the end, over all rounds."""

    @property
    def first(self) -> int:
        """Trials of the first round: the grid of rates and samples."""
        if self.trials < _FEW:
            return self.trials
        return min(_CROWD, max(_GRID, round(0.45 * self.trials)))

    @property
    def refined(self) -> int:
        """Trials of each round of refinement: neighbours of the best."""
        return 0 if self.trials < _FEW else min(_CROWD, max(_LEAST, self.trials // 5))

    @property
    def ablated(self) -> int:
        """Trials at the end: the winner, and the winner without one regularizer each."""
        return 0 if self.trials < _FEW else min(8, self.trials // 4)

    @property
    def trial(self) -> int:
        """Member-epochs of one trial that stays to the end."""
        return self.folds * self.pace.epochs

    @property
    def budget(self) -> float:
        """Member-epochs allowed."""
        return float(self.trials * self.trial)

    def following(self, trials: float, partly: bool = False) -> tuple[Origin, int]:
        """Which round comes next if there is room for so many trials, and of how many it is.

        A refinement comes if it leaves enough for the ablation; `partly`, also a smaller one.
        Plans too small for either go on to sample.
        """
        if self.trials < _FEW:
            return "sampled", min(_CROWD, int(max(0.0, trials)))
        spare = trials - self.ablated
        if spare >= (_LEAST if partly else self.refined):
            return "refined", min(self.refined, int(spare))
        return "ablation", min(self.ablated, int(max(0.0, trials)))

    def within(self, share: float) -> Plan:
        """A plan of about that share of the work: fewer trials, each with fewer epochs.

        Epochs give way with the square root of the share, as far as a third of them, and then
        again when a single trial is left: a learning rate that falls to zero in a short time
        beats one that is cut off while it is high.
        """
        epochs = max(share**0.5, 1 / 3)
        trials = max(1, int(self.trials * share / epochs))
        if trials == 1:
            epochs = min(epochs, share * self.trials)
        shorter = max(1, int(self.pace.epochs * epochs))
        pace = replace(self.pace, epochs=shorter, evaluations=min(40, shorter))
        return replace(self, pace=pace, trials=trials)


def plan(rows: int, folds: int, budget: str | float) -> Plan:
    """The plan for a table of so many rows; raises SettingError for a budget that is none."""
    hidden, batch, usual = _size(rows)
    trained = rows * (folds - 1) // folds if folds > 1 else rows
    epochs = int(min(256, max(8, round(_STEPS * batch / max(1, trained)))))
    pace = Pace(epochs, batch, evaluations=min(40, epochs), patience=0.3)
    amount = _trials(budget, usual, folds * epochs)
    whole = Plan((hidden,) * _LAYERS, pace, folds, max(1, int(amount)))
    return whole if amount >= 1 else whole.within(amount)


def _size(rows: int) -> tuple[int, int, int]:
    """Hidden width, batch and usual number of trials."""
    if rows < 500:
        return 64, 32, 26
    if rows < 1_000:
        return 64, 64, 26
    if rows < 3_000:
        return 128, 64, 20
    if rows < 10_000:
        return 128, 128, 18
    if rows < 50_000:
        return 192, 256, 10
    if rows < 100_000:
        return 192, 256, 14
    return 256, 512, 8


def _trials(budget: str | float, usual: int, cost: int) -> float:
    """Trials that a budget pays for, at so many member-epochs each."""
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
    return amount / cost
