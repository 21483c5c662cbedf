"""Pictures of the held-out rows: scores beside baselines, reliability, residuals."""

from __future__ import annotations

from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from dropkit.apps.report.ink import ACCENT, INK, LINE, MUTED, rows_axis, svg
from dropkit.apps.report.judgement import Judgement, predictions_of, truth_of
from dropkit.apps.report.metrics import Array, Interval, Metric
from dropkit.apps.report.numerals import clip, value_text
from dropkit.apps.report.rows import Calibration
from dropkit.records import Holdout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = 500
"""Rows up to which each is a dot; more are counted in squares."""


def scores(judged: Judgement) -> str:
    """The model's headline score beside those of the baselines, with 95 % intervals."""
    metric = judged.headline.metric
    rows = [("this model", judged.headline.interval)]
    rows += [
        (clip(rival.baseline.name, 28), rival.scores[0].interval)
        for rival in judged.rivals
        if rival.scores
    ]
    if len(rows) < 2:
        return ""
    label = f"Held-out {metric.title} of the model and of each baseline, with 95 % intervals"
    return svg("scores", label, partial(_draw_scores, metric, rows), 0.95 + 0.36 * len(rows))


def _draw_scores(metric: Metric, rows: list[tuple[str, Interval]], figure: Figure) -> None:
    axes = figure.subplots()
    scale = 100.0 if metric.percent else 1.0
    for row, (_, interval) in enumerate(rows):
        colour = MUTED if row else ACCENT
        if isfinite(interval.high - interval.low):
            ends = [scale * interval.low, scale * interval.high]
            axes.plot(ends, [row, row], color=colour, linewidth=2.0)
        axes.plot(scale * interval.value, row, "o", color=colour, markersize=7)
        axes.annotate(
            value_text(metric, interval, rows[0][1]), (1.0, row),
            xycoords=axes.get_yaxis_transform(), xytext=(8, 0), textcoords="offset points",
            va="center", annotation_clip=False,
            color=MUTED if row else ACCENT, fontweight="normal" if row else "bold",
        )  # fmt: skip
    rows_axis(axes, [name for name, _ in rows])
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    side = "← lower is better" if metric.lower_is_better else "higher is better →"
    axes.set_xlabel(f"{metric.title}{' in %' if metric.percent else ''}   {side}")


def reliability(found: Calibration) -> str:
    """Reliability diagram with the number of rows of each bin under it."""
    label = "Reliability diagram: predicted probability against the observed share, by bins"
    return svg("reliability", label, partial(_draw_reliability, found), height=3.8)


def _draw_reliability(found: Calibration, figure: Figure) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4.2, 1])
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(3, 3))
    predicted = [one.predicted for one in found.bins]
    observed = [one.observed.value for one in found.bins]
    errors = [
        [one.observed.value - one.observed.low for one in found.bins],
        [one.observed.high - one.observed.value for one in found.bins],
    ]
    above.errorbar(
        predicted, observed, yerr=np.maximum(errors, 0.0), fmt="o-", color=ACCENT, markersize=5,
        linewidth=1.2, elinewidth=1.2, capsize=0,
    )  # fmt: skip
    above.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), title="share that came true")
    above.grid(axis="y")
    above.spines["left"].set_visible(False)
    counts = [one.rows for one in found.bins]
    below.bar(predicted, counts, width=0.035, color=MUTED, alpha=0.6)
    for place, rows in zip(predicted, counts, strict=True):
        below.annotate(
            f"{rows:,}", (place, rows), xytext=(0, 2), textcoords="offset points", ha="center",
            color=MUTED, fontsize=7.0,
        )  # fmt: skip
    below.set(yticks=[], ylim=(0, 1.35 * max(counts)), title="rows", xlabel="predicted probability")
    below.spines["left"].set_visible(False)


def predicted_and_true(holdout: Holdout) -> str:
    """Predicted against true values: dots, or shaded squares where there are many rows."""
    label = "Predicted against true values of the held-out rows, with the line where both agree"
    truth, prediction = truth_of(holdout), predictions_of(holdout)[:, 0]
    return svg("values", label, partial(_draw_values, truth, prediction), height=3.4)


def _draw_values(truth: Array, prediction: Array, figure: Figure) -> None:
    axes = figure.subplots()
    low, high = _limits(truth, prediction)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, dashes=(3, 3))
    if len(truth) <= DOTS:
        size, alpha = (4.5, 0.55) if len(truth) <= 200 else (3.4, 0.4)
        axes.plot(
            prediction, truth, "o", color=ACCENT, alpha=alpha, markersize=size, markeredgewidth=0
        )
    else:
        counts, _, _ = np.histogram2d(prediction, truth, bins=40, range=[[low, high], [low, high]])
        across, up = np.nonzero(counts)
        level = np.ceil(5 * (counts[across, up] / counts.max()) ** 0.5)
        width = (high - low) / 40
        for shade in range(1, 6):
            chosen = level == shade
            axes.plot(
                low + (across[chosen] + 0.5) * width, low + (up[chosen] + 0.5) * width, "s",
                color=ACCENT, alpha=0.15 + 0.15 * shade, markersize=4.6, markeredgewidth=0,
            )  # fmt: skip
    axes.set(xlim=(low, high), ylim=(low, high), title="true", xlabel="predicted")
    axes.locator_params(nbins=5)
    axes.grid()
    axes.spines["left"].set_visible(False)


def _limits(truth: Array, prediction: Array) -> tuple[float, float]:
    both = np.concatenate([truth, prediction])
    low, high = float(both.min()), float(both.max())
    margin = 0.04 * (high - low) or max(1.0, abs(high)) * 0.1
    return low - margin, high + margin


def residuals(holdout: Holdout) -> str:
    """Histogram of predicted minus true."""
    label = "Histogram of the held-out residuals, predicted minus true"
    error = predictions_of(holdout)[:, 0] - truth_of(holdout)
    return svg("residuals", label, partial(_draw_residuals, error), height=3.4)


def _draw_residuals(error: Array, figure: Figure) -> None:
    axes = figure.subplots()
    # The widest one per cent would squeeze the rest; they are counted in the outermost bars.
    low, high = (float(end) for end in np.quantile(error, [0.005, 0.995]))
    reach = max(abs(low), abs(high)) or max(1.0, float(np.abs(error).max()))
    edges = np.linspace(-reach, reach, 2 * min(14, max(3, round(len(error) ** 0.5 / 2))) + 2)
    counts, _ = np.histogram(np.clip(error, -reach, reach), edges)
    axes.bar(
        (edges[1:] + edges[:-1]) / 2, counts, width=0.9 * (edges[1] - edges[0]), color=ACCENT,
        alpha=0.75,
    )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set(title="rows", xlabel="predicted minus true")
    axes.locator_params(nbins=5)
    axes.grid(axis="y", color=LINE)
    axes.spines["left"].set_visible(False)
