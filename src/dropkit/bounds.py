"""Exact probabilities of counts, and bounds on means; the false alarms of every check.

A check compares what it saw with what the law allows. Each of the functions here gives the chance,
under the law, of something at least as far out on the same side, doubled for the two sides. The
sums are exact (logarithms by `math.lgamma`, good to 1e-6 of the result for ten million draws), so
the rate of false alarms is what is stated, not what a normal curve promises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

FALSE_ALARM = 1e-8
"""What each check may spend: 49 checks raise a false alarm in fewer than one run of two million."""

_NEGLIGIBLE = 1e-17  # a term that changes no digit of a sum


def binomial_chance(count: int, draws: int, rate: float) -> float:
    """Two-sided chance of `count` successes in `draws` trials of probability `rate`.

    >>> round(binomial_chance(0, 10, 0.5) * 2**10, 9)
    2.0
    """
    if rate in (0.0, 1.0) or draws == 0:
        return 1.0 if count == draws * rate else 0.0
    if count > draws * rate:
        count, rate = draws - count, 1 - rate
    return min(1.0, 2 * _binomial_below(count, draws, rate))


@lru_cache(maxsize=256)
def binomial_limits(draws: int, rate: float, alarm: float) -> tuple[int, int]:
    """The counts, lowest and highest, that a binomial law leaves with a chance of `alarm` at most.

    >>> binomial_limits(100, 0.5, 0.05)
    (40, 60)
    """
    if rate in (0.0, 1.0):
        return round(draws * rate), round(draws * rate)
    low = _first_above(alarm / 2, draws, rate)
    return low, draws - _first_above(alarm / 2, draws, 1 - rate)


def hypergeometric_chance(both: int, draws: int, first: int, second: int) -> float:
    """Two-sided chance that two independent sets of bits agree so often, or so rarely.

    Of `draws` pairs `first` have the first bit set, `second` the second, and `both` have both.
    Given the first two counts, the third has a hypergeometric law whatever the rates are
    (Fisher's exact test); so a wrong rate is never taken for a dependence.

    >>> round(hypergeometric_chance(3, 6, 3, 3), 9)  # 2 of the 20 ways to choose 3 of 6
    0.1
    """
    if both > first * second / draws:
        both, second = first - both, draws - second
    lowest = max(0, first + second - draws)

    def ratio(k: int) -> float:
        return k * (draws - first - second + k) / ((first - k + 1) * (second - k + 1))

    start = _choose(first, both) + _choose(draws - first, second - both) - _choose(draws, second)
    return min(1.0, 2 * _summed(both, lowest, start, ratio))


def mean_chance(mean: float, draws: int, expected: float) -> float:
    """A bound on the two-sided chance of a mean of independent values in [0, 1].

    Hoeffding 1963, theorem 1: 2 exp(-draws * KL(mean || expected)). It asks nothing of the
    values but their range and their expectation.
    """
    if mean == expected:
        return 1.0
    if not 0 <= mean <= 1 or not 0 < expected < 1:
        return 0.0
    divergence = sum(
        a * math.log(a / b) for a, b in ((mean, expected), (1 - mean, 1 - expected)) if a > 0
    )
    return min(1.0, 2 * math.exp(-draws * divergence))


def normal_chance(z: float) -> float:
    """Two-sided chance of a standard normal value.

    >>> round(normal_chance(1.959964), 6)
    0.05
    """
    return math.erfc(abs(z) / math.sqrt(2))


def _binomial_below(count: int, draws: int, rate: float) -> float:
    """P(X <= count), for a count below the mean."""
    start = _choose(draws, count) + count * math.log(rate) + (draws - count) * math.log1p(-rate)
    odds = (1 - rate) / rate
    return _summed(count, 0, start, lambda k: k / (draws - k + 1) * odds)


def _first_above(chance: float, draws: int, rate: float) -> int:
    """The lowest count k with P(X <= k) > chance."""
    low, high = 0, math.ceil(draws * rate)
    while low < high:
        middle = (low + high) // 2
        if _binomial_below(middle, draws, rate) > chance:
            high = middle
        else:
            low = middle + 1
    return low


def _summed(first: int, last: int, start: float, ratio: Callable[[int], float]) -> float:
    """exp(start) * (1 + ratio(first) (1 + ratio(first - 1) (1 + ...))), down to `last`."""
    total = term = 1.0
    for k in range(first, last, -1):
        term *= ratio(k)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return math.exp(min(0.0, start + math.log(total)))


def _choose(n: int, k: int) -> float:
    """The logarithm of n over k."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
