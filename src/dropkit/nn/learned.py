"""Layers that learn how much they drop, and the terms that they add to a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from dropkit.errors import SettingError
from dropkit.functional.learned import (
    check_temperature,
    concrete_dropout,
    log_uniform_kl,
    variational_dropout,
    variational_linear,
)
from dropkit.kernel import Key

_SIZES = ("in_features", "in_channels", "input_size")
_SMALL = 1e-16  # beside a square of a weight: its logarithm stays finite


class Penalized:
    """A layer with a term of its own for the loss; `penalty(model)` finds it."""

    def penalty(self) -> Tensor:
        """The term, a tensor with one number that has gradients."""
        raise NotImplementedError


def penalty(model: nn.Module) -> Tensor:
    """The sum of the terms that the layers of a model add to its loss.

    Args:
        model: with at least one layer that learns how much it drops.

    Raises:
        SettingError: a model without such a layer.

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.VariationalLinear(3, 2)
    >>> model = torch.nn.Sequential(layer, torch.nn.ReLU())
    >>> torch.equal(dropkit.nn.penalty(model), layer.penalty())
    True
    """
    terms = [module.penalty() for module in model.modules() if isinstance(module, Penalized)]
    if not terms:
        raise SettingError(
            "model: expected a layer that has a penalty, such as ConcreteDropout, VariationalLinear"
            f" or VariationalDropout; found none in {type(model).__name__}"
        )
    return torch.stack([term.to(terms[0]) for term in terms]).sum()


class ConcreteDropout(Penalized, nn.Module):
    r"""Dropout before a layer, whose rate is learned with the weights.

    .. math::
        y = layer(x \odot m(p)), \qquad
        penalty = \lambda_w \frac{\lVert W \rVert^2}{1 - p} - \lambda_p \, K \, H(p)

    m is a relaxed mask, see `dropkit.functional.concrete_dropout`; H is the entropy of a coin in
    nats; K the number of features. Add `dropkit.nn.penalty(model)` to the mean loss of a batch.

    Args:
        layer: what follows; its matrices (parameters with 2 or more axes) are W. None: nothing
            follows, and only the entropy is left of the penalty.
        p: the rate to begin with, above 0 and below 1.
        temperature: of the mask; the nearer to 0, the nearer is it to zeros and ones.
        weight_regularizer: lambda_w: l**2 / (tau N), for a prior length scale l, a precision of
            the observations tau (or 1 for classification) and N training rows.
        dropout_regularizer: lambda_p: 2 / (tau N) for a squared error; 1 / N for a cross entropy.
        features: K; by default the layer's in_features, in_channels or input_size.
        spatial: whether one draw serves all places of a channel of (N, C, ...).

    Shape: those of the layer. `forward(x, *, key=None, generator=None)`.

    Raises:
        SettingError: a rate not between 0 and 1; K that is neither given nor known.

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.ConcreteDropout(torch.nn.Linear(3, 2), p=0.2)
    >>> y = layer(torch.ones(4, 3))
    >>> (y.square().mean() + layer.penalty()).backward()
    >>> round(layer.p, 4), layer.logit.grad is None
    (0.2, False)

    Source: Gal, Hron & Kendall 2017, "Concrete Dropout". Their code counts biases as W too.
    """

    def __init__(
        self,
        layer: nn.Module | None = None,
        p: float = 0.1,
        *,
        temperature: float = 0.1,
        weight_regularizer: float = 1e-6,
        dropout_regularizer: float = 1e-5,
        features: int | None = None,
        spatial: bool = False,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.layer = layer
        self.logit = nn.Parameter(torch.tensor(_logit(p)))
        self.temperature = temperature
        self.weight_regularizer = weight_regularizer
        self.dropout_regularizer = dropout_regularizer
        self.features = _features(layer) if features is None else features
        self.spatial = spatial

    @property
    def p(self) -> float:
        """The rate as it stands."""
        return float(torch.sigmoid(self.logit.detach()))

    def forward(
        self,
        x: Tensor,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the layer gives."""
        shared = range(2, x.dim()) if self.spatial else ()
        x = concrete_dropout(
            x, self.logit, self.training, temperature=self.temperature, shared=shared,
            key=key, generator=generator,
        )  # fmt: skip
        if self.layer is None:
            return x
        result: Tensor = self.layer(x)
        return result

    def penalty(self) -> Tensor:
        """The regularizer of the weights and of the rate."""
        kept, gone = logsigmoid(-self.logit), logsigmoid(self.logit)
        entropy = -(gone.exp() * gone + kept.exp() * kept)
        term = -self.dropout_regularizer * self.features * entropy
        if self.layer is None:
            return term
        matrices = [weight for weight in self.layer.parameters() if weight.dim() > 1]
        squares = sum((weight.square().sum() for weight in matrices), torch.zeros_like(entropy))
        return term + self.weight_regularizer * squares / kept.exp()

    def extra_repr(self) -> str:
        """The rate as it stands, and the settings."""
        return f"p={self.p:.4g} (learned), temperature={self.temperature}, spatial={self.spatial}"


