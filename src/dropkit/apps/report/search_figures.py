"""Pictures of the search: validation loss against the rate, and what each regularizer bought."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dropkit.apps.report.ink import ACCENT, INK, MUTED, PAPER, WARN, rows_axis, svg
from dropkit.apps.report.judgement import winner
from dropkit.apps.report.metrics import METRICS
from dropkit.apps.report.verdict import name_of
from dropkit.records import Effect, Fit, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def rate(fit: Fit) -> str:
    """Validation loss against hidden dropout rate."""
    best = winner(fit)
    if best is None or len(fit.outcome.trials) < 2:
        return ""
    label = (
        "Validation loss against hidden dropout rate, with standard errors; the winner is marked"
    )
    return svg("rate", label, partial(_draw_rate, fit, best), height=2.85)


def _draw_rate(fit: Fit, best: Trial, figure: Figure) -> None:
    axes = figure.subplots()
    finite = [trial for trial in fit.outcome.trials if np.isfinite(trial.loss)]
    grid = sorted((trial for trial in finite if trial.origin == "grid"), key=_rate_of)
    others = [trial for trial in finite if trial.origin in ("sampled", "refined")]
    axes.plot(
        [_rate_of(trial) for trial in others], [trial.loss for trial in others], "o", color=MUTED,
        alpha=0.4, markersize=3.6, markeredgewidth=0,
    )  # fmt: skip
    axes.errorbar(
        [_rate_of(trial) for trial in grid], [trial.loss for trial in grid],
        yerr=[trial.error for trial in grid], fmt="o-", color=INK, markersize=4.5, linewidth=1.2,
        elinewidth=1.0, capsize=0,
    )  # fmt: skip
    early = [trial for trial in grid if trial.left < 1]
    axes.plot(
        [_rate_of(trial) for trial in early], [trial.loss for trial in early], "o", color=INK,
        markerfacecolor=PAPER, markersize=4.5, zorder=5,
    )  # fmt: skip
    _mark_winner(axes, best)
    axes.set_ylim(*_rate_limits(grid, others, best))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_title(f"validation {METRICS[fit.outcome.metric].loss_title}")
    axes.set_xlabel("hidden dropout rate")


def _mark_winner(axes: Axes, best: Trial) -> None:
    axes.errorbar(
        [_rate_of(best)], [best.loss], yerr=[best.error], fmt="o", color=ACCENT, markersize=7,
        markeredgecolor=PAPER, elinewidth=1.4, zorder=6,
    )  # fmt: skip
    side = "left" if _rate_of(best) < 0.4 else "right"
    axes.annotate(
        "winner", (_rate_of(best), best.loss), xytext=(9 if side == "left" else -9, -7),
        textcoords="offset points", ha=side, va="top", color=ACCENT,
    )  # fmt: skip


def _rate_limits(grid: list[Trial], others: list[Trial], best: Trial) -> tuple[float, float]:
    """Limits that show the grid whole; trials far worse than it stay outside."""
    core = grid or others
    low = min(trial.loss - trial.error for trial in [*core, best])
    high = max(trial.loss + trial.error for trial in [*core, best])
    low = min(low, *(trial.loss for trial in others)) if others else low
    margin = 0.12 * (high - low) or 0.1
    return low - margin, high + margin


def _rate_of(trial: Trial) -> float:
    return trial.cocktail.hidden_dropout


def effects(fit: Fit) -> str:
    """What each regularizer bought, with its interval: right of zero, it helped."""
    measured = sorted(fit.outcome.effects, key=_gain, reverse=True)
    if not measured:
        return ""
    label = "What each regularizer saved in validation loss, with 95 % intervals"
    height = 0.9 + 0.31 * len(measured)
    loss = METRICS[fit.outcome.metric].loss_title
    return svg("effects", label, partial(_draw_effects, measured, loss), height=height)


def _gain(effect: Effect) -> float:
    return effect.gain


def _draw_effects(measured: list[Effect], loss: str, figure: Figure) -> None:
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for row, effect in enumerate(measured):
        clear = effect.low > 0 or effect.high < 0
        colour = MUTED if not clear else ACCENT if effect.low > 0 else WARN
        axes.plot([effect.low, effect.high], [row, row], color=colour, linewidth=1.8)
        axes.plot(
            effect.gain, row, "o", color=colour, markersize=6.5,
            markerfacecolor=colour if clear else PAPER, markeredgewidth=1.4,
        )  # fmt: skip
    rows_axis(axes, [name_of(effect.regularizer) for effect in measured])
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(f"validation {loss} saved")
    axes.annotate(
        "helped →", (0, 1), xycoords=axes.get_xaxis_transform(), xytext=(4, 3),
        textcoords="offset points", color=MUTED,
    )  # fmt: skip
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.2 * (high - low)), max(high, 0.3 * (high - low)))
