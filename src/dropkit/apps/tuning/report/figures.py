"""Pictures of a search: its course, what knobs were worth, and the score against each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from dropkit.apps.report.ink import ACCENT, INK, MUTED, PAPER, WARN, rows_axis, svg
from dropkit.apps.tuning.report.shares import Share
from dropkit.apps.tuning.results import Search, Tried, Worth
from dropkit.records import Knob

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def course(search: Search) -> str:
    """Each trial's score in the order of their numbers, and the best until then."""
    if len(search.of("done")) < 2:
        return ""
    return svg("course", "Score of each trial, and the best so far", partial(_course, search))


def _course(search: Search, figure: Figure) -> None:
    axes = figure.subplots()
    done = search.of("done")
    axes.plot([t.number for t in done], _scores(done), "o", color=MUTED, alpha=0.5,
              markersize=3.6, markeredgewidth=0)  # fmt: skip
    pick = max if search.direction == "maximize" else min
    best = [pick(t.score or 0.0 for t in done[: n + 1]) for n in range(len(done))]
    axes.step([t.number for t in done], best, where="post", color=ACCENT)
    axes.set_ylim(*_limits(search))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_title("score")
    axes.set_xlabel("trial")


def shares(found: Sequence[Share]) -> str:
    """How much of the variance each knob explains."""
    if not found:
        return ""
    rows = [(share.knob, 100 * share.share, 100 * share.error, False) for share in found[:16]]
    draw = partial(_rows, rows, "% of the variance of the scores", (0.0, 100.0))
    return svg("shares", "Share of the variance that each knob explains", draw, _height(rows))


def worths(found: Sequence[Worth]) -> str:
    """How much worse the score is without each knob."""
    if not found:
        return ""
    rows = [(w.knob, w.loss, w.margin or 0.0, w.loss < 0) for w in found[:16]]
    draw = partial(_rows, rows, "worse without it", None)
    return svg("worths", "How much worse the score is without each knob", draw, _height(rows))


_Row = tuple[str, float, float, bool]


def _height(rows: Sequence[_Row]) -> float:
    return 0.7 + 0.26 * len(rows)


def _rows(
    rows: Sequence[_Row], label: str, limits: tuple[float, float] | None, figure: Figure
) -> None:
    axes = figure.subplots()
    for place, (_, value, error, bad) in enumerate(rows):
        colour = WARN if bad else ACCENT
        axes.barh(place, value, height=0.5, color=colour, alpha=0.35)
        axes.errorbar([value], [place], xerr=[error], fmt="o", color=colour,
                      markersize=4, elinewidth=1.2)  # fmt: skip
    axes.axvline(0.0, color=INK, linewidth=0.8)
    rows_axis(axes, [name for name, *_ in rows])
    axes.set_xlabel(label)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.grid(axis="x")


def against(search: Search, knob: Knob, number: int) -> str:
    """The score against a knob's value."""
    label = f"Score against {knob.name}; the best trial is marked"
    return svg(f"knob{number}", label, partial(_against, search, knob), height=2.3)


def _against(search: Search, knob: Knob, figure: Figure) -> None:
    axes = figure.subplots()
    done, best = search.of("done"), search.best
    positions = _positions(axes, knob, done)
    errors = [t.error or 0.0 for t in done]
    axes.errorbar(positions, _scores(done), yerr=errors, fmt="o", color=MUTED, alpha=0.55,
                  markersize=3.6, markeredgewidth=0, elinewidth=0.7)  # fmt: skip
    if best is not None:
        at = positions[[t.number for t in done].index(best.number)]
        axes.errorbar([at], _scores([best]), yerr=[best.error or 0.0], fmt="o", color=ACCENT,
                      markersize=7, markeredgecolor=PAPER, elinewidth=1.4, zorder=6)  # fmt: skip
    axes.set_ylim(*_limits(search))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_title("score")
    axes.set_xlabel(knob.name)


def _positions(axes: Axes, knob: Knob, done: Sequence[Tried]) -> list[float]:
    """Where each trial lies along a knob; what is not used lies to the left of its range."""
    values = [trial.params[knob.name] for trial in done]
    if knob.kind == "choice":
        names = sorted({str(value) for value in values})
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return [float(names.index(str(value))) for value in values]
    if knob.kind == "int" and knob.high - knob.low <= 8:
        axes.set_xticks(range(int(knob.low), int(knob.high) + 1))
    if not knob.log:
        return [float(value) for value in values]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    off = knob.low / 3
    if any(value <= 0 for value in values):
        axes.axvline(knob.low / 1.7, color=MUTED, linewidth=0.8, linestyle=":")
        axes.annotate("off", (off, 0.02), xycoords=("data", "axes fraction"), ha="center",
                      color=MUTED)  # fmt: skip
    return [float(value) if value > 0 else off for value in values]


def _limits(search: Search) -> tuple[float, float]:
    """The range of scores that shows where it is decided: the worst tenth may lie beyond it."""
    scores = _scores(search.ranked)
    ends = (scores[0], scores[int(0.9 * (len(scores) - 1))])
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _scores(done: Sequence[Tried]) -> list[float]:
    return [trial.score or 0.0 for trial in done]
