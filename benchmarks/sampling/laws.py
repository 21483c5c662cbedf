"""Whether draws have the law of others, by bounds that hold for any law and any number of draws.

Draws are looked at through one number each (a probe), and the two empirical distributions of it are
compared. By Massart (1990) an empirical distribution of n independent values is nowhere further
from its law than e with a chance of at least 1 - 2 exp(-2 n e^2), whatever the law is. So two of
one law are nowhere further apart than the sum of their e, but for a stated rate of false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ALARM = 1e-6
"""The rate of false alarms of one comparison, which is of several probes."""
ROUNDED = 1e-5
"""Values that differ by less than this part of a deviation are one: sums in another order."""


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison."""

    spread: float
    """The deviation over the draws, as a part of what it should be."""
    excess: float
    """The largest distance of two distributions, over what is allowed: right up to 1."""

    @property
    def is_right(self) -> bool:
        """Whether nothing speaks against the law."""
        return self.spread > 0 and self.excess <= 1


def compared(draws: Tensor, truth: Tensor, alarm: float = ALARM) -> Verdict:
    """Of draws (n, ...) and independent ones (m, ...) that are known to be right."""
    if draws.shape[1:] != truth.shape[1:]:
        raise ValueError(f"expected draws of {tuple(truth.shape[1:])}; got {tuple(draws.shape)}")
    ours, right = draws.double().flatten(1), truth.double().flatten(1)
    spread = (ours.var(0).mean() / right.var(0).mean()).sqrt().item()
    if not ours.isfinite().all():
        return Verdict(math.nan, math.inf)
    probes = list(probed(ours, right))
    excess = max(distance(a, b) / allowed(len(a), len(b), alarm / len(probes)) for a, b in probes)
    return Verdict(spread, excess)


def probed(ours: Tensor, right: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers that show the law of single values, of values together, and of draws that follow."""
    center, scale = right.mean(0), right.std(0).clamp_min(1e-12)
    ours, right = (ours - center) / scale, (right - center) / scale
    width = ours.shape[1]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (width, 4), generator=generator).double() * 2 - 1
    signs[:, 0] = 1
    sums = signs / math.sqrt(width)
    single = torch.eye(width, dtype=torch.float64)[:, :: max(1, width // 4)][:, :4]
    for probe in torch.cat([sums, single], 1).T:
        yield ours @ probe, right @ probe
    yield from _told_apart(ours, right)
    for probe in sums.T[:2]:
        yield _paired(ours @ probe), _paired(right @ probe)


def _told_apart(ours: Tensor, right: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The second halves, in the directions whose variances differ most in the first halves.

    They show masks that values share, or do not share, and should not.
    """
    mine, theirs = len(ours) // 2, len(right) // 2
    truth = right[:theirs].T.cov() + 1e-2 * torch.eye(right.shape[1], dtype=torch.float64)
    root = torch.linalg.inv(torch.linalg.cholesky(truth))
    directions = torch.linalg.eigh(root @ ours[:mine].T.cov() @ root.T).eigenvectors
    for direction in (directions[:, 0], directions[:, -1]):
        yield ours[mine:] @ root.T @ direction, right[theirs:] @ root.T @ direction


def _paired(values: Tensor) -> Tensor:
    """Sums of each two that follow each other, whose law shows whether they are independent."""
    return values[: len(values) // 2 * 2].view(-1, 2).sum(1)


def distance(ours: Tensor, right: Tensor) -> float:
    """The largest distance of two empirical distributions, between values that are not one."""
    values, order = torch.cat([ours, right]).sort()
    steps = torch.cat(
        [torch.full_like(ours, 1 / len(ours)), torch.full_like(right, -1 / len(right))]
    )
    apart = steps[order].cumsum(0).abs()
    ends = torch.ones(len(values), dtype=torch.bool)
    ends[:-1] = values.diff() > ROUNDED * right.std()
    return float(apart[ends].max())


def allowed(ours: int, right: int, alarm: float) -> float:
    """How far two of one law are apart, but for a chance of `alarm`.

    >>> round(allowed(4000, 40000, 1e-7), 3)
    0.061
    """
    return sum(math.sqrt(math.log(4 / alarm) / (2 * count)) for count in (ours, right))
