"""Monte Carlo errors: the spread over many repetitions is the error that one of them states.

Each repetition is a row: a quantity of row r is computed of draws that only r has. Seeds are fixed.
With R repetitions the spread itself is known to within 1 / sqrt(2 R) relatively, more for heavy
tails: tolerances are 4 of that, and what the formulas leave out at that number of draws.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.draws import Draws
from dropkit.posterior.montecarlo import _resampled
from made_up_draws import chance, noise

ROWS = 8000
LAWS = {
    "normal": lambda count: noise(count, ROWS),
    "uniform": lambda count: chance(count, ROWS),
    "skew": lambda count: -chance(count, ROWS).clamp_min(1e-12).log(),
    "two values": lambda count: (chance(count, ROWS) < 0.3).double(),
}


def ratio(estimates: Tensor, errors: Tensor) -> float:
    """What was stated, over what was seen."""
    return float(errors.square().mean().sqrt() / estimates.std())


@pytest.mark.parametrize("law", LAWS)
def test_of_the_mean(law: str) -> None:
    """Mutants: s instead of s / sqrt(T); the biased s, off by 4 % here."""
    draws = Draws.of(LAWS[law](12))
    assert ratio(draws.mean, draws.error("mean")) == pytest.approx(1, abs=0.032)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["var", "std"])
def test_of_the_spread(law: str, name: str) -> None:
    """Mutant: 2 s^4 / (T - 1), a normal law's: off by half for skew ones, and by 2 for uniform.

    The jackknife is above what is seen by a few per cent at 100 draws.
    """
    draws = Draws.of(LAWS[law](100))
    stated = ratio(getattr(draws, name), draws.error(name))
    assert stated == pytest.approx(1, abs=0.1 if law == "skew" else 0.05)


@pytest.mark.parametrize("q", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("law", ["normal", "uniform", "skew"])
def test_of_a_quantile(law: str, q: float) -> None:
    """Mutant: s / sqrt(T), which is off by a quarter for a normal law's median."""
    draws = Draws.of(LAWS[law](101))
    assert ratio(draws.quantile(q), draws.error("quantile", q)) == pytest.approx(1, abs=0.12)


def test_resampled_weights_are_those_of_the_bootstrap() -> None:
    """Counted over all 5^5 resamples of 5 draws."""
    from itertools import product

    for q, rank in ((0.0, 0), (0.5, 2), (0.75, 3), (1.0, 4)):
        found = [0.0] * 5
        for resample in product(range(5), repeat=5):
            found[sorted(resample)[rank]] += 5.0**-5
        assert _resampled(5, q).tolist() == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("count", [400, 20_000])
@pytest.mark.parametrize("q", [0.0, 0.003, 0.05, 0.5, 0.9, 1.0])
def test_resampled_weights_are_those_of_the_beta_law(count: int, q: float) -> None:
    """Mutant: a window that cuts off what counts."""
    beta = pytest.importorskip("scipy.stats").beta
    rank = round(q * (count - 1)) + 1
    below = beta.cdf(torch.arange(count + 1).double() / count, rank, count - rank + 1)
    assert _resampled(count, q).tolist() == pytest.approx(list(below[1:] - below[:-1]), abs=1e-9)


SPREAD = torch.tensor([1.5, 0.5, 1.0, 0.2], dtype=torch.float64)
CENTRE = torch.tensor([1.0, 0.0, -0.5, -1.0], dtype=torch.float64)


@pytest.mark.parametrize("name", ["entropy", "expected_entropy", "mutual_information"])
def test_of_entropies(name: str) -> None:
    """Mutants: the entropy's error taken as that of the expected one; the two parts as independent.

    The delta method leaves out what is of order 1 / T: a few per cent at 100 draws.
    """
    logits = CENTRE + SPREAD * noise(100, 4000, 4)
    draws = Draws.of(logits, outputs="logits")
    assert ratio(getattr(draws, name), draws.error(name)) == pytest.approx(1, abs=0.06)
    assert torch.equal(draws.error("epistemic"), draws.error("mutual_information"))


def test_of_probabilities() -> None:
    draws = Draws.of(CENTRE + SPREAD * noise(30, 4000, 4), outputs="logits")
    for of, errors in zip(draws.probabilities.T, draws.error("probabilities").T, strict=True):
        assert ratio(of, errors) == pytest.approx(1, abs=0.05)


def test_of_the_variation_ratio() -> None:
    """Mutant: divided by T twice. The mode is clear: 7 of 10 draws."""
    votes = (chance(60, ROWS, 1) > 0.7).long()
    logits = torch.cat([1 - 2 * votes, 2 * votes - 1], -1).double()
    draws = Draws.of(logits, outputs="logits")
    assert ratio(draws.variation_ratio, draws.error("variation_ratio")) == pytest.approx(
        1, abs=0.035
    )
    tokens = Draws.of(votes[..., 0])
    assert torch.equal(tokens.error("variation_ratio"), draws.error("variation_ratio"))


def test_errors_shrink_with_the_root_of_the_draws() -> None:
    few, many = Draws.of(noise(100, 500)), Draws.of(noise(400, 500, seed=1))
    for name, args in (("mean", ()), ("std", ()), ("quantile", (0.5,))):
        shrunk = few.error(name, *args).mean() / many.error(name, *args).mean()
        assert float(shrunk) == pytest.approx(2, abs=0.15)


def test_what_never_varies_has_no_error() -> None:
    """Mutant: 0 / 0 in the delta method of the standard deviation."""
    same = Draws.of(torch.full((10, 3), 7.0))
    for name, args in (("mean", ()), ("var", ()), ("std", ()), ("quantile", (0.3,))):
        assert same.error(name, *args).tolist() == [0, 0, 0]
    logits = Draws.of(torch.tensor([3.0, 0.0, 1.0]).expand(10, 3), outputs="logits")
    for name in ("probabilities", "entropy", "mutual_information", "variation_ratio"):
        assert float(logits.error(name).max()) < 1e-15


def test_an_interval_has_the_errors_of_its_ends() -> None:
    draws = Draws.of(noise(50, 3))
    low, high = draws.error("interval", 0.5)
    assert torch.equal(low, draws.error("quantile", 0.25))
    assert torch.equal(high, draws.error("quantile", 0.75))
    default = draws.error("interval")[1]
    assert torch.equal(default, draws.error("quantile", 0.95))


def test_errors_need_draws() -> None:
    two, one = Draws.of(noise(2, 3)), Draws.of(noise(1, 3))
    assert two.error("mean").isfinite().all()
    for draws, name in ((two, "var"), (two, "std"), (one, "mean")):
        with pytest.raises(SettingError, match=r"expected \d or more draws; got"):
            draws.error(name)
    with pytest.raises(SettingError, match="error: expected a quantity"):
        two.error("aleatoric")  # of values it is given, not drawn


def test_a_known_case_by_hand() -> None:
    draws = Draws.of(torch.tensor([[0.0], [2.0], [4.0], [6.0]]))
    assert float(draws.error("mean")) == pytest.approx(math.sqrt(20 / 3 / 4), rel=1e-14)
    left_out = [torch.tensor(x).double().var() for x in ([2.0, 4, 6], [0.0, 4, 6], [0.0, 2, 6],
                                                         [0.0, 2, 4])]  # fmt: skip
    jackknife = math.sqrt(3 * float(torch.stack(left_out).var(correction=0)))
    assert float(draws.error("var")) == pytest.approx(jackknife, rel=1e-12)
