"""How likely the draws, taken together, make what was true."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.entropies import log_probabilities, wide
from dropkit.posterior.leaves import Leaf
from dropkit.posterior.truths import true_classes, true_values

if TYPE_CHECKING:
    from dropkit.posterior.draws import Draws


def log_likelihood(draws: Draws, targets: Tensor, noise: float | Tensor | None = None) -> Tensor:
    r"""The logarithm of the density, or probability, that the draws together give each target.

    .. math:: \log \tfrac1T \sum_t p(y \mid f_t), \qquad
        p(y \mid f) = N(y; f, v) \text{ of values, or } softmax(f)_y \text{ of classes}

    Args:
        draws: T draws of one tensor; of values they must be kept.
        targets: of values, of the shape of one draw; of classes, the number of each true class, of
            that shape without the class axis.
        noise: the variance v, in the squared unit of the targets; draws with noise have their own.
            The paper's precision is 1 / v.

    Returns:
        Of the targets' shape, in nats; each output by itself. Its mean is what papers report.

    Raises:
        SettingError: targets of another shape, no noise for values, or noise for classes.

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> log_likelihood(Draws.of(torch.zeros(5, 1)), torch.zeros(1), noise=1.0)
    tensor([-0.9189], dtype=torch.float64)

    Source: Gal & Ghahramani 2016, "Dropout as a Bayesian Approximation", appendix.
    """
    if draws.outputs != "values":
        if noise is not None:
            raise SettingError("noise: expected none with classes; got one. Try leaving it out")
        return _of_classes(*true_classes(draws, targets))
    leaf, truth = true_values(draws, targets)
    return gaussian(wide(leaf.kept) - truth, _variance(draws, noise, truth))


def gaussian(residuals: Tensor, variance: Tensor) -> Tensor:
    """Of residuals (T, ...), the log mean density under a normal law of the variance."""
    logs = -0.5 * residuals.square() / variance
    constant = math.log(len(residuals)) + 0.5 * (2 * math.pi * variance).log()
    return logs.logsumexp(0) - constant


def _variance(draws: Draws, noise: float | Tensor | None, truth: Tensor) -> Tensor:
    given = draws.noise if noise is None else noise
    if given is None:
        raise SettingError(
            "noise: expected the variance of the targets about the model's output; got none. Try "
            "dropkit.posterior.calibration.noise_variance(draws, targets) of other rows"
        )
    variance = wide(torch.as_tensor(given, dtype=torch.float64)).to(truth.device)
    if not bool((variance > 0).all()):
        raise SettingError(f"noise: expected a variance above 0; got {float(variance.min())}")
    try:
        return variance.broadcast_to(truth.shape)
    except RuntimeError as error:
        raise SettingError(
            f"noise: expected a shape that broadcasts to the targets', {tuple(truth.shape)}; got "
            f"{tuple(variance.shape)}"
        ) from error


def _of_classes(leaf: Leaf, truth: Tensor) -> Tensor:
    """By logarithms where the draws are there, so that it is finite for what is very unlikely."""
    at = truth.unsqueeze(-1)
    try:
        kept = leaf.kept
    except SettingError:
        means: Tensor = leaf.classes.mean[..., :-1]
        return means.gather(-1, at).squeeze(-1).log()
    return mixed(log_probabilities(kept, leaf.form.outputs, leaf.form.axis), truth)


def mixed(logs: Tensor, truth: Tensor) -> Tensor:
    """Of log-probabilities (T, ..., C), the log mean probability of the true classes."""
    places = truth.unsqueeze(-1).expand(len(logs), *truth.shape, 1)
    return logs.gather(-1, places).squeeze(-1).logsumexp(0) - math.log(len(logs))
