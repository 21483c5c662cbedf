"""From a matplotlib figure to SVG that belongs into a page: light and dark, small, reproducible.

Figures are drawn in sentinel colours, which become CSS variables here; ids are made unique per
figure; text stays text, and is never read as mathematics.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT, WARN, PAPER = (f"#0d0f{last:02x}" for last in range(6))
"""Sentinels: text and the first line, quiet things, rules, the accent, what is bad, background."""

VARIABLES = dict(
    zip(
        (INK, MUTED, LINE, ACCENT, WARN, PAPER),
        ("ink", "muted", "line", "accent", "warn", "paper"),
        strict=True,
    )
)
WIDTH = 4.1
"""Inches: on a phone of 360 pixels a point of text is then a little more than a pixel."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 9.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "axes.titlepad": 8.0,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": [-4, 7],
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.6,
}


def svg(name: str, label: str, draw: Callable[[Figure], None], height: float = 2.8) -> str:
    """Draw a figure and return it as one `<svg>` element for an HTML page.

    `name` makes its ids unique within the page; `label` says to a screen reader what it shows.
    The caller's matplotlib settings are neither used nor changed.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = mpl.rcParams  # its stubs know each key's own type; ours come from a table
        settings.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _for_page(buffer.getvalue(), name, label)


def rows_axis(axes: Axes, names: list[str]) -> None:
    """Name horizontal rows, the first at the top, with no rule beside them."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)


def _for_page(text: str, name: str, label: str) -> str:
    start = text.index("<svg")
    opening_end = text.index(">", start)
    box = re.search(r'viewBox="[^"]*"', text[start:opening_end])
    body = text[opening_end + 1 :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.S
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r"<[^>]*>", lambda tag: _tidy(tag.group(), name, used), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    view = box.group() if box else ""
    return f'<svg class="figure" role="img" aria-label="{escape(label)}" {view}>{body.strip()}'


def _tidy(tag: str, name: str, used: set[str]) -> str:
    """One tag with our colours, ids that are unique in the page, and no more digits than needed."""
    tag = re.sub(
        r' id="([^"]*)"',
        lambda found: f' id="{name}-{found.group(1)}"' if found.group(1) in used else "",
        tag,
    )
    tag = re.sub(r'(href="#|url\(#)', rf"\1{name}-", tag).replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        tag = tag.replace(colour, f"var(--{variable})")
    tag = re.sub(r"(font: [\d.]+px)[^;\"]*", r"\1 system-ui, sans-serif", tag)
    tag = re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)
    return re.sub(r"\s+", " ", tag)
