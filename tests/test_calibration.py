"""A temperature and a noise undo what was done to draws; likelihoods are those of the formula."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily, Normal
from torch.distributions.categorical import Categorical

from dropkit.errors import DropkitWarning, SettingError
from dropkit.posterior.calibration import noise_variance, temperature
from dropkit.posterior.draws import Draws
from dropkit.posterior.likelihood import log_likelihood
from dropkit.posterior.moments import Moments
from made_up_draws import classes, noise


def honest(rows: int = 12_000) -> tuple[Tensor, Tensor]:
    """Logits of draws (3, rows, 4), and classes drawn by their mean probabilities."""
    logits = 1.5 * noise(1, rows, 4, seed=1) + 0.8 * noise(3, rows, 4, seed=2)
    return logits, classes(logits.softmax(-1).mean(0), seed=3)


# ---- likelihood


def test_of_values_it_is_that_of_a_mixture_of_normals() -> None:
    """Mutants: the mean of the logs; a precision for a variance; 2 pi left out."""
    x, y = noise(12, 5, 2), noise(5, 2, seed=1)
    parts = Normal(x.movedim(0, -1), 0.7)
    expected = MixtureSameFamily(Categorical(torch.ones(5, 2, 12)), parts).log_prob(y)
    found = log_likelihood(Draws.of(x), y, noise=0.49)
    assert torch.allclose(found, expected, rtol=1e-6)
    assert torch.equal(found, log_likelihood(Draws.of(x).with_noise(0.49), y))
    each = torch.tensor([0.49, 2.0], dtype=torch.float64)
    assert torch.equal(log_likelihood(Draws.of(x), y, each)[:, 0], found[:, 0])


def test_it_is_finite_however_far_off() -> None:
    """Mutant: the logarithm of a mean of densities that are all 0."""
    far = log_likelihood(Draws.of(torch.zeros(4, 1)), torch.tensor([1000.0]), noise=1.0)
    assert float(far) == pytest.approx(-500_000 - 0.5 * math.log(2 * math.pi), rel=1e-12)
    logits = torch.tensor([[[5000.0, 0.0]], [[4000.0, 0.0]]])
    unlikely = log_likelihood(Draws.of(logits, outputs="logits"), torch.tensor([1]))
    assert float(unlikely) == pytest.approx(-4000 - math.log(2), rel=1e-12)


def test_of_classes_it_is_that_of_the_mean_probability() -> None:
    logits, truth = honest(50)
    draws = Draws.of(logits, outputs="logits")
    expected = draws.probabilities.gather(1, truth.unsqueeze(1)).squeeze(1).log()
    assert torch.allclose(log_likelihood(draws, truth), expected, rtol=1e-10)
    moments = Moments("logits")
    moments.add(logits)
    assert torch.allclose(log_likelihood(moments.draws(), truth), expected, rtol=1e-10)


def test_of_an_axis_of_classes_in_the_middle() -> None:
    x = noise(6, 3, 4, 5)  # 4 classes at each of 5 places
    truth = torch.arange(15).view(3, 5) % 4
    found = log_likelihood(Draws.of(x, outputs="logits", class_axis=1), truth)
    plain = log_likelihood(Draws.of(x.movedim(2, -1), outputs="logits"), truth)
    assert found.shape == (3, 5) and torch.equal(found, plain)


@pytest.mark.parametrize(
    ("targets", "variance", "words"),
    [
        (torch.zeros(5, 1), 1.0, r"shape \(5,\), one for each output; got \(5, 1\). Try .*reshape"),
        (torch.zeros(1), 1.0, r"shape \(5,\)"),
        (torch.full((5,), math.nan), 1.0, "finite numbers"),
        (torch.zeros(5), None, "noise_variance"),
        (torch.zeros(5), 0.0, "above 0; got 0"),
        (torch.zeros(5), torch.ones(4), r"broadcasts to the targets', \(5,\); got \(4,\)"),
        ([0.0] * 5, 1.0, "expected a tensor; got list"),
    ],
)
def test_what_does_not_fit_values_is_refused(targets, variance, words) -> None:  # type: ignore[no-untyped-def]
    """Mutant: targets (n, 1) against outputs (n,), stretched to n x n."""
    with pytest.raises(SettingError, match=words):
        log_likelihood(Draws.of(noise(3, 5)), targets, variance)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.tensor([0, 4]), "from 0 to 3; got 4"),
        (torch.tensor([0, -100]), "from 0 to 3; got -100"),
        (torch.tensor([0.0, 1.0]), r"Try targets.long\(\)"),
        (torch.zeros(2, 4, dtype=torch.int64), r"shape \(2,\)"),
    ],
)
def test_what_are_no_classes_is_refused(targets: Tensor, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        log_likelihood(Draws.of(noise(3, 2, 4), outputs="logits"), targets)


def test_classes_have_no_noise_and_trees_are_parted() -> None:
    draws = Draws.of(noise(3, 2, 4), outputs="logits")
    with pytest.raises(SettingError, match="expected none with classes"):
        log_likelihood(draws, torch.tensor([0, 1]), noise=1.0)
    two = Draws.of({"a": noise(3, 2), "b": noise(3, 2)})
    with pytest.raises(SettingError, match=r"Try draws\['a'\], draws\['b'\]"):
        log_likelihood(two, torch.zeros(2), noise=1.0)


# ---- temperature


@pytest.mark.parametrize("distortion", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_a_temperature_undoes_a_distortion(distortion: float, outputs: str) -> None:
    """Mutants: its inverse; the temperature of the mean logits, or of a single draw."""
    logits, truth = honest()
    bent = logits * distortion
    draws = Draws.of(bent if outputs == "logits" else bent.softmax(-1), outputs=outputs)  # type: ignore[arg-type]
    assert temperature(draws, truth) == pytest.approx(distortion, rel=0.05)


def test_no_other_temperature_is_better() -> None:
    logits, truth = honest(300)
    draws = Draws.of(3 * logits, outputs="logits")
    best = temperature(draws, truth)

    def likelihood(tau: float) -> float:
        return float(log_likelihood(draws.tempered(tau), truth).mean())

    others = [likelihood(best * factor) for factor in (0.2, 0.5, 0.99, 0.999, 1.001, 1.01, 2, 5)]
    assert likelihood(best) > max(others)
    assert likelihood(best) > likelihood(1.0)


def test_a_temperature_at_the_end_is_said_to_be_a_bound() -> None:
    right = Draws.of(torch.eye(4).expand(3, 4, 4), outputs="logits")
    with pytest.warns(DropkitWarning, match="near the end.*a bound, and no estimate"):
        assert temperature(right, torch.arange(4)) == pytest.approx(0.05, rel=0.2)
    with pytest.warns(DropkitWarning, match="a bound"):
        assert temperature(right, torch.tensor([1, 2, 3, 0])) == pytest.approx(20, rel=0.2)


def test_what_has_no_temperature_is_refused() -> None:
    never = torch.tensor([1.0, 0.0]).expand(3, 2, 2)
    with pytest.raises(SettingError, match="0 or NaN in row 1"):
        temperature(Draws.of(never, outputs="probabilities"), torch.tensor([0, 1]))
    with pytest.raises(SettingError, match="0 < low < high"):
        temperature(Draws.of(never, outputs="logits"), torch.tensor([0, 1]), low=2.0, high=1.0)
    with pytest.raises(SettingError, match='outputs="logits"'):
        temperature(Draws.of(noise(3, 2)), torch.tensor([0, 1]))


# ---- noise


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_variance_of_a_noise_is_found(scale: float) -> None:
    """Mutants: the mean squared error of the mean, which counts the draws' spread as noise.

    The draws are 60 normal quantiles, the truth of the same law and a noise as large. The noise is
    known to 2 sqrt(2 / 4000) = 4.5 % of itself by these targets: the tolerance is 4 of that.
    """
    middle, places = noise(4000, seed=1), (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    draws = Draws.of(scale * (middle + torch.special.ndtri(places).unsqueeze(1)))
    targets = scale * (middle + noise(4000, seed=3) + noise(4000, seed=4))
    assert noise_variance(draws, targets) == pytest.approx(scale**2, rel=0.18)


def test_of_one_draw_it_is_the_mean_squared_error_and_no_warning() -> None:
    x, y = noise(1, 50), noise(50, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = noise_variance(Draws.of(x), y)
    assert found == pytest.approx(float((x[0] - y).square().mean()), rel=1e-6)


def test_no_other_variance_is_better() -> None:
    draws, y = Draws.of(noise(20, 60)), 2 * noise(60, seed=1)
    best = noise_variance(draws, y)
    at = [float(log_likelihood(draws, y, noise=best * f).mean()) for f in (1, 0.1, 0.99, 1.01, 10)]
    assert max(at) == at[0]


def test_a_noise_that_is_none_is_said() -> None:
    hit = Draws.of(torch.stack([torch.zeros(4), torch.ones(4)]))
    with pytest.warns(DropkitWarning, match="a bound"):
        assert noise_variance(hit, torch.tensor([0.0, 1.0, 1.0, 0.0])) < 1e-7
    with pytest.raises(SettingError, match="finite error above 0; got a mean square of 0"):
        noise_variance(Draws.of(torch.zeros(3, 4)), torch.zeros(4))
