"""The report: its numbers are right, its page is safe, small, reproducible and whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from math import inf

import matplotlib as mpl
import pytest
from sklearn import metrics as oracle

from dropkit.apps.report import render, verdict
from dropkit.apps.report.judgement import judge, predictions_of, reading, truth_of
from dropkit.apps.report.metrics import METRICS, Interval
from dropkit.apps.report.numerals import (
    clip,
    decimals,
    difference_range,
    fixed,
    percent,
    range_text,
    short,
    value_text,
)
from dropkit.apps.report.rows import calibration, confusion, hardest, per_class
from dropkit.records import Curve, Fit
from made_up_fits import HOSTILE, classification, hostile, regression

FOUR = ("red", "green", "blue", "grey")


def without_holdout() -> Fit:
    fit = classification()
    stopped = replace(fit.outcome, work=3000.0, effects=())
    return replace(fit, holdout=None, baselines=(), cells=(), stopped="time", outcome=stopped)


def before_any_trial() -> Fit:
    fit = without_holdout()
    empty = replace(fit.outcome, trials=(), winner=0, ensemble=(), checks=(), work=0.0)
    return replace(fit, outcome=empty, stopped="interrupted")


def diverged() -> Fit:
    """A trial whose loss is not a number, a curve without points, and one with a single point."""
    fit = classification(number=8, folds=2)
    bad = Curve((1.0, 2.0), (float("nan"), inf), (1.0, inf), (1.0, float("nan")), 0)
    trials = list(fit.outcome.trials)
    trials[0] = replace(trials[0], loss=float("nan"), curves=(bad, bad))
    trials[1] = replace(trials[1], curves=(Curve((), (), (), (), 0),))
    trials[3] = replace(trials[3], curves=(Curve((1.0,), (0.7,), (0.6,), (0.65,), 0),))
    return replace(fit, outcome=replace(fit.outcome, trials=tuple(trials)))


def one_row() -> Fit:
    fit = classification(rows=1)
    return replace(fit, outcome=replace(fit.outcome, metric="roc_auc"))


FITS: dict[str, Callable[[], Fit]] = {
    "binary": classification,
    "four classes": lambda: classification(FOUR, rows=300),
    "many classes": lambda: classification(tuple(f"class {code}" for code in range(70)), rows=400),
    "regression": regression,
    "hostile": hostile,
    "without holdout": without_holdout,
    "before any trial": before_any_trial,
    "diverged": diverged,
    "one row": one_row,
    "one trial, one fold": lambda: classification(number=1, folds=1, rows=40),
    "no baselines": lambda: replace(regression(), baselines=()),
}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render(build()) for name, build in FITS.items()}


# ---- numbers ----------------------------------------------------------------------------------


def test_per_class_agrees_with_scikit_learn() -> None:
    fit = classification(FOUR, rows=300)
    assert fit.holdout is not None
    truth, said = truth_of(fit.holdout), predictions_of(fit.holdout).argmax(axis=1)
    expected = oracle.precision_recall_fscore_support(truth, said)
    found = per_class(fit, fit.holdout)
    assert [one.precision for one in found] == pytest.approx(list(expected[0]))
    assert [one.recall.value for one in found if one.recall] == pytest.approx(list(expected[1]))
    assert [one.f1 for one in found] == pytest.approx(list(expected[2]))
    assert [one.rows for one in found] == list(expected[3])
    assert (confusion(fit.holdout, 4) == oracle.confusion_matrix(truth, said)).all()


def test_calibration_known_answer() -> None:
    fit = classification()
    assert fit.holdout is not None
    rows = tuple((0.75, 0.25) for _ in range(8)) + tuple((0.25, 0.75) for _ in range(8))
    truth = (1.0,) * 2 + (0.0,) * 6 + (1.0,) * 8
    found = calibration(fit, replace(fit.holdout, truth=truth, prediction=rows))
    assert [one.rows for one in found.bins] == [8, 8]
    assert [one.observed.value for one in found.bins] == [0.25, 1.0]
    assert found.error == pytest.approx(0.125)
    assert 0 < found.chance < found.chance_high


def test_hardest_rows_are_the_undecided_or_the_worst() -> None:
    fit = classification(rows=3)
    assert fit.holdout is not None
    holdout = replace(
        fit.holdout, prediction=((0.9, 0.1), (0.5, 0.5), (0.3, 0.7)), truth=(0.0,) * 3
    )
    found = hardest(fit, holdout, limit=2)
    assert [row.id for row in found] == ["C-00001", "C-00002"]
    assert [row.wrong for row in found] == [False, True]
    cars = regression(rows=3)
    assert cars.holdout is not None
    worst = replace(cars.holdout, prediction=((1.0,), (-9.0,), (5.0,)), truth=(0.0,) * 3)
    assert [row.strength for row in hardest(cars, worst)] == [-9.0, 5.0, 1.0]


def test_a_page_says_when_the_machine_had_a_say() -> None:
    fit = classification()
    hurried = replace(fit, outcome=replace(fit.outcome, hurried=True))
    said = ["depends on the machine" in render(one) for one in (fit, hurried)]
    assert said == [False, True]


def test_a_page_says_over_what_an_effect_is_judged() -> None:
    """Mutant: the noise of training is said to be in the interval of a single holdout."""
    fit = classification()
    single = replace(fit, outcome=replace(fit.outcome, folds=1))
    assert "on validation, over folds." in render(fit)
    assert "over folds" not in render(single).split("<footer>")[1]


def test_reading_compares_clean_losses() -> None:
    fit = regression(number=1, folds=1)

    def word(train: float, validation: float) -> str:
        curve = Curve((1.0, 2.0), (2.0, 2.0), (1.0, train), (1.0, validation), 1)
        trial = replace(fit.outcome.trials[0], curves=(curve,))
        found = reading(replace(fit, outcome=replace(fit.outcome, trials=(trial,))))
        return found.word if found else ""

    assert word(0.30, 0.33) == "healthy"
    assert word(0.30, 0.45) == "overfits a little"
    assert word(0.01, 0.60) == "overfits"
    assert word(0.95, 0.97) == "underfits"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (fixed(-0.0004, 2), "0.00"),
        (fixed(1234.5, 0), "1,234"),
        (fixed(float("nan"), 2), "unknown"),
        (short(0.00001), "1e-5"),
        (short(0.001), "0.001"),
        (short(12345.6), "12,346"),
        (short(0.0), "0"),
        (short(-2.5), "-2.5"),
        (percent(0.873, 1), "87.3 %"),
        (clip("a\n b\x00c \u202ed", 9), "a b c d"),
        (clip("x" * 1000, 5), "xxxx…"),
        (str(decimals(0.012)), "3"),
        (str(decimals(12.0)), "0"),
    ],
)
def test_numerals(shown: str, expected: str) -> None:
    assert shown == expected


def test_intervals_in_words() -> None:
    loss, accuracy = METRICS["log_loss"], METRICS["accuracy"]
    assert value_text(loss, Interval(0.41237, 0.381, 0.443)) == "0.412"
    assert range_text(loss, Interval(0.41237, 0.381, 0.443)) == "0.381 to 0.443"
    assert range_text(accuracy, Interval(0.873, 0.8204, 0.912)) == "82.0 to 91.2 %"
    assert range_text(loss, Interval(0.4, -inf, inf)) == "not known"
    assert difference_range(loss, Interval(-0.02, -0.03, -0.01), -1.0) == "0.010 to 0.030"


# ---- words ------------------------------------------------------------------------------------


def test_verdict_says_score_rivals_and_dropout() -> None:
    score, rivals, dropout, trust = verdict(classification())
    shown = judge(classification()).headline.interval
    assert score.startswith("On 200 rows that no choice has seen (20 % of the rows, set aside)")
    assert f"log-loss is {shown.value:.3f} (95 % interval {shown.low:.3f} to " in score
    assert "Against class shares it is better by 0.177 (0.102 to 0.251)" in rivals
    assert "HistGradientBoosting there is no clear difference" in rivals
    assert dropout.startswith("Hidden dropout of 0.3 lowered the validation log-loss by 0.025")
    assert trust.startswith("Sampled with dropout on, its 90 % sets of classes hold the truth in ")


def test_verdict_when_a_rival_is_better() -> None:
    fit = regression()
    assert fit.holdout is not None
    exact = tuple((value + 1.0,) for value in fit.holdout.truth)
    fit = replace(fit, baselines=(fit.baselines[0], replace(fit.baselines[1], prediction=exact)))
    assert "HistGradientBoosting it is worse by " in verdict(fit)[1]
    assert verdict(fit)[-1].startswith("Next: try --budget thorough")


def test_verdict_of_a_stopped_run_without_holdout() -> None:
    first, *_, last = verdict(without_holdout())
    assert first.startswith("No rows were set aside, so only validation can speak")
    assert last.startswith("It was stopped by the time cap after 1 min 23 s, with 59 %")


def test_verdict_when_validation_chose_no_dropout() -> None:
    fit = classification()
    found = verdict(replace(fit, outcome=replace(fit.outcome, winner=0)))
    start, end = "The chosen cocktail has no dropout: the best rate above 0, 0.3, had ", "ensemble."
    assert found[2].startswith(start) and found[2].endswith(end)  # others in the ensemble drop


def test_a_verdict_in_python_names_no_option_of_the_command() -> None:
    """Mutant: `--resume` and `--test-size` for a person who has no command line."""
    made = replace(without_holdout(), command="dropkit.DropoutClassifier().fit(X, y)")
    for fit in (made, replace(made, stopped="")):
        assert "--" not in " ".join(verdict(fit))


def test_verdict_names_a_failed_check() -> None:
    fit = classification()
    failed = replace(fit.outcome.checks[0], passed=False)
    found = verdict(replace(fit, outcome=replace(fit.outcome, checks=(failed,))))
    assert found[-1] == "Next: look into the check that failed (Evaluation mode at prediction)."


# ---- the page ---------------------------------------------------------------------------------


class Outline(HTMLParser):
    """Tags in order, every attribute, and whether the tags nest."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "path", "use", "rect", "circle"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.mark.parametrize("name", FITS)
