"""Pictures of draws beside what was true: matplotlib figures, which nothing else sees or keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dropkit.errors import MissingExtraError, SettingError
from dropkit.posterior import metrics
from dropkit.posterior.truths import true_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dropkit.posterior.draws import Draws

INK, MUTED, LINE, ACCENT, WARN, PAPER = (
    "#1b1e23", "#5c636d", "#dfe0dc", "#0a63b0", "#b4500f", "#fdfdfc",
)  # fmt: skip
"""The colours of the report's page, in daylight."""

_STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 9.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "axes.titlepad": 8.0,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": MUTED,
}
_MOST_ROWS = 80
"""Intervals that one picture shows; of more rows, as many evenly spaced ones."""

_Z95 = 1.959963984540054


def draw(kind: str, draws: Draws, targets: Tensor, **options: Any) -> Figure:
    """The picture of a kind, as a figure that belongs to nobody.

    The caller's matplotlib settings are neither used nor changed, nothing is shown or written.
    """
    if kind not in _KINDS:
        raise SettingError(f"kind: expected one of {', '.join(_KINDS)}; got {kind!r}")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "plot needs the package matplotlib, which is not installed; try: pip install "
            '"dropkit[tables]"'
        ) from error
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = mpl.rcParams  # its stubs know each key's own type; ours come from a table
        settings.update(_STYLE)
        figure = Figure(figsize=(5.4, 4.3), dpi=150)
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        _KINDS[kind](figure, draws, targets, **options)
    return figure


def reliability(figure: Figure, draws: Draws, targets: Tensor, *, bins: int = 10) -> None:
    """Observed accuracy over stated confidence, with 95 % intervals, and the rows of each bin."""
    found = metrics.reliability(draws, targets, bins)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4.6, 1])
    stated, observed, rows = (x.cpu() for x in (found.stated, found.observed, found.rows))
    low, high = _wilson(observed, rows)
    reach = torch.stack([observed - low, high - observed])
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(3, 3), label="calibrated")
    above.errorbar(
        stated.tolist(), observed.tolist(), yerr=reach.clamp_min(0).numpy(), fmt="o-",
        color=ACCENT, markersize=5, linewidth=1.3, elinewidth=1.3,
        label="observed, with its 95 % interval",
    )  # fmt: skip
    start = max(0.0, float(stated.min()) - 0.06)
    above.set(xlim=(start, 1.02), ylim=(-0.03, 1.03))
    _head(figure, above, f"Expected calibration error {found.error:.3f}", "share that was right")
    above.legend(loc="lower right")
    _quiet(above)
    width = 0.7 / bins
    below.bar(stated.tolist(), rows.tolist(), width=width, color=MUTED, alpha=0.45)
    for place, count in zip(stated.tolist(), rows.tolist(), strict=True):
        below.annotate(
            f"{int(count):,}", (place, count), xytext=(0, 2), textcoords="offset points",
            ha="center", color=MUTED, fontsize=7.5,
        )  # fmt: skip
    below.set(yticks=[], ylim=(0, 1.45 * float(rows.max())))
    below.set_title(f"rows by bins, of {_said(draws, targets)}")
    below.set_xlabel("stated probability of the predicted class")
    below.spines["left"].set_visible(False)


def risk_coverage(
    figure: Figure, draws: Draws, targets: Tensor, *, by: str | Tensor = "auto", unit: str = ""
) -> None:
    """The loss of the rows that are kept, over their share, beside a random and the ideal order."""
    found = metrics.risk_coverage(draws, targets, by)
    axes = figure.subplots()
    squared = f", in {unit} squared" if unit and draws.outputs == "values" else ""
    shares = _percent(found.share)
    whole = float(found.loss[-1])
    axes.plot(shares, [whole] * len(shares), color=MUTED, linewidth=1.1, dashes=(3, 3))
    axes.plot(shares, found.ideal.tolist(), color=MUTED, linewidth=1.1)
    axes.plot(shares, found.loss.tolist(), color=ACCENT)
    _name_lines(axes, found, whole, ordered="by uncertainty")
    heading = f"Area under the curve {found.area:.3g}, in random order {whole:.3g}"
    _head(figure, axes, heading, f"{found.name} of the rows kept{squared}")
    axes.set_xlabel(f"rows kept, the most certain first, in %   ({_said(draws, targets)})")
    _quiet(axes)
    axes.set(xlim=(0, 100), ylim=(0, None))