def _logit(p: float) -> float:
    if not 0.0 < p < 1.0:
        raise SettingError(
            f"p: expected a rate above 0 and below 1, where it can still be learned; got {p}"
        )
    return math.log(p) - math.log1p(-p)


def _features(layer: nn.Module | None) -> int:
    for name in _SIZES:
        size = getattr(layer, name, None)
        if isinstance(size, int):
            return size
    raise SettingError(
        "features: expected how many features are dropped, since the layer does not say it "
        f"({', '.join(_SIZES)}); got None"
    )


class VariationalDropout(Penalized, nn.Module):
    r"""Gaussian noise that multiplies, with a variance that is learned for each feature.

    .. math:: y_i = x_i \, (1 + \sqrt{\alpha_i} \, \epsilon_i), \qquad
        penalty = \sum_i KL(\alpha_i)

    In eval mode, x. Add `dropkit.nn.penalty(model)` / N to the mean loss, for N training rows.

    Args:
        shape: of the variances: the number of features along the last axis, or any shape that
            broadcasts against x.
        p: the rate of the dropout that has the same variance, alpha = p / (1 - p), to begin with.

    Shape: any to the same. `forward(x, *, key=None, generator=None)`.

    Raises:
        SettingError: a rate not between 0 and 1.

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.VariationalDropout(4, p=0.5)
    >>> layer.log_alpha.detach()
    tensor([0., 0., 0., 0.])

    Source: Kingma, Salimans & Welling 2015, "Variational Dropout and the Local Reparameterization
    Trick". They hold alpha at 1 or less, where their formula of KL holds; `log_uniform_kl` holds
    everywhere.
    """

    def __init__(self, shape: int | Sequence[int], p: float = 0.5) -> None:
        super().__init__()
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        self.log_alpha = nn.Parameter(torch.full(sizes, _logit(p)))

    def forward(
        self,
        x: Tensor,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x with noise."""
        return variational_dropout(x, self.log_alpha, self.training, key=key, generator=generator)

    def penalty(self) -> Tensor:
        """The divergence from a log-uniform prior, in nats."""
        return log_uniform_kl(self.log_alpha).sum()

    def extra_repr(self) -> str:
        """How many variances."""
        return f"shape={tuple(self.log_alpha.shape)}"


class VariationalLinear(Penalized, nn.Linear):
    r"""A linear layer that learns the noise of each weight, and with it which it can do without.

    .. math::
        w_{ji} \sim N(W_{ji}, \sigma_{ji}^2), \qquad \alpha_{ji} = \sigma_{ji}^2 / W_{ji}^2, \qquad
        penalty = \sum_{ji} KL(\alpha_{ji})

    In eval mode, the means, of which those with log alpha above `threshold` are 0. Add
    `dropkit.nn.penalty(model)` / N to the mean loss, for N training rows.

    Args:
        in_features, out_features, bias, device, dtype: as in torch.nn.Linear.
        log_variance: log sigma squared of every weight, to begin with.
        threshold: 3 is a rate of 0.95.

    Shape: (..., in_features) to (..., out_features). `forward(input, *, key=None,
    generator=None)`.

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.VariationalLinear(3, 2)
    >>> layer(torch.ones(4, 3)).shape, layer.sparsity()
    (torch.Size([4, 2]), 0.0)

    Source: Molchanov, Ashukha & Vetrov 2017, "Variational Dropout Sparsifies Deep Neural
    Networks".
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        log_variance: float = -10.0,
        threshold: float = 3.0,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.log_variance = nn.Parameter(torch.full_like(self.weight, log_variance))
        self.threshold = threshold

    @property
    def log_alpha(self) -> Tensor:
        """log (sigma squared / weight squared) of each weight."""
        return self.log_variance - (self.weight.square() + _SMALL).log()

    def forward(
        self,
        input: Tensor,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The outputs: with noise in training, of the weights that are left in eval mode."""
        if not self.training:
            return linear(input, self.weight.where(self.log_alpha <= self.threshold, 0), self.bias)
        return variational_linear(
            input, self.weight, self.log_variance, self.bias, key=key, generator=generator
        )

    def penalty(self) -> Tensor:
        """The divergence from a log-uniform prior, in nats."""
        return log_uniform_kl(self.log_alpha).sum()

    def sparsity(self) -> float:
        """The fraction of weights that eval mode does without."""
        return float((self.log_alpha > self.threshold).float().mean())