def test_page_is_whole(pages: dict[str, str], name: str) -> None:
    found = Outline(pages[name])
    assert found.open == []
    assert found.tags.count("h1") == 1
    values = [value for attribute, value in found.attributes if attribute == "id"]
    assert len(values) == len(set(values)), "an id occurs twice"
    targets = [value for attribute, value in found.attributes if attribute == "href"]
    assert {target for target in targets if target.removeprefix("#") not in values} == set()
    clips = re.findall(r"url\(#([^)]+)\)", pages[name])
    assert set(clips) <= set(values)


@pytest.mark.parametrize("name", FITS)
def test_page_is_self_contained_and_without_scripts(pages: dict[str, str], name: str) -> None:
    found = Outline(pages[name])
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(found.tags)
    assert not re.search(r"https?:|//www|@import|url\((?!#)", pages[name])
    assert not [one for one, _ in found.attributes if one.startswith("on")]
    assert {value[0] for one, value in found.attributes if one in ("href", "src")} <= {"#"}


@pytest.mark.parametrize("name", FITS)
def test_page_shows_only_numbers_and_text(pages: dict[str, str], name: str) -> None:
    text = " ".join(Outline(pages[name]).text)
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined|<built-in|object at|Interval\(", text)
    assert "#0d0f0" not in re.sub(r">[^<]*<", "><", pages[name]), "a sentinel colour is left"
    assert "nan" not in re.sub(r">[^<]*<", "><", pages[name]).lower()


def test_what_users_name_is_escaped(pages: dict[str, str]) -> None:
    assert "<script" not in pages["hostile"]
    assert "\x00" not in pages["hostile"] and "\u202e" not in pages["hostile"]
    text = "".join(Outline(pages["hostile"]).text)
    assert clip(HOSTILE) in text
    assert "$x_1$" in text, "read as mathematics"
    figures = re.findall(r"<svg.*?</svg>", pages["hostile"], flags=re.S)
    assert any("&lt;script&gt;alert(1)" in figure for figure in figures)


def test_huge_search_and_holdout_stay_small() -> None:
    fit = classification(FOUR, rows=10_000, number=40, folds=8, points=1500)
    many = replace(fit.schema, columns=fit.schema.columns * 500)
    cells = tuple(("x" * 10_000,) * len(many.columns) for _ in range(3)) + fit.cells[3:]
    page = render(replace(fit, schema=many, cells=cells))
    assert len(page.encode()) < 1_000_000
    assert len(render(regression(rows=10_000)).encode()) < 600_000


def test_same_fit_same_bytes(pages: dict[str, str]) -> None:
    assert all(render(FITS[name]()) == pages[name] for name in ("binary", "regression"))


def test_settings_of_matplotlib_are_neither_used_nor_changed(pages: dict[str, str]) -> None:
    with mpl.rc_context({"font.size": 31.0, "axes.grid": True, "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        assert render(classification()) == pages["binary"]
        assert dict(mpl.rcParams) == before


def test_numbers_of_the_judgement_are_on_the_page(pages: dict[str, str]) -> None:
    text = " ".join(Outline(pages["binary"]).text).replace("\u00a0", " ")
    for score in judge(classification()).scores:
        assert value_text(score.metric, score.interval) in text
        assert range_text(score.metric, score.interval) in text
    assert "+0.025" in text and "0.013 to 0.038" in text
    assert "dropkit fit credit.csv --target risk --seed 0" in text
    assert "Not used" in text


@pytest.mark.parametrize(
    ("name", "figures"),
    [("binary", 9), ("regression", 10), ("without holdout", 3), ("before any trial", 0)],
)
def test_figures_have_a_label_and_text_that_stays_text(
    pages: dict[str, str], name: str, figures: int
) -> None:
    drawn = re.findall(r"<svg[^>]*>", pages[name])
    assert len(drawn) == figures
    assert all(re.search(r'role="img" aria-label="[^"]{20,}" viewBox=', one) for one in drawn)
    assert pages[name].count("<text") >= 5 * figures


def test_mutant_unescaped_text_is_seen(pages: dict[str, str]) -> None:
    broken = pages["hostile"].replace("&lt;script&gt;", "<script>", 1)
    with pytest.raises(AssertionError):
        test_what_users_name_is_escaped({"hostile": broken})


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    light = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [("ink", "paper"), ("muted", "paper"), ("muted", "panel"), ("accent", "paper"),
     ("accent", "panel"), ("accent", "accent-soft"), ("warn", "warn-soft"), ("warn", "paper"),
     ("ink", "accent-soft"), ("ink", "warn-soft")],
)  # fmt: skip
def test_contrast_is_readable(pages: dict[str, str], mode: int, text: str, behind: str) -> None:
    """WCAG 2 asks for 4.5 in text of this size."""
    one, other = (
        luminance(re.findall(rf"--{name}: (#[0-9a-f]{{6}})", pages["binary"])[mode])
        for name in (text, behind)
    )
    assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= 4.5


def test_reading_says_when_early_stopping_did_the_work() -> None:
    fit = regression(number=1, folds=1)
    curve = Curve((1.0, 2.0, 3.0), (2.0, 1.0, 0.5), (1.0, 0.3, 0.1), (1.0, 0.33, 0.9), 1)
    trial = replace(fit.outcome.trials[0], curves=(curve,))
    page = render(replace(fit, outcome=replace(fit.outcome, trials=(trial,))))
    assert "Trained on beyond that point, validation rose to 0.900" in page
    assert "the gap is 3.0\u00a0% of 1, the loss of always predicting the mean" in page


@pytest.mark.parametrize("scale", [1e200, 1e-200, 0.0])
def test_targets_of_any_size_are_judged_and_drawn(scale: float) -> None:
    fit = regression(number=2, folds=1)
    assert fit.holdout is not None
    scaled = replace(
        fit,
        holdout=replace(
            fit.holdout,
            truth=tuple(scale * value for value in fit.holdout.truth),
            prediction=tuple((scale * value,) for (value,) in fit.holdout.prediction),
        ),
        baselines=(),
    )
    rmse, whole = (judge(one).headline.interval for one in (scaled, fit))
    assert rmse.value == pytest.approx(scale * whole.value)
    assert rmse.high == pytest.approx(scale * whole.high)
    assert "</html>" in render(scaled)


def test_verdict_when_the_weakest_rival_is_not_beaten() -> None:
    found = verdict(classification(rows=40))
    assert "Against class shares there is no clear difference" in found[1]
    assert found[-1].endswith("40 held-out rows cannot tell it from class shares.")
