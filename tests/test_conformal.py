"""Conformal intervals and sets hold the truth as often as they say, by exact bounds.

Over many independent fits on n rows, each asked of one new row, the number that hold is binomial
with the probability k / (n + 1) exactly, for scores without ties. The two-sided bounds have a false
alarm rate of 1e-6 each; seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import betabinom, binom
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.conformal import _SCORES, conformal, rank_of
from dropkit.posterior.draws import Draws
from dropkit.posterior.moments import Moments
from made_up_draws import chance, classes, noise

ALARM = 1e-6
FITS = 20_000


def within(held: int, trials: int, share: float) -> bool:
    low, high = binom.ppf([ALARM / 2, 1 - ALARM / 2], trials, share)
    return bool(low <= held <= high)


def values(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws (2, rows, columns) of a bad model whose spread says a little, and the truth."""
    width = 0.2 + chance(rows, columns, seed=seed)
    middle = noise(rows, columns, seed=seed + 1)
    truth = middle + 3 * width * noise(rows, columns, seed=seed + 2).abs()
    return torch.stack([middle - width, middle + width]), truth


@pytest.mark.parametrize("score", _SCORES["values"])
@pytest.mark.parametrize(("rows", "level"), [(9, 0.9), (10, 0.9), (19, 0.9), (30, 0.5), (99, 0.97)])
def test_intervals_hold_the_truth_as_often_as_they_say(score: str, rows: int, level: float) -> None:
    """Each column is a fit of its own. Mutants: the quantile without the + 1; the next rank."""
    (old, known), (new, truth) = values(rows, FITS, 10), values(1, FITS, 20)
    fit = conformal(Draws.of(old), known, level, score=score)  # type: ignore[arg-type]
    low, high = fit.interval(Draws.of(new))
    held = int(((low <= truth) & (truth <= high)).sum())
    assert fit.expected >= level
    assert within(held, FITS, fit.expected)


def test_mutant_a_quantile_without_the_plus_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "dropkit.posterior.conformal.rank_of"
    assert rank_of(20, 0.9) == 19
    monkeypatch.setattr(module, lambda rows, level: math.ceil(rows * level))
    (old, known), (new, truth) = values(20, FITS, 10), values(1, FITS, 20)
    low, high = conformal(Draws.of(old), known, 0.9, score="plain").interval(Draws.of(new))
    held = int(((low <= truth) & (truth <= high)).sum())
    assert not within(held, FITS, 19 / 21)


