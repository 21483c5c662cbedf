"""What draws say of a quantity, and the Monte Carlo standard error of what they say.

The error is the standard deviation that the quantity would have over other draws, as many of the
same model: how far it is from what infinitely many draws would give. It says nothing of the model.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.entropies import entropy, mutual_information, wide
from dropkit.posterior.leaves import Leaf, check_classes, check_real


def need(leaf: Leaf, count: int, what: str) -> int:
    """The number of draws, which suffices.

    Raises:
        SettingError: there are fewer.
    """
    if leaf.count < count:
        raise SettingError(f"{what}: expected {count} or more draws; got {leaf.count}")
    return leaf.count


def mean(leaf: Leaf) -> Tensor:
    """Mean over draws."""
    return leaf.central.mean


def mean_error(leaf: Leaf) -> Tensor:
    """s / sqrt(T)."""
    return (variance(leaf) / leaf.count).sqrt()


def variance(leaf: Leaf) -> Tensor:
    """Unbiased variance over draws."""
    return leaf.central.m2 / (need(leaf, 2, "the variance") - 1)


def variance_error(leaf: Leaf) -> Tensor:
    r"""The jackknife's, in closed form; it asks for no normal law.

    .. math:: \frac{T}{(T-1)(T-2)^2} \left(\sum_t d_t^4 - \tfrac1T (\sum_t d_t^2)^2\right)
    """
    count, sums = need(leaf, 3, "the error of a variance"), leaf.central
    inner = (sums.m4 - sums.m2.square() / count).clamp_min(0)
    return (inner * (count / ((count - 1) * (count - 2) ** 2))).sqrt()


def deviation(leaf: Leaf) -> Tensor:
    """Square root of the unbiased variance."""
    return variance(leaf).sqrt()


def deviation_error(leaf: Leaf) -> Tensor:
    """The variance's by the delta method: divided by 2 s; 0 where nothing varies."""
    error, spread = variance_error(leaf), deviation(leaf)
    return torch.where(spread == 0, torch.zeros_like(error), error / (2 * spread))


def quantile(leaf: Leaf, q: float) -> Tensor:
    """The quantile of the draws, linear between the two nearest, as numpy has it."""
    ordered = _ordered(leaf)
    at = q * (leaf.count - 1)
    low = min(math.floor(at), leaf.count - 1)
    high = min(low + 1, leaf.count - 1)
    return _unless_nan(torch.lerp(ordered[low], ordered[high], at - low), ordered)


def quantile_error(leaf: Leaf, q: float) -> Tensor:
    """The standard deviation that the order statistic has over all resamples of the draws.

    Source: Maritz & Jarrett 1978, "A Note on Estimating the Variance of the Sample Median"; Efron
    1979 for the bootstrap, whose exact limit it is. With the order statistic nearest to the
    quantile; far in the tails, where few draws lie beyond it, it is rough.
    """
    ordered = _ordered(leaf)
    weights = _resampled(need(leaf, 3, "the error of a quantile"), q).to(ordered.device)
    weights = weights.view(-1, *[1] * (ordered.dim() - 1))
    off = ordered - (weights * ordered).sum(0)
    return _unless_nan((weights * off.square()).sum(0).sqrt(), ordered)


def _ordered(leaf: Leaf) -> Tensor:
    check_real(leaf.form)
    return wide(leaf.kept).sort(0).values


def _unless_nan(found: Tensor, ordered: Tensor) -> Tensor:
    last = ordered[-1]  # NaN are sorted to the end
    return torch.where(last.isnan(), last, found)


def _resampled(count: int, q: float) -> Tensor:
    """Of each of the ordered draws: how often it is the quantile of a resample.

    The k-th smallest of T resampled is among the i smallest draws if at least k of T are, each of
    which is so with the probability i/T. By Hoeffding's bound no count is 6 sqrt(T) off its mean
    more often than exp(-72), so that what is further off need not be looked at.
    """
    rank, reach = round(q * (count - 1)) + 1, math.ceil(6 * math.sqrt(count))
    first, last = max(1, rank - reach), min(count - 1, rank + reach)
    below = (torch.arange(count + 1) > last).double()
    chance = torch.arange(first, last + 1, dtype=torch.float64) / count
    hits = torch.arange(rank, min(count, rank + 2 * reach) + 1, dtype=torch.float64)
    all_ways = math.lgamma(count + 1)
    ways = all_ways - (hits + 1).lgamma() - (count - hits + 1).lgamma()
    logs = ways + hits * chance.log().unsqueeze(1) + (count - hits) * (-chance).log1p().unsqueeze(1)
    below[first : last + 1] = logs.exp().sum(1)
    return below.diff()


