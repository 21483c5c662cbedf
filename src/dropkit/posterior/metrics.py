"""How good draws are, against what was true; lower is better, but for coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from dropkit.errors import SettingError
from dropkit.posterior.entropies import wide
from dropkit.posterior.leaves import Leaf
from dropkit.posterior.likelihood import log_likelihood
from dropkit.posterior.truths import true_classes, true_values

if TYPE_CHECKING:
    from dropkit.posterior.draws import Draws


@dataclass(frozen=True, eq=False, slots=True)
class Bins:
    """Rows in bins of stated confidence; bins without a row are left out."""

    rows: Tensor
    stated: Tensor
    """Mean of the largest probability."""
    observed: Tensor
    """Share whose likeliest class was the true one."""

    @property
    def error(self) -> float:
        """Mean distance of stated and observed, weighted by rows."""
        return float((self.rows * (self.stated - self.observed).abs()).sum() / self.rows.sum())


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """A loss over the share of rows that are kept, the most certain first: from 1/n to 1."""

    share: Tensor
    loss: Tensor
    ideal: Tensor
    """If the rows were ordered by their true loss."""
    name: str
    """What the loss is."""

    @property
    def area(self) -> float:
        """Mean of the loss over shares."""
        return float(self.loss.mean())

    @property
    def excess(self) -> float:
        """Mean over shares of the loss beyond the ideal order's."""
        return float((self.loss - self.ideal).mean())


def negative_log_likelihood(
    draws: Draws, targets: Tensor, noise: float | Tensor | None = None
) -> float:
    """Mean of what `log_likelihood` gives, with the sign turned, in nats.

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> draws = Draws.of(torch.tensor([[[0.5, 0.5]]]), outputs="probabilities")
    >>> round(negative_log_likelihood(draws, torch.tensor([0])), 4)
    0.6931
    """
    return -float(log_likelihood(draws, targets, noise).mean())


def brier(draws: Draws, targets: Tensor) -> float:
    r"""Brier score of all classes, from 0 to 2; of two classes, twice that of one of them.

    .. math:: \tfrac1N \sum_n \sum_c (\bar p_{nc} - [c = y_n])^2

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> brier(Draws.of(torch.tensor([[[0.5, 0.5]]]), outputs="probabilities"), torch.tensor([0]))
    0.5

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability".
    """
    leaf, truth = true_classes(draws, targets)
    p = _shares(leaf)
    return float((p - functional.one_hot(truth, p.shape[-1])).square().sum(-1).mean())


def reliability(draws: Draws, targets: Tensor, bins: int = 15) -> Bins:
    """Stated confidence and observed accuracy, in bins of equal width.

    Raises:
        SettingError: values, targets of another shape, or no bin.
    """
    if bins < 1:
        raise SettingError(f"bins: expected 1 or more; got {bins}")
    leaf, truth = true_classes(draws, targets)
    stated, said = _shares(leaf).flatten(0, -2).max(-1)
    right = (said == truth.flatten()).double()
    place = (stated * bins).ceil().long().clamp(1, bins) - 1  # a bin holds its upper end
    rows = place.bincount(minlength=bins).double()
    sums = [place.bincount(weights, minlength=bins) for weights in (stated, right)]
    there = rows > 0
    return Bins(rows[there], *(total[there] / rows[there] for total in sums))


def expected_calibration_error(draws: Draws, targets: Tensor, bins: int = 15) -> float:
    """Mean distance of stated confidence and observed accuracy, weighted by rows.

    Chance alone makes it positive: of a calibrated model it is on average up to 0.4 sqrt(bins /
    rows).

    Source: Guo et al. 2017; Naeini et al. 2015.
    """
    return reliability(draws, targets, bins).error


def risk_coverage(draws: Draws, targets: Tensor, by: str | Tensor = "auto") -> Curve:
    """The loss of the rows that are kept, over their share, if the most uncertain are left out.

    The loss is the share of errors of classes, and the mean squared error of values. Rows that are
    as uncertain as each other are kept in no order: each counts as their mean.

    Args:
        draws: of one tensor.
        targets: true values or classes.
        by: the uncertainty: "auto" (entropy of classes, variance over draws of values), another
            quantity of draws, or a tensor of the targets' shape, high where uncertain.

    Raises:
        SettingError: targets or an uncertainty of another shape, or not of numbers.

    Source: Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks".
    """
    losses, name = _losses(draws, targets)
    return _curve(losses, uncertainty(draws, by, targets), name)


