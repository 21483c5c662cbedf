"""What is fitted after training, on rows that were not trained on: a temperature, a noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dropkit.errors import DropkitWarning, SettingError
from dropkit.posterior.entropies import log_probabilities, wide
from dropkit.posterior.likelihood import gaussian, mixed
from dropkit.posterior.truths import true_classes, true_values

if TYPE_CHECKING:
    from dropkit.posterior.draws import Draws

_GRID = 49
_GOLDEN = (math.sqrt(5) - 1) / 2


def temperature(draws: Draws, targets: Tensor, *, low: float = 0.05, high: float = 20.0) -> float:
    r"""The temperature under which the draws together make the true classes most likely.

    .. math:: \arg\min_\tau -\sum_n \log \tfrac1T \sum_t softmax(f_{nt} / \tau)_{y_n}

    Each draw is tempered, and then the mean taken, as `draws.tempered(temperature)` does it. With
    several draws the sum need not be convex, so a grid is looked through before the search ends in
    its best cell.

    Args:
        draws: kept draws of logits, or of probabilities, of rows that were not trained on.
        targets: the number of each true class.
        low, high: between which it is sought.

    Raises:
        SettingError: values, draws that were not kept, or targets that are no classes.

    Warns:
        DropkitWarning: the best one is at an end, as where every row is right.

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> draws = Draws.of(torch.tensor([[[4.0, 0.0]] * 4]), outputs="logits")
    >>> round(temperature(draws, torch.tensor([0, 0, 0, 1])), 3)  # 4 / log(3)
    3.641

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", for a single pass.
    """
    if not 0 < low < high < math.inf:
        raise SettingError(f"low, high: expected 0 < low < high; got {low} and {high}")
    leaf, truth = true_classes(draws, targets)
    logs = log_probabilities(leaf.kept, leaf.form.outputs, leaf.form.axis)
    check_finite_loss(mixed(logs, truth))

    def loss(tau: float) -> float:
        return -float(mixed((logs / tau).log_softmax(-1), truth).mean())

    return _least(loss, low, high, "temperature")


def noise_variance(draws: Draws, targets: Tensor) -> float:
    r"""The variance of the noise under which the draws together make the targets most likely.

    .. math:: \arg\max_v \sum_n \log \tfrac1T \sum_t N(y_n; f_{nt}, v)

    It is what Gal & Ghahramani 2016 call 1 / tau and choose from a grid. It never exceeds the mean
    squared error of the single draws, and is sought down to a hundred-millionth of that.

    Args:
        draws: kept draws of values, of rows that were not trained on.
        targets: of the shape of one draw.

    Raises:
        SettingError: classes, draws that were not kept, targets of another shape, or no error.

    Warns:
        DropkitWarning: the best one is at the lower end: for each target some draw hits it.

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> noise_variance(Draws.of(torch.zeros(2, 4)), torch.tensor([1.0, -1.0, 3.0, -3.0]))
    5.0
    """
    leaf, truth = true_values(draws, targets)
    residuals = wide(leaf.kept) - truth
    most = float(residuals.square().mean())
    if not 0 < most < math.inf:
        raise SettingError(
            "noise_variance: expected draws with a finite error above 0; got a mean square of "
            f"{most}"
        )

    def loss(share: float) -> float:
        variance = torch.tensor(share * most, dtype=torch.float64, device=residuals.device)
        return -float(gaussian(residuals, variance).mean())

    return most * _least(loss, 1e-8, 1.0, "noise_variance", open_above=True)


def check_finite_loss(likelihoods: Tensor) -> None:
    """Every target has a likelihood."""
    bad = (~likelihoods.isfinite()).reshape(len(likelihoods), -1).any(1).nonzero()
    if len(bad):
        raise SettingError(
            "draws: expected some probability for each true class; got 0 or NaN in row "
            f"{int(bad[0])}"
        )


def _least(
    loss: Callable[[float], float], low: float, high: float, name: str, open_above: bool = False
) -> float:
    """Where a loss is least between two positive numbers, to nine digits of the logarithm.

    `open_above`: being at the upper end is no surprise, as the least is known to be below it.
    """
    grid = torch.logspace(math.log10(low), math.log10(high), _GRID, dtype=torch.float64).tolist()
    losses = [loss(value) for value in grid]
    best = min(range(_GRID), key=losses.__getitem__)
    a, b = (math.log(grid[place]) for place in (max(best - 1, 0), min(best + 1, _GRID - 1)))
    found = _golden(lambda x: loss(math.exp(x)), a, b)
    value = float(grid[best]) if losses[best] < loss(found) else found
    if best == 0 or (best == _GRID - 1 and not open_above):
        warnings.warn(
            f"{name}: the best value is at or near the end of what was looked through, {value:.3g}"
            f" in [{low:g}, {high:g}]; it is then a bound, and no estimate",
            DropkitWarning,
            stacklevel=3,
        )
    return value


def _golden(loss: Callable[[float], float], a: float, b: float) -> float:
    """Golden-section search on logarithms."""
    c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    at_c, at_d = loss(c), loss(d)
    while b - a > 1e-9:
        if at_c <= at_d:
            b, d, at_d = d, c, at_c
            c = b - _GOLDEN * (b - a)
            at_c = loss(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + _GOLDEN * (b - a)
            at_d = loss(d)
    return math.exp((a + b) / 2)