def shares(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws of logits (2, rows, columns, 4) of a model that is too sure, and the truth."""
    logits = 1.5 * noise(rows, columns, 4, seed=seed)
    truth = classes(logits.softmax(-1).view(-1, 4), seed=seed + 1).view(rows, columns)
    return torch.stack([2 * logits, 2 * logits + 0.5 * noise(rows, columns, 4)]), truth


@pytest.mark.parametrize("score", _SCORES["classes"])
@pytest.mark.parametrize(("rows", "level"), [(9, 0.9), (20, 0.8)])
def test_sets_hold_the_truth_as_often_as_they_say(score: str, rows: int, level: float) -> None:
    """Mutants: APS without its random share (too large sets); one share for all rows."""
    (old, known), (new, truth) = shares(rows, FITS, 30), shares(1, FITS, 40)
    fit = conformal(Draws.of(old, outputs="logits"), known, level, score=score, key=5)  # type: ignore[arg-type]
    sets = fit.sets(Draws.of(new, outputs="logits"))
    held = int(sets.gather(-1, truth.unsqueeze(-1)).sum())
    assert sets.dtype == torch.bool and sets.shape == (1, FITS, 4)
    assert within(held, FITS, fit.expected)


@pytest.mark.parametrize("score", ["scaled", "plain"])
def test_one_fit_holds_as_the_beta_law_says(score: str) -> None:
    """The share of one fit's new rows: a draw from Beta(k, n + 1 - k)."""
    (old, known), (new, truth) = values(300, 1, 50), values(4000, 1, 60)
    fit = conformal(Draws.of(old), known, 0.9, score=score)  # type: ignore[arg-type]
    low, high = fit.interval(Draws.of(new))
    held = int(((low <= truth) & (truth <= high)).sum())
    law = betabinom(4000, rank_of(300, 0.9), 301 - rank_of(300, 0.9))
    assert law.ppf(ALARM / 2) <= held <= law.ppf(1 - ALARM / 2)


def test_scaled_intervals_are_as_wide_as_the_draws_are_uncertain() -> None:
    """Mutant: the plain score for both."""
    (old, known), (new, _) = values(500, 1, 70), values(50, 1, 80)
    draws = Draws.of(new)
    low, high = conformal(Draws.of(old), known, score="scaled").interval(draws)
    ratio = (high - low) / draws.std
    assert torch.allclose(ratio, ratio[0].expand_as(ratio))
    low, high = conformal(Draws.of(old), known, score="plain").interval(draws)
    assert torch.allclose(high - low, (high - low)[0].expand_as(low))
    wide = conformal(Draws.of(old), known, score="scaled", floor=1e6)
    low, high = wide.interval(draws)
    assert torch.allclose(high - low, (high - low)[0].expand_as(low), rtol=1e-5)


def test_the_noise_of_draws_is_part_of_their_width() -> None:
    (old, known), (new, _) = values(50, 1, 90), values(5, 1, 91)
    fit = conformal(Draws.of(old).with_noise(4.0), known)
    draws = Draws.of(new).with_noise(4.0)
    low, high = fit.interval(draws)
    expected = 2 * fit.threshold * (draws.var + 4).sqrt()
    assert torch.allclose(high - low, expected)


def test_rows_without_spread_are_infinite_or_points_and_never_none() -> None:
    """Mutants: 0 / 0 as NaN; infinity times 0."""
    flat, targets = Draws.of(torch.ones(3, 9)), torch.ones(9)
    low, high = conformal(flat, targets).interval(flat)
    assert low.tolist() == high.tolist() == [1.0] * 9  # all were right
    low, high = conformal(flat, targets + 1).interval(flat)
    assert low.tolist() == [-math.inf] * 9 and high.tolist() == [math.inf] * 9


def test_sets_are_the_likeliest_classes() -> None:
    """Mutants: ranks by position; the share of the wrong end."""
    (old, known), (new, _) = shares(200, 1, 95), shares(200, 1, 97)
    for score in _SCORES["classes"]:
        draws = Draws.of(new, outputs="logits")
        fit = conformal(Draws.of(old, outputs="logits"), known, 0.8, score=score)  # type: ignore[arg-type]
        p, sets = draws.probabilities, fit.sets(draws)
        inside = torch.where(sets, p, torch.ones_like(p)).amin(-1)
        outside = torch.where(sets, torch.zeros_like(p), p).amax(-1)
        assert bool((inside >= outside).all())
        assert 0 < float(sets.double().mean()) < 1


def test_random_shares_hang_on_the_key_alone() -> None:
    (old, known), (new, _) = shares(60, 1, 101), shares(60, 1, 103)
    known_draws, draws = (Draws.of(x, outputs="logits") for x in (old, new))

    def sets(key: int) -> Tensor:
        return conformal(known_draws, known, 0.8, score="aps", key=key).sets(draws)

    torch.manual_seed(1)
    first = sets(7)
    torch.manual_seed(2)
    assert torch.equal(first, sets(7)) and not torch.equal(first, sets(8))


def test_moments_suffice_and_classes_lie_anywhere() -> None:
    old, known = values(50, 1, 105)
    moments = Moments()
    moments.add(old)
    streamed = conformal(moments.draws(), known)
    assert torch.allclose(streamed.threshold, conformal(Draws.of(old), known).threshold)
    logits, truth = shares(50, 3, 107)
    plain = conformal(Draws.of(logits, outputs="logits"), truth)
    moved_draws = Draws.of(logits.movedim(-1, 2), outputs="logits", class_axis=1)
    moved = conformal(moved_draws, truth)
    assert torch.allclose(plain.threshold, moved.threshold) and plain.threshold.shape == (3,)
    sets = plain.sets(Draws.of(logits, outputs="logits"))
    assert torch.equal(moved.sets(moved_draws), sets.movedim(-1, 1))


@pytest.mark.parametrize(
    ("level", "needed"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1), (0.8, 4)]
)
def test_too_few_rows_are_refused_with_the_number_needed(level: float, needed: int) -> None:
    """Mutant: 10 * 0.9 in binary, which is above 9 for some levels and asks for a row too many."""
    assert rank_of(needed, level) == needed
    if needed > 1:
        with pytest.raises(SettingError, match=f"expected {needed} or more rows.*got {needed - 1}"):
            rank_of(needed - 1, level)


@pytest.mark.parametrize("rows", range(9, 400, 13))
def test_ranks_are_exact(rows: int) -> None:
    for percent in range(1, 91):
        assert rank_of(rows, percent / 100) == -(-(rows + 1) * percent // 100)


def test_what_does_not_fit_is_refused() -> None:
    (old, known), (new, _) = values(20, 2, 110), values(5, 3, 111)
    fit = conformal(Draws.of(old), known)
    with pytest.raises(SettingError, match=r"rows of shape \(2,\).*got \(3,\)"):
        fit.interval(Draws.of(new))
    with pytest.raises(SettingError, match="Try interval"):
        fit.sets(Draws.of(new))
    with pytest.raises(SettingError, match="scaled, plain for outputs=\"values\"; got 'lac'"):
        conformal(Draws.of(old), known, score="lac")
    with pytest.raises(SettingError, match="floor: expected 0 or more"):
        conformal(Draws.of(old), known, floor=-1.0)
    with pytest.raises(SettingError, match="share between 0 and 1"):
        conformal(Draws.of(old), known, 90)
    with pytest.raises(SettingError, match="NaN or infinity in row 3"):
        conformal(bad(), torch.zeros(20))
    with pytest.raises(SettingError, match="two or more draws"):
        conformal(Draws.of(old[:1]), known)
    logits, truth = shares(20, 1, 112)
    of_classes = conformal(Draws.of(logits, outputs="logits"), truth)
    with pytest.raises(SettingError, match="Try sets"):
        of_classes.interval(Draws.of(logits, outputs="logits"))
    with pytest.raises(SettingError, match=r"rows of shape \(1, 4\).*got \(1, 3\)"):
        of_classes.sets(Draws.of(logits[..., :3], outputs="logits"))


def bad() -> Draws:
    x = noise(4, 20)
    moments = Moments()
    x[1, 3] = math.nan
    moments.add(x)
    return moments.draws()