def aurc(draws: Draws, targets: Tensor, by: str | Tensor = "auto") -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages.

    An uncertainty that tells nothing has that of the whole.
    """
    return risk_coverage(draws, targets, by).area


def sparsification(draws: Draws, targets: Tensor, by: str | Tensor = "auto") -> Curve:
    """As `risk_coverage`, as a share of the loss of all rows; of values, its square root.

    Raises:
        SettingError: as there; or no row has a loss.

    Source: Ilg et al. 2018, "Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow".
    """
    found = risk_coverage(draws, targets, by)
    whole = found.loss[-1]
    if not whole > 0:
        raise SettingError("targets: expected some row with an error; got none")
    power = 0.5 if draws.outputs == "values" else 1.0
    loss, ideal = ((x / whole) ** power for x in (found.loss, found.ideal))
    return Curve(found.share, loss, ideal, "RMSE" if power < 1 else found.name)


def ause(draws: Draws, targets: Tensor, by: str | Tensor = "auto") -> float:
    """Area between the sparsification curve and that of the ideal order; 0 is perfect."""
    return sparsification(draws, targets, by).excess


def interval_coverage(interval: tuple[Tensor, Tensor], targets: Tensor) -> float:
    """The share of targets that their intervals hold, ends included.

    >>> import torch
    >>> interval_coverage((torch.zeros(4), torch.ones(4)), torch.tensor([0.0, 0.5, 1.0, 2.0]))
    0.75
    """
    low, high = interval
    if not low.shape == high.shape == targets.shape:
        raise SettingError(
            f"targets: expected the intervals' shape; got {tuple(targets.shape)} beside "
            f"{tuple(low.shape)} and {tuple(high.shape)}"
        )
    truth = wide(targets)
    return float(((low <= truth) & (truth <= high)).double().mean())


def interval_width(interval: tuple[Tensor, Tensor]) -> float:
    """Mean width of intervals, in the unit of the outputs."""
    low, high = interval
    return float((high - low).mean())


def crps(draws: Draws, targets: Tensor) -> float:
    r"""Continuous ranked probability score of the draws, in the unit of the outputs.

    .. math:: \tfrac1T \sum_t |f_t - y| - \tfrac{1}{2 T (T-1)} \sum_{s,t} |f_s - f_t|

    Its mean does not hang on the number of draws. Of one draw that is the absolute error, which the
    formula cannot say: two or more are needed.

    Raises:
        SettingError: classes, one draw, draws that were not kept, targets of another shape.

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> crps(Draws.of(torch.tensor([[0.0], [2.0]])), torch.tensor([3.0]))
    1.0

    Source: Ferro 2014, "Fair scores for ensemble forecasts"; pairs by sorting.
    """
    leaf, truth = true_values(draws, targets)
    count = leaf.count
    if count < 2:
        raise SettingError(f"crps: expected two or more draws; got {count}")
    ordered = wide(leaf.kept).sort(0).values
    ranks = torch.arange(1 - count, count, 2, dtype=torch.float64, device=truth.device)
    pairs = (ranks.view(-1, *[1] * truth.dim()) * ordered).sum(0) / (count * (count - 1))
    return float(((ordered - truth).abs().mean(0) - pairs).mean())


def uncertainty(draws: Draws, by: str | Tensor, targets: Tensor) -> Tensor:
    """One number for each target, high where uncertain."""
    found = _named(draws, by) if isinstance(by, str) else by
    if found.shape != targets.shape:
        raise SettingError(
            f"by: expected an uncertainty of the targets' shape, {tuple(targets.shape)}; got "
            f"{tuple(found.shape)}"
        )
    if bool(found.isnan().any()):
        raise SettingError("by: expected numbers; got NaN")
    return wide(found)


def _named(draws: Draws, name: str) -> Tensor:
    if name not in _UNCERTAINTIES:
        known = ", ".join(_UNCERTAINTIES)
        raise SettingError(f"by: expected one of {known}, or a tensor; got {name!r}")
    if name == "auto":
        name = "var" if draws.outputs == "values" else "entropy"
    found: Tensor = getattr(draws, name)
    return found


_UNCERTAINTIES = (
    "auto", "entropy", "expected_entropy", "mutual_information", "variation_ratio", "var", "std",
    "epistemic", "aleatoric",
)  # fmt: skip


def _losses(draws: Draws, targets: Tensor) -> tuple[Tensor, str]:
    if draws.outputs == "values":
        leaf, truth = true_values(draws, targets)
        return (leaf.central.mean - truth).square(), "mean squared error"
    leaf, truth = true_classes(draws, targets)
    return (_shares(leaf).argmax(-1) != truth).double(), "share of errors"


def _shares(leaf: Leaf) -> Tensor:
    return leaf.classes.mean[..., :-1]


def _curve(losses: Tensor, uncertain: Tensor, name: str) -> Curve:
    flat, order = losses.flatten(), uncertain.flatten()
    _, group = torch.unique(order, return_inverse=True)
    totals, counts = group.bincount(flat), group.bincount()
    evened = (totals / counts)[group][order.argsort(stable=True)]
    kept = torch.arange(1, len(flat) + 1, dtype=torch.float64, device=flat.device)
    ideal = flat.sort().values
    return Curve(kept / len(flat), evened.cumsum(0) / kept, ideal.cumsum(0) / kept, name)
