"""Pictures of draws show the numbers, whole, and leave no trace in matplotlib."""

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dropkit.errors import SettingError
from dropkit.posterior import metrics
from dropkit.posterior.draws import Draws
from dropkit.posterior.pictures import ACCENT, INK, WARN
from made_up_draws import classes, noise

LOGITS = 2 * noise(20, 300, 3)
CLASSES = Draws.of(LOGITS, outputs="logits")
TRUTH = classes(LOGITS.softmax(-1).mean(0), seed=1)
VALUES, TARGETS = Draws.of(noise(20, 200)), noise(200, seed=2)
CASES = {
    "reliability": (CLASSES, TRUTH),
    "risk_coverage": (CLASSES, TRUTH),
    "risk_coverage of values": (VALUES, TARGETS),
    "sparsification": (CLASSES, TRUTH),
    "sparsification of values": (VALUES, TARGETS),
    "intervals": (VALUES, TARGETS),
}


def drawn(case: str, **options: object) -> Figure:
    draws, truth = CASES[case]
    return draws.plot(case.split()[0], truth, **options)


def words(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("case", CASES)
def test_everything_written_lies_within_and_nothing_on_top_of_another(case: str) -> None:
    """Mutants: a heading longer than the picture; axes without names; rows that are not said."""
    figure = drawn(case)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    whole = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert whole.x0 >= 0 and whole.y0 >= 0 and whole.x1 <= width and whole.y1 <= height
    said = words(figure)
    draws, truth = CASES[case]
    assert f"{len(truth)} rows, {draws.count} draws" in said
    for axes in figure.axes:
        assert axes.get_title(loc="left")
    assert figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("case", CASES)
def test_the_callers_matplotlib_is_neither_used_nor_changed(case: str) -> None:
    """Mutants: pyplot, which keeps every figure; rcParams of the caller."""
    plain = drawn(case)
    with mpl.rc_context({"text.color": "red", "font.size": 30}):
        before = dict(mpl.rcParams)
        same = drawn(case)
        assert dict(mpl.rcParams) == before
    sizes = [[t.get_fontsize() for t in f.findobj(mpl.text.Text)] for f in (plain, same)]
    assert sizes[0] == sizes[1]


def test_pyplot_is_not_even_loaded() -> None:
    code = (
        "import sys, torch\nfrom dropkit.posterior.draws import Draws\n"
        "assert 'matplotlib' not in sys.modules and 'pandas' not in sys.modules\n"
        "Draws.of(torch.tensor([[0.0, 1], [1, 0]])).plot('intervals', torch.zeros(2))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_reliability_shows_its_bins_and_error() -> None:
    figure, found = drawn("reliability", bins=7), metrics.reliability(CLASSES, TRUTH, 7)
    observed = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert observed.get_xdata().tolist() == pytest.approx(found.stated.tolist())
    assert observed.get_ydata().tolist() == pytest.approx(found.observed.tolist())
    assert f"error {found.error:.3f}" in words(figure)
    counts = [int(text.get_text()) for text in figure.axes[1].texts]
    assert counts == found.rows.tolist() and sum(counts) == 300


def test_risk_and_sparsification_show_their_curves_and_areas() -> None:
    """Mutants: the ideal and the measured curve exchanged; kept for taken out."""
    for case in ("risk_coverage", "risk_coverage of values"):
        figure, found = drawn(case), metrics.risk_coverage(*CASES[case])
        lines = {line.get_label(): line for line in figure.axes[0].lines}
        assert list(lines["by uncertainty"].get_ydata()) == found.loss.tolist()
        assert list(lines["by the true error"].get_ydata()) == found.ideal.tolist()
        assert set(lines["in random order"].get_ydata()) == {float(found.loss[-1])}
        assert lines["by uncertainty"].get_color() == ACCENT
        assert f"{found.area:.3g}" in words(figure)
    figure, curve = drawn("sparsification"), metrics.sparsification(CLASSES, TRUTH)
    line = next(x for x in figure.axes[0].lines if x.get_label() == "by uncertainty")
    assert line.get_xdata()[-1] == 0 and line.get_ydata()[-1] == pytest.approx(1)
    assert f"{curve.excess:.3f}" in words(figure)


def test_units_are_said() -> None:
    assert "in MPa squared" in words(drawn("risk_coverage of values", unit="MPa"))
    assert "value in MPa" in words(drawn("intervals", unit="MPa"))


def test_what_an_interval_misses_has_another_colour() -> None:
    few = Draws.of(torch.tensor([[0.0, 5.0, 2.0], [1.0, 6.0, 3.0]]))
    truth = torch.tensor([0.5, 9.0, 2.5])
    figure = few.plot("intervals", truth, interval=(truth - 1, torch.tensor([1.5, 8.0, 3.5])))
    dots = {
        to_hex(line.get_color()): list(line.get_ydata())
        for line in figure.axes[0].lines
        if line.get_marker() == "o"
    }
    assert dots == {INK: [0.5, 2.5], WARN: [9.0]}
    assert "The intervals hold 66.7 % of the truths" in words(figure)
    assert "80 of 200 rows" in words(drawn("intervals"))


def test_another_kind_or_outputs_are_refused() -> None:
    with pytest.raises(SettingError, match=r"reliability, risk_coverage.*got 'scatter'"):
        CLASSES.plot("scatter", TRUTH)
    with pytest.raises(SettingError, match='got outputs="values"'):
        VALUES.plot("reliability", TARGETS.long())
    with pytest.raises(SettingError, match='got outputs="logits"'):
        CLASSES.plot("intervals", TRUTH)
