"""Dropout whose rate is learned by gradient: concrete and variational dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, logsigmoid, softplus
from torch.utils.checkpoint import checkpoint

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_dropped, check_fits
from dropkit.kernel import Key
from dropkit.kernel.context import rewritten, transformed
from dropkit.records import Shard

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # fitted by Molchanov et al. 2017, equation 14
_TINY = 1e-8  # under the root of a variance: the slope of a root at 0 is infinite


def concrete_dropout(
    x: Tensor,
    logit: Tensor,
    training: bool = True,
    *,
    temperature: float = 0.1,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Dropout with a relaxed mask, so that its rate has a gradient.

    .. math::
        y_i = x_i \, (1 - z_i) / (1 - p), \qquad
        z_i = \sigma\left(\frac{\operatorname{logit} p + \operatorname{logit} u_i}{t}\right),
        \qquad u_i \sim U(0, 1)

    Nothing is kept for backward but x, the logit and the key.

    Args:
        x: a floating-point tensor of any shape.
        logit: log p - log(1 - p), a tensor with one number, or any that broadcasts against x.
        training: if False, x is returned as it is.
        temperature: t above 0; the nearer to 0, the nearer is the mask to zeros and ones.
        shared, key, offset, generator: as in `dropout`.

    Raises:
        SettingError: a temperature that is not above 0.

    >>> import torch, dropkit.functional as F
    >>> logit = torch.zeros((), requires_grad=True)
    >>> y = F.concrete_dropout(torch.ones(4), logit, key=1)
    >>> y.detach().round(decimals=2)
    tensor([2.0000, 1.9300, 2.0000, 1.2300])
    >>> y.sum().backward()
    >>> logit.grad is None
    False

    Source: Gal, Hron & Kendall 2017, "Concrete Dropout".
    """
    check_temperature(temperature)
    if not training:
        return x
    check_dropped(x)
    check_fits("logit", logit, x)
    drawn = kernel.resolve_key(key, generator, x)

    def run(x: Tensor, logit: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        u = kernel.uniform(
            x.shape, key=drawn, shared=shared, offset=offset, device=x.device, dtype=wide
        )
        return x * _relaxed(u, logit.to(wide), temperature).to(x.dtype)

    return _recomputed(run, x, logit)


def _relaxed(u: Tensor, logit: Tensor, temperature: float) -> Tensor:
    """(1 - z) / (1 - p) of uniform draws."""
    half = 2.0**-33 if u.dtype == torch.float64 else 2.0**-25  # a half step of the draws
    noise = (u + half).log() - (1.0 - u + half).log()
    # As a difference of logarithms: at rates near 1 both are 0.
    return (logsigmoid((logit + noise) / -temperature) - logsigmoid(-logit)).exp()


def _recomputed(run: object, x: Tensor, other: Tensor) -> Tensor:
    """`run(x, other)`, of which only the arguments are kept; the noise is drawn again."""
    asked = torch.is_grad_enabled() and (x.requires_grad or other.requires_grad)
    if rewritten(x) or transformed() or not asked:
        return run(x, other)  # type: ignore[operator, no-any-return]
    return checkpoint(  # type: ignore[no-any-return]
        run, x, other, use_reentrant=False, preserve_rng_state=False
    )


def check_temperature(temperature: float) -> None:
    """A temperature is above 0."""
    if not 0.0 < temperature < float("inf"):
        raise SettingError(f"temperature: expected a number above 0; got {temperature}. Try 0.1")


def variational_dropout(
    x: Tensor,
    log_alpha: Tensor,
    training: bool = True,
    *,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Multiply by Gaussian noise of mean 1 whose variance is learned.

    .. math:: y_i = x_i \, (1 + \sqrt{\alpha_i} \, \epsilon_i), \qquad \epsilon_i \sim N(0, 1)

    alpha = p / (1 - p) has the variance of dropout with rate p.

    Args:
        x: a floating-point tensor of any shape.
        log_alpha: broadcasts against x.
        training: if False, x is returned as it is.
        key, offset, generator: as in `dropout`.

    >>> import torch, dropkit.functional as F
    >>> y = F.variational_dropout(torch.ones(10_000), torch.tensor(0.25).log(), key=1)
    >>> bool((y.mean() - 1).abs() < 0.02), bool((y.var() - 0.25).abs() < 0.02)
    (True, True)

    Source: Kingma, Salimans & Welling 2015, "Variational Dropout and the Local
    Reparameterization Trick", its type B: noise on what comes in.
    """
    if not training:
        return x
    check_dropped(x)
    check_fits("log_alpha", log_alpha, x)
    drawn = kernel.resolve_key(key, generator, x)
    spread = x * (0.5 * log_alpha).exp().to(x.dtype)
    return x + kernel.redrawn(
        spread,
        lambda like: kernel.normal(
            like.shape, key=drawn, offset=offset, device=like.device, dtype=like.dtype
        ),
    )  # fmt: skip


def variational_linear(
    x: Tensor,
    weight: Tensor,
    log_variance: Tensor,
    bias: Tensor | None = None,
    training: bool = True,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A linear layer whose weights are Gaussian, drawn anew for each output.

    .. math::
        y_j = \sum_i x_i W_{ji} + b_j + \epsilon_j \sqrt{\sum_i x_i^2 \sigma_{ji}^2},
        \qquad \epsilon_j \sim N(0, 1)

    Local reparameterization: the noise is added where its sum arrives, which is the same law as
    weights drawn for each sample, at a fraction of the draws.

    Args:
        x: shape (..., in_features).
        weight: the means, shape (out_features, in_features).
        log_variance: log sigma squared of each weight, of the same shape.
        bias: shape (out_features,), or None; it has no noise.
        training: if False, a linear layer with the means.
        key, generator: as in `dropout`; the mask index is that of the output's element.

    Raises:
        SettingError: variances of another shape than the weights.

    >>> import torch, dropkit.functional as F
    >>> weight, silent = torch.ones(1, 4), torch.full((1, 4), -60.0)
    >>> F.variational_linear(torch.ones(1, 4), weight, silent, key=1).round(decimals=2)
    tensor([[4.]])

    Source: Kingma, Salimans & Welling 2015, "Variational Dropout and the Local
    Reparameterization Trick".
    """
    if log_variance.shape != weight.shape:
        raise SettingError(
            f"log_variance: expected the weights' shape, {tuple(weight.shape)}; got "
            f"{tuple(log_variance.shape)}"
        )
    mean = linear(x, weight, bias)
    if not training:
        return mean
    drawn = kernel.resolve_key(key, generator, mean)
    spread = (linear(x * x, log_variance.exp()) + _TINY).sqrt()
    return mean + kernel.redrawn(
        spread,
        lambda like: kernel.normal(like.shape, key=drawn, device=like.device, dtype=like.dtype),
    )


def log_uniform_kl(log_alpha: Tensor) -> Tensor:
    r"""The divergence of Gaussian dropout noise from a log-uniform prior, in nats, elementwise.

    .. math::
        KL \approx k_1 - k_1 \, \sigma(k_2 + k_3 \log \alpha) + \tfrac12 \log(1 + \alpha^{-1})

    The prior is improper; the constant is chosen so that KL goes to 0 as alpha grows. Within 0.01
    of the integral for all alpha.

    >>> import torch, dropkit.functional as F
    >>> F.log_uniform_kl(torch.tensor([-8.0, 0.0, 8.0])).round(decimals=3)
    tensor([4.6360, 0.4310, 0.0000])

    Source: Molchanov, Ashukha & Vetrov 2017, "Variational Dropout Sparsifies Deep Neural
    Networks", equation 14. The cubic of Kingma et al. 2015 holds for alpha up to 1 only.
    """
    return _K1 - _K1 * torch.sigmoid(_K2 + _K3 * log_alpha) + 0.5 * softplus(-log_alpha)
