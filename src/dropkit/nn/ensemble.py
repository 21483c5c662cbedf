"""Several masks for one batch, as a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dropkit.functional.checks import check_number, check_rate
from dropkit.functional.ensemble import check_samples, multi_sample_dropout
from dropkit.kernel import Key


class MultiSampleDropout(nn.Module):
    r"""A head run under several masks at once, whose outputs or losses are averaged.

    .. math:: y = \frac1S \sum_{s=1}^S head(x \odot m_s / (1 - p))

    In eval mode the head runs once, without a mask.

    Args:
        head: the layers after the dropout; it sees a batch that is `samples` times as long.
        p: the fraction dropped, from 0 to 1.
        samples: how many masks.

    Shape: (N, ...) to what the head makes of it. `forward(x, loss=None, *, key=None,
    generator=None)`: with a `loss`, from an output to a number, the mean loss of the masks.

    Raises:
        SettingError: p outside [0, 1]; fewer than one sample.

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.MultiSampleDropout(torch.nn.Linear(3, 2), p=0.5, samples=4)
    >>> layer(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    >>> target = torch.tensor([0, 1, 0, 1, 0])
    >>> loss = layer(torch.ones(5, 3), lambda y: torch.nn.functional.cross_entropy(y, target))
    >>> loss.shape
    torch.Size([])

    Source: Inoue 2019, "Multi-Sample Dropout for Accelerated Training and Better Generalization".
    """

    def __init__(self, head: nn.Module, p: float = 0.5, samples: int = 5) -> None:
        super().__init__()
        check_number(p)
        check_rate(p)
        check_samples(samples)
        self.head = head
        self.p = p
        self.samples = samples

    def forward(
        self,
        x: Tensor,
        loss: Callable[[Tensor], Tensor] | None = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The mean output, or the mean loss."""
        return multi_sample_dropout(
            x, self.head, self.p, self.training, samples=self.samples, loss=loss,
            key=key, generator=generator,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The rate, and how many masks."""
        return f"p={self.p}, samples={self.samples}"
