"""Pictures of what uncertainty is good for: rows handed over, promises kept, rows unlike others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dropkit.apps.report.doubt import Sampled, chance_reach, kept_promises, risk_curve, surest_first
from dropkit.apps.report.ink import ACCENT, INK, MUTED, WARN, svg
from dropkit.apps.report.metrics import Z95, Array
from dropkit.apps.report.numerals import clip
from dropkit.records import Uncertainty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 120
"""Points of a line: more could not be seen."""
LEAST = 10
"""Rows of which a mean error is still drawn."""


def handing(seen: Sampled) -> str:
    """Error of the rows that are kept, against the share of rows handed to a person."""
    if len(seen.truth) < 2 * LEAST:
        return ""
    label = (
        "Error of the rows that are kept against the share of rows handed over: the least sure "
        "first, at random, and in the best order there is"
    )
    return svg("handing", label, partial(_draw_handing, seen), height=3.3)


def _draw_handing(seen: Sampled, figure: Figure) -> None:
    axes = figure.subplots()
    errors, rows = seen.errors, len(seen.truth)
    counts = np.unique(np.linspace(max(LEAST, rows // 10), rows, POINTS).round().astype(int))
    away = 100 * (1 - counts / rows)
    scale = 100.0 if seen.classes else 1.0
    ours, noise = _means(errors[surest_first(seen.total)], counts)
    best = risk_curve(errors, surest_first(errors))[counts - 1]
    axes.fill_between(
        away, scale * np.maximum(ours - noise, 0), scale * (ours + noise), color=ACCENT, alpha=0.14,
        linewidth=0,
    )  # fmt: skip
    axes.plot(away, np.full(len(away), scale * errors.mean()), color=MUTED, dashes=(3, 3), lw=0.9)
    axes.plot(away, scale * best, color=INK, linewidth=0.9)
    axes.plot(away, scale * ours, color=ACCENT, linewidth=2.0)
    _name(axes, (100, scale * errors.mean()), "rows at random", MUTED, 4)
    what = "error rate in %" if seen.classes else "mean absolute error"
    axes.set(title=f"{what} of the rest", xlabel="rows handed over in %, the least sure first")
    axes.set(
        xlim=(0, 100), ylim=(0, 1.5 * scale * max(float(ours.max()), float(errors.mean())) or 1)
    )
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.locator_params(nbins=5)


def _means(errors: Array, counts: Array) -> tuple[Array, Array]:
    """Mean of the first n errors, and the reach of its 95 % interval (Agresti and Coull's two
    successes and two failures keep it open where all errors are equal)."""
    places, largest = counts - 1, float(errors.max()) or 1.0  # squares of 1e200 are no numbers
    shares = errors / largest
    mean = shares.cumsum()[places] / counts
    square = (shares**2).cumsum()[places] / counts
    spread = np.maximum(square - mean**2, 0) + 1 / counts / 4
    return largest * mean, largest * Z95 * np.sqrt(spread / counts)


def _name(axes: Axes, place: tuple[float, float], text: str, colour: str, up: float) -> None:
    axes.annotate(
        text, place, xytext=(-2, up), textcoords="offset points", ha="right", va="bottom",
        color=colour, fontsize=8.0,
    )  # fmt: skip


def promises(seen: Sampled, found: Uncertainty) -> str:
    """The share of rows that intervals, or sets, hold, against the share that they promise."""
    points = kept_promises(seen, found)
    if not points:
        return ""
    label = "Share of the rows whose truth is held against the share that was promised"
    return svg("promises", label, partial(_draw_promises, seen, found, points), height=3.3)


def _draw_promises(
    seen: Sampled, found: Uncertainty, points: list[tuple[float, float]], figure: Figure
) -> None:
    axes = figure.subplots()
    line = np.linspace(0, 1, 101)
    reach = [chance_reach(at, len(seen.truth), found.calibration.rows) for at in line.tolist()]
    low, high = np.maximum(line - reach, 0), np.minimum(line + reach, 1)
    axes.fill_between(100 * line, 100 * low, 100 * high, color=MUTED, alpha=0.16, linewidth=0)
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, dashes=(3, 3))
    levels, held = (100 * np.asarray(part) for part in zip(*points, strict=True))
    axes.plot(levels, held, "o-", color=ACCENT, markersize=4.5, linewidth=1.2)
    axes.set(xlim=(-2, 102), ylim=(-3, 103), title="held, in %", xlabel="promised, in %")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def unlike(seen: Sampled, found: Uncertainty) -> str:
    """How the epistemic uncertainty of made-up rows lies beside that of the rows set aside."""
    if not found.strange:
        return ""
    label = (
        "Share of rows whose epistemic uncertainty is at most so large: rows of the table, and "
        "made-up rows"
    )
    return svg("unlike", label, partial(_draw_unlike, seen, found), height=3.3)


def _draw_unlike(seen: Sampled, found: Uncertainty, figure: Figure) -> None:
    axes = figure.subplots()
    lines = [("rows of the table", seen.epistemic, INK)]
    for strange, colour in zip(found.strange, (ACCENT, WARN), strict=False):
        lines.append((clip(strange.name, 30), np.asarray(strange.epistemic), colour))
    shares = np.linspace(0, 1, POINTS)
    for name, doubt, colour in lines:
        axes.plot(np.quantile(doubt, shares), 100 * shares, color=colour, label=name)
    far = max(float(np.quantile(doubt, 0.98)) for _, doubt, _ in lines)
    unit = "mutual information in nats" if seen.classes else "standard deviation of the draws"
    axes.set(title="rows with at most so much doubt, in %", xlabel=unit)
    axes.set(xlim=(0, far or 1.0), ylim=(0, 102))
    axes.legend(
        frameon=False, loc="lower right", fontsize=8.0, labelcolor="linecolor", handlelength=1.2
    )
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
