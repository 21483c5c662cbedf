"""Several masks for one batch: their mean, or their disagreement as a loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_choice, check_number, check_rate
from dropkit.functional.dropout import dropout
from dropkit.kernel import Key, derive

Loss = Callable[[Tensor, Tensor], Tensor]


def multi_sample_dropout(
    x: Tensor,
    head: Callable[[Tensor], Tensor],
    p: float = 0.5,
    training: bool = True,
    *,
    samples: int = 5,
    loss: Callable[[Tensor], Tensor] | None = None,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Run a head under several masks at once, and average what it gives or its losses.

    .. math:: y = \frac1S \sum_{s=1}^S head(x \odot m_s / (1 - p))

    The head is called once, on a batch that is `samples` times as long.

    Args:
        x: shape (N, ...), the features before the head.
        head: from (N, ...) to (N, ...), treating the samples of a batch alike.
        p: the fraction dropped, from 0 to 1.
        training: if False, or if p is 0, the head runs once on x.
        samples: how many masks.
        loss: from an output of shape (N, ...) to a number; if given, the mean loss is returned.
        key, generator: as in `dropout`; the mask is that of a tensor of shape (samples, N, ...).

    Raises:
        SettingError: p outside [0, 1]; fewer than one sample; x without a batch axis.

    >>> import torch, dropkit.functional as F
    >>> F.multi_sample_dropout(torch.ones(2, 3), torch.sin, 0.5, samples=4, key=1)
    tensor([[0.0000, 0.6820, 0.6820],
            [0.6820, 0.6820, 0.4546]])

    Source: Inoue 2019, "Multi-Sample Dropout for Accelerated Training and Better Generalization",
    which averages losses.
    """
    check_number(p)
    check_rate(p)
    check_samples(samples)
    if not x.dim():
        raise SettingError("x: expected a batch axis; got a tensor without axes")
    if not training or p == 0:
        return head(x) if loss is None else loss(head(x))
    masked = dropout(x.expand(samples, *x.shape), p, key=key, generator=generator)
    flat = head(masked.flatten(0, 1))
    outputs = flat.view(samples, x.shape[0], *flat.shape[1:])
    if loss is None:
        return outputs.mean(0)
    return torch.stack([loss(output) for output in outputs]).mean()


def check_samples(samples: int) -> None:
    """There is at least one mask."""
    if samples < 1:
        raise SettingError(f"samples: expected the number of masks, 1 or more; got {samples}")


def r_drop(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    *,
    loss: Loss = cross_entropy,
    alpha: float = 1.0,
    divergence: str | Loss = "logits",
    key: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The loss of two passes under different masks, plus how much they disagree.

    .. math::
        L = \tfrac12 \left(\ell(y_1, t) + \ell(y_2, t)\right) + \alpha \, D(y_1, y_2), \qquad
        D = \tfrac12 \left(KL(y_1 \| y_2) + KL(y_2 \| y_1)\right)

    Args:
        model: from x to logits of shape (N, ..., classes), or to values of any shape; in training
            mode.
        x: the model's input.
        target: what the loss compares with.
        loss: a function of (output, target) to a number.
        alpha: the weight of the disagreement, 0 or more; the paper uses 1 to 5.
        divergence: "logits", with classes along the last axis; "values", for regression, as
            between Gaussians of variance 1: half of the squared difference; or any symmetric
            function of two outputs to a number.
        key: an integer; the n-th pass runs in the scope `keyed(derive(key, n))`, so that the
            masks that dropkit draws in it are a function of the key. Then a checkpoint in the model
            needs `context_fn=replayed_keys`.
        generator: draws the key.

    Raises:
        SettingError: a model in eval mode, whose passes would agree; a negative alpha; another
            divergence.

    >>> import torch, dropkit.functional as F
    >>> x, target = torch.ones(4, 3), torch.tensor([0, 1, 2, 0])
    >>> noisy = lambda x: F.dropout(x, 0.5)
    >>> plain = F.r_drop(noisy, x, target, alpha=0.0, key=1)
    >>> bool(F.r_drop(noisy, x, target, alpha=1.0, key=1) > plain)
    True

    Source: Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks". They add the two
    losses, we average them, so that alpha here is alpha / 2 there and a learning rate stays as it
    was. They run one pass on the batch doubled; two passes also suit masks that a batch shares.
    """
    _check_r_drop(model, alpha)
    compare = _divergence(divergence)
    if key is None and generator is not None:
        key = int(kernel.draw_key(generator.device, generator))
    scopes = [nullcontext() if key is None else kernel.keyed(derive(key, n)) for n in range(2)]
    outputs = []
    for scope in scopes:
        with scope:
            outputs.append(model(x))
    first, second = outputs
    mean = 0.5 * (loss(first, target) + loss(second, target))
    return mean + alpha * compare(first, second) if alpha else mean


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    r"""How far two sets of logits are apart, in nats: the mean over all but the last axis.

    .. math:: D = \tfrac12 \left(KL(p_1 \| p_2) + KL(p_2 \| p_1)\right), \quad p = softmax(logits)

    >>> import torch, dropkit.functional as F
    >>> F.symmetric_kl(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(0.4621)
    """
    p, q = log_softmax(first, -1), log_softmax(second, -1)
    both = kl_div(p, q, reduction="none", log_target=True) + kl_div(
        q, p, reduction="none", log_target=True
    )
    return 0.5 * both.sum(-1).mean()


def _squared(first: Tensor, second: Tensor) -> Tensor:
    return 0.5 * (first - second).square().mean()


def _divergence(divergence: str | Loss) -> Loss:
    if not isinstance(divergence, str):
        return divergence
    check_choice("divergence", divergence, ("logits", "values"))
    return symmetric_kl if divergence == "logits" else _squared


def _check_r_drop(model: object, alpha: float) -> None:
    if isinstance(model, nn.Module) and not model.training:
        raise SettingError(
            "model: expected training mode, in which two passes differ; got eval mode. Try "
            "model.train()"
        )
    if not 0.0 <= alpha < float("inf"):
        raise SettingError(f"alpha: expected a weight of 0 or more; got {alpha}")
