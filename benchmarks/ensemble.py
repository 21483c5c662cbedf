"""Weight scaling and Monte Carlo dropout against all thinned networks of the models in a page.

    python benchmarks/ensemble.py docs/ensemble.md

The models are those that the first code of the page trains. Writes the table in the page, and the
picture beside it.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import dropkit
from dropkit.apps.report.ink import ACCENT, INK, MUTED, WARN, svg
from dropkit.ensemble import Exact, exact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS = [4**power for power in range(7)]
"""Draws."""
KEYS = 40
"""Repetitions, each with masks of its own."""
COLOURS = {
    "ink": ("#1f2328", "#e6edf3"), "muted": ("#59636e", "#9198a1"), "line": ("#d1d9e0", "#3d444d"),
    "accent": ("#0969da", "#4493f8"), "warn": ("#bc4c00", "#db6d28"), "paper": ("#fff", "#0d1117"),
}  # fmt: skip
"""On light and on dark pages."""


@dataclass(frozen=True)
class Seen:
    """A model, and the probability of the second class of each row."""

    name: str
    whole: Exact
    drawn: list[float]
    """Root mean square distance of COUNTS draws from the mean of all networks."""
    told: list[float]
    """What it has to be, by the exact variance."""

    @property
    def mean(self) -> Tensor:
        return self.whole.probabilities[:, 1]

    @property
    def scaled(self) -> Tensor:
        return self.whole.scaled_probabilities[:, 1]

    @property
    def geometric(self) -> Tensor:
        return self.whole.geometric[:, 1]


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def seen(name: str, model: torch.nn.Module, x: Tensor) -> Seen:
    whole = exact(model, x, outputs="logits")
    var = exact(torch.nn.Sequential(model, torch.nn.Softmax(-1)).eval(), x).var[:, 1]
    off = []
    for key in range(KEYS):
        draws = dropkit.sample(model, x, draws=COUNTS[-1], key=key, outputs="logits").samples
        means = draws.double().softmax(-1)[..., 1].cumsum(0)
        off.append(torch.stack([means[n - 1] / n - whole.probabilities[:, 1] for n in COUNTS]))
    apart = torch.stack(off)
    return Seen(
        name, whole, [rms(apart[:, at]) for at in range(len(COUNTS))],
        [float((var.mean() / n).sqrt()) for n in COUNTS],
    )  # fmt: skip


# ---- the table


def table(found: list[Seen]) -> str:
    lines = [
        "| distance in the probability of a class, root mean square over rows (largest) | "
        + " | ".join(one.name for one in found) + " |",
        "|---|" + "---|" * len(found),
        row("weight scaling from the geometric mean", [x.scaled - x.geometric for x in found]),
        row("weight scaling from the mean", [x.scaled - x.mean for x in found]),
    ]  # fmt: skip
    for at, count in enumerate(COUNTS):
        if count in (1, 16, 256, 4096):
            cells = [f"{one.drawn[at]:.2g} (by the variance: {one.told[at]:.2g})" for one in found]
            lines.append(f"| T = {count:,} from the mean | " + " | ".join(cells) + " |")
    crossing = [f"{one.told[0] ** 2 / rms(one.scaled - one.mean) ** 2:,.0f}" for one in found]
    lines.append("| draws that are as near as weight scaling | " + " | ".join(crossing) + " |")
    return "\n".join(lines)


def row(name: str, parts: list[Tensor]) -> str:
    cells = [f"{rms(part):.2g} ({float(part.abs().max()):.2g})" for part in parts]
    return f"| {name} | " + " | ".join(cells) + " |"


# ---- the picture


def draw(one: Seen, deep: Seen, figure: Figure) -> None:
    above, below = figure.subplots(2, 1)
    draw_means(above, one, deep)
    draw_convergence(below, deep)


def draw_means(axes: Axes, one: Seen, deep: Seen) -> None:
    off = [
        (deep.scaled, deep.mean, WARN, "mean, two layers"),
        (deep.scaled, deep.geometric, ACCENT, "geometric mean, two layers"),
        (one.scaled, one.geometric, INK, "geometric mean, one layer"),
    ]
    for scaled, mean, colour, name in off:
        axes.plot(100 * scaled, 100 * (mean - scaled), "o", ms=2.2, mew=0, color=colour, label=name)
    axes.legend(frameon=False, fontsize=8.0, handletextpad=0.2, loc="upper right")
    axes.set(title="difference from weight scaling, in points")
    axes.set(xlabel="probability by weight scaling, in %", xlim=(0, 100))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def draw_convergence(axes: Axes, deep: Seen) -> None:
    bias = rms(deep.scaled - deep.mean)
    axes.plot(COUNTS, deep.told, color=MUTED, dashes=(3, 3), linewidth=0.9)
    axes.plot(COUNTS, deep.drawn, "o", color=ACCENT, markersize=4.5)
    axes.plot(COUNTS[:: len(COUNTS) - 1], [bias, bias], color=WARN)
    axes.set(xscale="log", yscale="log", title="distance from the mean of all networks")
    axes.set(xlabel="draws, T (two layers)")
    axes.set_xticks(COUNTS[::2], [f"{count:,}" for count in COUNTS[::2]])
    marks = [mark for mark in (0.1, 0.03, 0.01, 0.003) if deep.told[-1] < mark < deep.told[0]]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    for place, name, colour, side in (
        ((COUNTS[-1], bias), "weight scaling", WARN, "right"),
        ((COUNTS[3], deep.told[3]), "  T draws, and 1/sqrt(T)", ACCENT, "left"),
    ):
        axes.annotate(
            name, place, xytext=(0, 4), textcoords="offset points", color=colour, fontsize=8.0,
            ha=side,
        )  # fmt: skip
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)


def standing_alone(drawn: str) -> str:
    """A picture of its own, which is light or dark as the page is."""
    schemes = [
        ";".join(f"--{name}:{pair[dark]}" for name, pair in COLOURS.items()) for dark in (0, 1)
    ]
    style = f"svg{{{schemes[0]}}}@media(prefers-color-scheme:dark){{svg{{{schemes[1]}}}}}"
    opening, rest = drawn.split(">", 1)
    opening = opening.replace('class="figure"', 'xmlns="http://www.w3.org/2000/svg" width="560"')
    return f"{opening}><style>{style}</style>{rest}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    page = parser.parse_args().page
    text = page.read_text("utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    one, deep = (
        seen(name, names[model], names["x"][400:])
        for name, model in (("one layer", "one"), ("two layers", "deep"))
    )
    made = f"<!-- measured -->\n{table([one, deep])}\n<!-- end -->"
    text = re.sub("<!-- measured -->.*?<!-- end -->", lambda _: made, text, flags=re.S)
    page.write_text(text, "utf-8")
    label = "Means over all networks less weight scaling; the convergence of Monte Carlo dropout"
    picture = svg("ensemble", label, partial(draw, one, deep), height=5.6)
    page.with_suffix(".svg").write_text(standing_alone(picture), "utf-8")


if __name__ == "__main__":
    main()