def sparsification(
    figure: Figure, draws: Draws, targets: Tensor, *, by: str | Tensor = "auto"
) -> None:
    """What is left of the loss as the most uncertain rows are taken out, beside the ideal order."""
    found = metrics.sparsification(draws, targets, by)
    axes = figure.subplots()
    gone = [100.0 - share for share in _percent(found.share)]
    loss, ideal = found.loss.tolist(), found.ideal.tolist()
    axes.fill_between(gone, ideal, loss, color=ACCENT, alpha=0.12, linewidth=0)
    axes.plot(
        gone, [1.0] * len(gone), color=MUTED, linewidth=1.1, dashes=(3, 3), label="in random order"
    )
    axes.plot(gone, loss, color=ACCENT, label="by uncertainty")
    axes.plot(gone, ideal, color=MUTED, linewidth=1.1, label="by the true error")
    heading = f"Sparsification error {found.excess:.3f}: the area that is shaded"
    _head(figure, axes, heading, f"{found.name} of the rows left, over that of all rows")
    axes.set_xlabel(f"rows taken out, the most uncertain first, in %   ({_said(draws, targets)})")
    axes.legend(loc="best")
    _quiet(axes)
    axes.set(xlim=(0, 100), ylim=(0, None))


def intervals(
    figure: Figure,
    draws: Draws,
    targets: Tensor,
    *,
    level: float = 0.9,
    interval: tuple[Tensor, Tensor] | None = None,
    unit: str = "",
) -> None:
    """Rows in the order of their predictions: interval, prediction and truth."""
    leaf, truth = true_values(draws, targets)
    low, high = interval or draws.interval(level)
    share = metrics.interval_coverage((low, high), targets)
    middle = leaf.central.mean.flatten()
    order = middle.argsort(stable=True)
    if len(order) > _MOST_ROWS:
        order = order[torch.linspace(0, len(order) - 1, _MOST_ROWS).round().long()]
    middle, low, high, truth = (x.flatten()[order].cpu() for x in (middle, low, high, truth))
    held = (low <= truth) & (truth <= high)
    places = torch.arange(len(order))
    axes = figure.subplots()
    axes.vlines(
        places.tolist(),
        low.tolist(),
        high.tolist(),
        color=ACCENT,
        alpha=0.3,
        linewidth=3.2,
        label="interval",
    )
    axes.plot(
        places.tolist(), middle.tolist(), "_", color=ACCENT, markersize=4.5, label="predicted"
    )
    for inside, colour, name in ((held, INK, "true, inside"), (~held, WARN, "true, outside")):
        if bool(inside.any()):
            axes.plot(
                places[inside].tolist(),
                truth[inside].tolist(),
                "o",
                color=colour,
                markersize=2.8,
                label=name,
            )
    kind = "The intervals" if interval else f"Intervals of {100 * level:g} % of the draws"
    heading = f"{kind} hold {100 * share:.1f} % of the truths"
    _head(figure, axes, heading, f"value{f' in {unit}' if unit else ''}")
    shown = f"{len(order)} of " if len(order) < targets.numel() else ""
    axes.set_xlabel(f"{shown}{_said(draws, targets)}, in the order of the predictions")
    axes.set_xticks([])
    axes.legend(loc="best")
    _quiet(axes)


_KINDS: dict[str, Callable[..., None]] = {
    "reliability": reliability,
    "risk_coverage": risk_coverage,
    "sparsification": sparsification,
    "intervals": intervals,
}


def _said(draws: Draws, targets: Tensor) -> str:
    return f"{targets.numel():,} rows, {draws.count:,} draws"


def _head(figure: Figure, axes: Axes, heading: str, above: str) -> None:
    """What the picture says, and what its upright axis is."""
    figure.suptitle(heading, x=0.03, ha="left", color=INK)
    axes.set_title(above)


def _percent(share: Tensor) -> list[float]:
    found: list[float] = (100 * share).tolist()
    return found


def _quiet(axes: Axes) -> None:
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def _name_lines(axes: Axes, found: metrics.Curve, whole: float, ordered: str) -> None:
    for line, name in zip(
        axes.lines, ("in random order", "by the true error", ordered), strict=True
    ):
        line.set_label(name)
    axes.legend(loc="best")


def _wilson(share: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The 95 % interval of a share (Wilson 1927)."""
    square = _Z95**2 / rows
    middle = (share + square / 2) / (1 + square)
    reach = _Z95 / (1 + square) * (share * (1 - share) / rows + square / (4 * rows)).sqrt()
    return middle - reach, middle + reach
