"""What the report says of uncertainty: its numbers are right, and it says so when it is no good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from dropkit.apps.report import doubt, render, verdict
from dropkit.apps.report.doubt import Alarm, Handed, Sampled, risk_curve, surest_first
from dropkit.apps.report.doubt_figures import _means
from dropkit.apps.report.doubt_page import (
    alarm_said,
    handed_said,
    handed_word,
    plain_said,
    promise_said,
    section,
)
from dropkit.apps.report.metrics import Interval, wilson
from dropkit.records import Fit, Strange, Uncertainty
from made_up_fits import classification, regression


def parts(fit: Fit) -> tuple[Sampled, Uncertainty]:
    seen = doubt.sampled(fit)
    assert seen is not None and fit.uncertainty is not None
    return seen, fit.uncertainty


BINARY, VALUES, THREE = classification(), regression(), classification(("a", "b", "c"), rows=300)
FITS = {"binary": BINARY, "values": VALUES, "three": THREE}


def values(truth: list[float], mean: list[float], total: list[float]) -> Sampled:
    spread = np.array(total)
    column = np.array(mean)[:, None]
    return Sampled(np.arange(len(truth)), np.array(truth), column, spread, spread, classes=False)


# ---- numbers


@pytest.mark.parametrize("name", FITS)
def test_the_share_that_is_held_is_counted_row_by_row(name: str) -> None:
    """Mutants: the limit of another level; sets without the class that is predicted."""
    fit = FITS[name]
    seen, found = parts(fit)
    rows = len(found.calibration.scores)
    limit = found.calibration.scores[int(np.ceil((rows + 1) * 0.9)) - 1]
    held = 0
    for row in range(len(seen.truth)):
        truth = seen.truth[row]
        if fit.schema.classes:
            shares = found.prediction[row]
            inside = {code for code, share in enumerate(shares) if 1 - share <= limit}
            held += truth in inside | {float(np.argmax(shares))}
        else:
            held += abs(found.prediction[row][0] - truth) <= limit * found.total[row]
    kept = doubt.promise(seen, found)
    assert kept is not None
    assert kept.held == wilson(held / len(seen.truth), len(seen.truth))


def test_the_sizes_of_sets_add_up() -> None:
    seen, found = parts(THREE)
    kept = doubt.promise(seen, found)
    assert kept is not None
    assert [name for name, _, _ in kept.sizes] == ["1", "2", "3 or more"]
    assert sum(rows for _, rows, _ in kept.sizes) == 300
    hits = sum(rows * held.value for _, rows, held in kept.sizes if held)
    assert hits == pytest.approx(kept.held.value * 300)


def test_chance_moves_a_kept_promise_no_further_than_is_said() -> None:
    """Of 4,000 fits on 50 rows, judged by 80: the law is beta-binomial, and the reach holds 95 % of
    it, to within a point and a half."""
    exact = stats.betabinom(80, 46, 5)  # the 46th of 50 scores is the threshold
    reach = doubt.chance_reach(0.9, 80, 50)
    shares = np.arange(81) / 80
    inside = exact.pmf(np.arange(81))[np.abs(shares - 0.9) <= reach].sum()
    assert abs(inside - 0.95) < 0.02


def test_the_doubtful_fifth_is_handed_over() -> None:
    """Mutants: the surest fifth; an order by what the draws disagree about."""
    truth = [0.0] * 10
    seen = values(truth, [1.0, 1, 1, 1, 1, 1, 1, 1, 5, 3], [1.0, 1, 2, 1, 1, 1, 1, 1, 9, 8])
    found = doubt.handed(seen)
    assert found is not None and found.rows == 2
    assert (found.handed.value, found.kept.value, found.difference.value) == (4.0, 1.0, 3.0)
    low, high = found.difference.low, found.difference.high
    assert low == pytest.approx(3 - np.hypot(4 - found.handed.low, found.kept.high - 1))
    assert high == pytest.approx(3 + np.hypot(found.handed.high - 4, 1 - found.kept.low))
    assert doubt.handed(values([0.0] * 5, [0.0] * 5, [1.0] * 5)) is None


def test_the_difference_of_two_shares_is_newcombes() -> None:
    """Newcombe 1998, table II, method 10: 56/70 and 48/80 give 0.0524 to 0.3339."""
    errors = np.array([1.0] * 48 + [0.0] * 32 + [1.0] * 56 + [0.0] * 14)
    kept, away = wilson(float(errors[:80].mean()), 80), wilson(float(errors[80:].mean()), 70)
    gap = away.value - kept.value
    low = gap - np.hypot(away.value - away.low, kept.high - kept.value)
    high = gap + np.hypot(away.high - away.value, kept.value - kept.low)
    assert (low, high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_the_curve_is_the_error_of_those_that_are_kept() -> None:
    errors, doubts = np.array([4.0, 0.0, 2.0]), np.array([3.0, 1.0, 2.0])
    assert risk_curve(errors, surest_first(doubts)).tolist() == [0.0, 1.0, 2.0]
    mean, reach = _means(errors[surest_first(doubts)], np.array([1, 2, 3]))
    assert np.allclose(mean, [0.0, 1.0, 2.0]) and (reach > 0).all()


@pytest.mark.parametrize("name", FITS)
def test_the_area_is_scikit_learns(name: str) -> None:
    """Mutant: the made-up rows as the ordinary ones, which gives 1 minus the area."""
    seen, found = parts(FITS[name])
    for strange in found.strange:
        alarm = doubt.alarm(seen, strange)
        both = np.concatenate([strange.epistemic, seen.epistemic])
        truth = np.repeat([1, 0], [len(strange.epistemic), len(seen.epistemic)])
        assert alarm.area.value == pytest.approx(roc_auc_score(truth, both))
        point = np.quantile(seen.epistemic, 0.95)
        assert alarm.caught.value == pytest.approx(np.mean(np.array(strange.epistemic) > point))


@pytest.mark.parametrize("name", FITS)
def test_the_rows_to_look_at_are_those_of_most_disagreement(name: str) -> None:
    fit = FITS[name]
    seen, found = parts(fit)
    assert fit.holdout is not None
    rows = doubt.looks(fit, seen, fit.holdout)
    assert [row.epistemic for row in rows] == sorted(found.epistemic, reverse=True)[:10]
    for row in rows:
        place = fit.holdout.ids.index(row.id)
        assert row.epistemic == found.epistemic[place] and row.cells == fit.cells[place]


def test_a_part_of_the_rows_is_matched_with_the_right_truth() -> None:
    """Mutant: the first rows set aside in place of those that were sampled."""
    fit = BINARY
    assert fit.holdout is not None and fit.uncertainty is not None
    some = tuple(range(1, 200, 2))
    names = ("prediction", "total", "epistemic")
    few = {name: tuple(getattr(fit.uncertainty, name)[row] for row in some) for name in names}
    part = replace(fit, uncertainty=replace(fit.uncertainty, rows=some, **few))
    seen, _ = parts(part)
    assert seen.truth.tolist() == [fit.holdout.truth[row] for row in some]
    assert {row.id for row in doubt.looks(part, seen, fit.holdout)} <= {
        fit.holdout.ids[row] for row in some
    }
    assert "about 100 of the 200 held-out rows" in render(part).replace("\n", " ")


# ---- words


def said(area: tuple[float, float, float], caught: float) -> str:
    return alarm_said(Alarm("n", "h", Interval(*area), Interval(caught, 0.0, 1.0)))


def test_an_alarm_that_does_not_work_is_called_that() -> None:
    """Mutant: a point above 0.5 taken for a finding, whatever its interval."""
    assert "cannot be used to find such rows" in said((0.56, 0.499, 0.61), 0.1)
    assert "most would pass" in said((0.7, 0.6, 0.8), 0.1)
    assert "the others would pass" in said((0.9, 0.8, 0.95), 0.7)
    assert "surer of rows that cannot be" in said((0.3, 0.2, 0.4), 0.0)


def test_what_handing_over_buys_is_said_with_its_noise() -> None:
    seen, _ = parts(BINARY)

    def words(low: float, high: float) -> tuple[str, str]:
        middle = (low + high) / 2
        part = Interval(0.3, 0.2, 0.4)
        found = Handed(40, part, part, Interval(middle, low, high))
        return handed_word(found), handed_said(seen, found)

    for ends, word, sentence in (
        ((0.1, 0.3), "worth it", "well spent"),
        ((-0.1, 0.3), "not clear", "cannot tell from nothing"),
        ((-0.3, -0.1), "misleads", "do not hand rows over by it"),
    ):
        found = words(*ends)
        assert found[0] == word and sentence in found[1]


def with_scores(fit: Fit, factor: float) -> Fit:
    """The fit, with a threshold that is too small or too large by a factor."""
    assert fit.uncertainty is not None
    one = fit.uncertainty.calibration
    scores = tuple(factor * score for score in one.scores)
    return replace(
        fit, uncertainty=replace(fit.uncertainty, calibration=replace(one, scores=scores))
    )


def test_a_broken_promise_is_called_that() -> None:
    for factor, word, sentence in (
        (1.0, "as promised", "so this is as promised"),
        (0.3, "too rarely", "do not rely on it"),
        (9.0, "more often", "wider than they need be"),
    ):
        seen, found = parts(with_scores(VALUES, factor))
        kept = doubt.promise(seen, found)
        assert kept is not None and kept.kept == word
        assert sentence in promise_said(seen, found, kept)


def test_too_few_validation_rows_promise_nothing() -> None:
    assert VALUES.uncertainty is not None
    one = replace(
        VALUES.uncertainty.calibration, rows=5, scores=VALUES.uncertainty.calibration.scores[:5]
    )
    few = replace(VALUES, uncertainty=replace(VALUES.uncertainty, calibration=one))
    seen, found = parts(few)
    assert doubt.promise(seen, found) is None
    assert "5 validation rows cannot promise 90\u00a0%" in render(few)
    assert not any("hold the truth" in sentence for sentence in verdict(few))


def test_the_mean_of_the_draws_is_held_against_the_plain_prediction() -> None:
    fit = BINARY
    seen, _ = parts(fit)
    assert fit.holdout is not None
    assert "no clear amount" in plain_said(fit, seen, fit.holdout)  # they are the same here
    flat = replace(fit.holdout, prediction=tuple((0.5, 0.5) for _ in fit.holdout.truth))
    assert "the mean is better by" in plain_said(replace(fit, holdout=flat), seen, flat)
    unsure = replace(seen, mean=np.full_like(seen.mean, 0.5))
    assert "the mean is worse by" in plain_said(fit, unsure, fit.holdout)


def test_a_page_without_draws_says_why() -> None:
    page = render(replace(BINARY, uncertainty=None))
    assert "This model was not sampled" in page and "Rows to have a person look at" not in page
    assert len(verdict(replace(BINARY, uncertainty=None))) == 3
    assert section(replace(BINARY, holdout=None), 3) is None


def test_draws_of_networks_alone_are_called_that() -> None:
    assert BINARY.uncertainty is not None
    alone = replace(BINARY, uncertainty=replace(BINARY.uncertainty, varied="networks"))
    assert "the draws differ by the network alone" in render(alone).replace("\n", " ")


@pytest.mark.parametrize("rows", [1, 2, 3, 12])
def test_few_rows_are_drawn_and_judged(rows: int) -> None:
    for fit in (classification(rows=rows), regression(rows=rows)):
        assert "</html>" in render(fit)


def test_all_draws_that_agree_are_drawn() -> None:
    """No spread at all: every row and every made-up row has the same doubt."""
    assert BINARY.uncertainty is not None
    zeros = (0.0,) * 200
    flat = replace(
        BINARY.uncertainty, epistemic=zeros, strange=(Strange("shuffled", "how", zeros),)
    )
    page = render(replace(BINARY, uncertainty=flat))
    assert "it cannot be used to find such rows" in page.replace("\n", " ")