def probabilities(leaf: Leaf) -> Tensor:
    """Mean probabilities, the classes where the outputs have them."""
    return _in_place(leaf, leaf.classes.mean[..., :-1])


def probabilities_error(leaf: Leaf) -> Tensor:
    """s / sqrt(T) of each class."""
    count = need(leaf, 2, "the error of probabilities")
    return _in_place(leaf, (leaf.classes.m2[..., :-1] / (count - 1) / count).sqrt())


def _in_place(leaf: Leaf, last: Tensor) -> Tensor:
    return last.movedim(-1, leaf.form.axis)


def total_entropy(leaf: Leaf) -> Tensor:
    """Entropy of the mean probabilities."""
    return entropy(_log_mean(leaf))


def total_entropy_error(leaf: Leaf) -> Tensor:
    """By the delta method: the standard error of the mean of -sum(p_t log(mean p))."""
    return _scored_error(leaf, -1.0, 0.0)


def expected_entropy(leaf: Leaf) -> Tensor:
    """Mean of the draws' entropies."""
    return leaf.classes.mean[..., -1]


def expected_entropy_error(leaf: Leaf) -> Tensor:
    """s / sqrt(T)."""
    return _scored_error(leaf, 0.0, 1.0)


def information(leaf: Leaf) -> Tensor:
    """Mutual information of the output and the draw."""
    return mutual_information(_log_mean(leaf), expected_entropy(leaf))


def information_error(leaf: Leaf) -> Tensor:
    """By the delta method: the standard error of the mean of KL(p_t || mean p)."""
    return _scored_error(leaf, -1.0, -1.0)


def _log_mean(leaf: Leaf) -> Tensor:
    return leaf.classes.mean[..., :-1].log()


def _scored_error(leaf: Leaf, of_logs: float, of_entropy: float) -> Tensor:
    """Of the mean over draws of of_logs * sum(p_t log(mean p)) + of_entropy * H(p_t)."""
    count = need(leaf, 2, "a Monte Carlo error")
    logs = _log_mean(leaf)
    weights = of_logs * logs if of_logs else torch.zeros_like(logs)
    return (leaf.spread(weights, of_entropy) / count).sqrt()


def variation_ratio(leaf: Leaf) -> Tensor:
    """The share of draws that do not say what most say."""
    return 1 - _most(leaf)


def variation_ratio_error(leaf: Leaf) -> Tensor:
    """That of a share, with T - 1; rough where two classes get about as many votes."""
    count, most = need(leaf, 2, "the error of the variation ratio"), _most(leaf)
    return (most * (1 - most) / (count - 1)).sqrt()


def _most(leaf: Leaf) -> Tensor:
    """Share of the draws that say what most say."""
    form = leaf.form
    if not form.dtype.is_floating_point and not form.dtype.is_complex:
        draws = leaf.kept.to(torch.int64)
        return (draws == draws.mode(0).values).double().mean(0)
    check_classes(form)
    share = leaf.classes.votes.double().amax(-1) / leaf.count
    unknown = leaf.classes.mean[..., -1]
    return torch.where(unknown.isnan(), unknown, share)


def ends(level: float) -> tuple[float, float]:
    """The quantiles between which a share of the draws lies, as many outside on either side.

    >>> ends(0.9)
    (0.05, 0.95)
    """
    share = exactly(level)
    return float((1 - share) / 2), float((1 + share) / 2)


def exactly(level: float) -> Fraction:
    """The decimal that was meant: 0.9 is nine tenths.

    Raises:
        SettingError: it is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise SettingError(f"level: expected a share between 0 and 1, as 0.9; got {level}")
    return Fraction(repr(float(level)))
