"""Pictures of training: the winner's three losses, and all trials' validation curves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dropkit.apps.report.ink import ACCENT, INK, MUTED, PAPER, svg
from dropkit.apps.report.judgement import winner
from dropkit.apps.report.metrics import Array
from dropkit.apps.report.numerals import short
from dropkit.records import Curve, Fit, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 90
"""Points of a drawn curve: more cannot be seen at this width."""
LINES = 120
"""Trials in the overview: more would be one grey area."""


def loss_words(fit: Fit) -> str:
    """What the curves measure."""
    return "log-loss" if fit.schema.task == "classification" else "squared error (target scaled)"


def curves(fit: Fit) -> str:
    """The winner's three losses: mean over folds, each fold thin, restored points marked."""
    best = winner(fit)
    folds = [curve for curve in best.curves if curve.epochs] if best else []
    if not folds:
        return ""
    label = "Line chart of the winner's losses by epoch: as trained, training rows, validation rows"
    return svg("curves", label, partial(_draw_curves, folds, loss_words(fit)), height=2.85)


def _draw_curves(folds: list[Curve], words: str, figure: Figure) -> None:
    axes = figure.subplots()
    ends = []
    for field, colour, name, width in (
        ("noisy", MUTED, "as trained", 1.2),
        ("train", INK, "train", 1.6),
        ("validation", ACCENT, "validation", 2.0),
    ):
        if len(folds) > 1:
            for curve in folds:
                epochs, losses = _thin(curve, field)
                axes.plot(epochs, losses, color=colour, linewidth=0.6, alpha=0.3)
        epochs, losses = _mean(folds, field)
        axes.plot(
            epochs, losses, color=colour, linewidth=width, marker="o" if len(epochs) == 1 else ""
        )
        ends.append((name, colour, float(losses[-1])))
    for curve in folds:
        at = min(max(curve.best, 0), len(curve.epochs) - 1)
        axes.plot(
            curve.epochs[at],
            curve.validation[at],
            "o",
            markersize=6.5 if len(folds) == 1 else 5,
            color=ACCENT,
            markeredgecolor=PAPER,
            markeredgewidth=0.9,
            zorder=5,
        )
    _frame(
        axes,
        [getattr(curve, field) for curve in folds for field in ("noisy", "train", "validation")],
    )
    axes.set_title(words)
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    _name_ends(axes, ends)


def _thin(curve: Curve, field: str) -> tuple[Array, Array]:
    """A curve with at most `POINTS` points, the last one among them."""
    keep = np.unique(np.linspace(0, len(curve.epochs) - 1, POINTS).round().astype(int))
    return np.asarray(curve.epochs)[keep], np.asarray(getattr(curve, field))[keep]


def _mean(folds: Sequence[Curve], field: str, points: int = POINTS) -> tuple[Array, Array]:
    """Mean over folds, as far as every fold was trained; beyond, a mean would jump."""
    start = max(curve.epochs[0] for curve in folds)
    stop = min(curve.epochs[-1] for curve in folds)
    if stop <= start:
        return np.array([stop]), np.array([np.mean([getattr(curve, field)[-1] for curve in folds])])
    longest = max(len(curve.epochs) for curve in folds)
    epochs = np.linspace(start, stop, max(2, min(points, longest)))
    values = [np.interp(epochs, curve.epochs, getattr(curve, field)) for curve in folds]
    return epochs, np.asarray(np.mean(values, axis=0), dtype=np.float64)


def _frame(axes: Axes, series: Sequence[Sequence[float]]) -> None:
    """Limits that follow the bulk of the training, not its first moments; logarithmic if wide."""
    tails = [np.asarray(losses)[len(losses) // 12 :] for losses in series if len(losses)]
    values = np.concatenate(tails) if tails else np.array([])
    from matplotlib.ticker import LogLocator

    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    if low > 0 and high / low > 6:
        axes.set_yscale("log", subs=[2, 5])
        axes.yaxis.set_major_locator(LogLocator(subs=[1, 2, 5]))
        axes.yaxis.set_major_formatter(_plain_number)
        axes.yaxis.set_minor_formatter("")
        axes.set_ylim(low * 0.8, high * 1.25)
    elif high > low:
        axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def _plain_number(value: float, _position: float) -> str:
    return short(value)


def _name_ends(axes: Axes, ends: list[tuple[str, str, float]]) -> None:
    """Names right of the lines' ends, pushed apart where they would touch."""
    to_fraction = axes.transScale + axes.transLimits
    places = [float(to_fraction.transform((0.0, loss))[1]) for *_, loss in ends]
    places = [min(max(place, 0.02), 0.98) if np.isfinite(place) else 0.98 for place in places]
    last = -1.0
    for index in sorted(range(len(ends)), key=places.__getitem__):
        name, colour, _ = ends[index]
        place = last = max(places[index], last + 0.075)
        axes.annotate(
            name,
            (1.0, place),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def overview(fit: Fit) -> str:
    """Validation curves of all trials; those that left early end early."""
    trials = [
        trial
        for trial in fit.outcome.trials
        if trial.origin != "ablation" and any(curve.epochs for curve in trial.curves)
    ]
    best = winner(fit)
    if len(trials) < 2 or best is None:
        return ""
    step = max(1.0, len(trials) / LINES)
    shown = [trials[int(index * step)] for index in range(min(LINES, len(trials)))]
    if best in trials and best not in shown:
        shown.append(best)
    label = f"Validation loss by epoch of {len(shown)} trials; the winner stands out"
    return svg(
        "overview", label, partial(_draw_overview, shown, best, loss_words(fit)), height=2.85
    )


def _draw_overview(trials: list[Trial], best: Trial, words: str, figure: Figure) -> None:
    axes = figure.subplots()
    series = []
    points = max(12, min(60, 4000 // len(trials)))
    for trial in trials:
        folds = [curve for curve in trial.curves if curve.epochs]
        epochs, losses = _mean(folds, "validation", points)
        series.append(losses.tolist())
        if trial is best:
            axes.plot(epochs, losses, color=ACCENT, linewidth=2.0, zorder=4)
            end = ("winner", ACCENT, float(losses[-1]))
            continue
        axes.plot(epochs, losses, color=MUTED, linewidth=0.8, alpha=0.45)
        if trial.left < 1:
            axes.plot(epochs[-1], losses[-1], "o", color=MUTED, markersize=2.4)
    _frame(axes, series)
    axes.set_title(f"validation {words}")
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    if best in trials:
        _name_ends(axes, [end])
