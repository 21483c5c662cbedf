"""The rate as a knob that is turned after training: which one makes the truth most likely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.intercept import uncompiled
from dropkit.kernel import Key
from dropkit.posterior.calibration import noise_variance
from dropkit.posterior.choosing import Choice, found, plan
from dropkit.posterior.draws import Draws
from dropkit.posterior.entropies import Outputs
from dropkit.posterior.likelihood import log_likelihood
from dropkit.posterior.sampling import sample

_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_LARGEST = 0.95


@dataclass(frozen=True, slots=True)
class Tried:
    """One factor, and how likely it makes the truth."""

    factor: float
    rates: Mapping[str, float]
    """By path: what `sample` is given as `rates`."""
    log_likelihood: float
    """The mean over the rows, in nats."""
    gain: float
    """How much that is above the model's own rates."""
    error: float
    """The standard error of the gain, over the rows."""
    noise: float | None
    """Of values: the variance of what the draws do not explain, fitted beside."""


@dataclass(frozen=True, slots=True)
class Retuned:
    """What was tried, and what is chosen."""

    tried: tuple[Tried, ...]
    best: Tried
    """The most likely one; the model's own rates, where that is no more than noise."""
    rows: int = field(default=0)

    @property
    def rates(self) -> Mapping[str, float]:
        """What to sample with: `sample(..., rates=retuned.rates)`."""
        return self.best.rates

    def __str__(self) -> str:
        lines = [f"rates x   log-likelihood     gain (nats per row, {self.rows} rows)"]
        for one in self.tried:
            mark = "  <- chosen" if one is self.best else ""
            lines.append(
                f"{one.factor:7.2f}   {one.log_likelihood:14.4f}   {one.gain:+.4f} +- "
                f"{one.error:.4f}{mark}"
            )
        return "\n".join(lines)


def retune(
    model: nn.Module,
    *inputs: Any,
    targets: Tensor,
    outputs: Outputs = "values",
    class_axis: int = -1,
    factors: Sequence[float] = _FACTORS,
    draws: int = 50,
    key: Key | None = None,
    part: str | int | None = None,
    sites: Choice = None,
    **kwargs: Any,
) -> Retuned:
    r"""Find the multiple of a model's rates under which its draws make known targets most likely.

    .. math:: \arg\max_s \sum_n \log \tfrac1T \sum_t p(y_n \mid f(x_n; m_t)), \qquad m_t \sim sp

    The rate of training need not be that of the best calibrated predictions. All multiples are
    tried with the same key: what a smaller rate drops a larger one drops too, so that their
    difference is hardly one of chance. Another rate than the model's own is chosen only if it gains
    more than twice the standard error of that gain over the rows.

    Args:
        model, inputs, kwargs, draws, key, sites: as in `sample`; rows that were not trained on.
        targets: values of the shape of a draw, or the numbers of classes.
        outputs, class_axis: as in `sample`.
        factors: multiples of the rates; 1 is tried in any case. No rate is raised above 0.95.
        part: which output the targets belong to, where the model gives several, such as "logits".

    Raises:
        SettingError: no factor above 0, or a site whose rate is not known.
        SamplingError: as in `sample`.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.5)).eval()
    >>> x = torch.ones(20, 4)
    >>> retuned = dropkit.retune(net, x, targets=net(x).detach(), draws=10, key=1)
    >>> retuned.best.factor  # the targets are what the model gives without dropout
    0.25

    Source: the grid over rates of Gal & Ghahramani 2016; here after training, and not before it.
    """
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise SettingError(f"factors: expected multiples above 0; got {factors!r}")
    inner = uncompiled(model)
    own = _own(inner, inputs, kwargs, sites)
    key = kernel.fresh() if key is None else key
    rows: dict[float, tuple[Tensor, dict[str, float], float | None]] = {}
    for factor in sorted({*map(float, factors), 1.0}):
        rates = {path: min(rate * factor, max(rate, _LARGEST)) for path, rate in own.items()}
        made = sample(
            model, *inputs, draws=draws, key=key, outputs=outputs, class_axis=class_axis,
            sites=sites, rates=rates, **kwargs,
        )  # fmt: skip
        likelihood, noise = _likelihood(made if part is None else made[part], targets)
        rows[factor] = likelihood, rates, noise
    return _judged(rows)


def _own(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], sites: Choice
) -> dict[str, float]:
    """The rates of the model, by path."""
    made = plan(type(model).__name__, found(model, inputs, kwargs), sites, None)
    unknown = [one.site.path for one in made.active if one.rate is None]
    if unknown:
        raise SettingError(f"expected sites with a rate; that of {unknown[0]} is not known")
    return {one.site.path or "*": float(one.rate or 0.0) for one in made.active}


def _likelihood(draws: Draws, targets: Tensor) -> tuple[Tensor, float | None]:
    """Of each row; and the noise that was fitted for it."""
    if draws.outputs != "values":
        return log_likelihood(draws, targets).double().flatten(), None
    noise = noise_variance(draws, targets)
    return log_likelihood(draws, targets, noise).double().flatten(), noise


def _judged(rows: Mapping[float, tuple[Tensor, dict[str, float], float | None]]) -> Retuned:
    base = rows[1.0][0]
    tried = []
    for factor, (likelihood, rates, noise) in rows.items():
        gains = likelihood - base
        error = float(gains.std()) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
        mean = float(likelihood.mean())
        tried.append(Tried(factor, rates, mean, float(gains.mean()), error, noise))
    own = next(one for one in tried if one.factor == 1.0)
    best = max(tried, key=lambda one: one.log_likelihood)
    chosen = best if best.gain > 2 * best.error else own
    return Retuned(tuple(tried), chosen, len(base))
