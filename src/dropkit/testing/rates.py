"""How often each element is dropped, and in what pattern."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.testing.bench import ELEMENTS, Bench
from dropkit.testing.bounds import (
    FALSE_ALARM,
    binomial_chance,
    binomial_limits,
    mean_chance,
    normal_chance,
)
from dropkit.testing.laws import Block, Gaussian, Subset
from dropkit.testing.report import concerns, require

RATES = (0.1, 0.5, 1 / 3, 0.9, 1e-3)
"""An everyday one; the only one that 8 bits hold; one that no bits hold; most; hardly any."""

_CUTS = (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)


def rate(bench: Bench) -> str:
    """An element is dropped with the probability asked for.

    Of 4 million independent draws a bias of 0.0016 is seen at rate 0.1 (8 bits: 26/256 = 0.1016)
    all but once in 30,000 runs, and one of 1/512 at rate 0.5 all but once in 35.
    """
    concerns(bench.subject.drops, "nothing is dropped")
    lines = []
    for p in RATES:
        bits = bench.slim(p)
        expected = bench.subject.rate(p)
        dropped = bits.numel() - int(torch.count_nonzero(bits))
        if bench.subject.law.tied:  # a row is one draw of a mean in [0, 1]
            chance = mean_chance(dropped / bits.numel(), len(bits), expected)
        else:
            chance = binomial_chance(dropped, bits.numel(), expected)
        said = f"{dropped / bits.numel():.6f} of {bits.numel()} dropped at {expected:.4g}"
        require(chance >= FALSE_ALARM / len(RATES), f"{said}: chance {chance:.1e}")
        lines.append(said)
    return lines[0]


def rate_by_position(bench: Bench) -> str:
    """Every position of a map is dropped with the probability asked for: no border is spared."""
    concerns(bench.subject.drops, "nothing is dropped")
    worst = ""
    for p in (0.1, 0.5):
        bench.reseed(2)
        bits = bench.draws(p)
        dropped = (~bits).sum(0).flatten()
        low, high = binomial_limits(
            len(bits), bench.subject.rate(p), FALSE_ALARM / (2 * max(1, dropped.numel()))
        )
        least, most = (int(n) / len(bits) for n in (dropped.min(), dropped.max()))
        worst = worst or f"from {least:.4f} to {most:.4f} at {bench.subject.rate(p):.4g}"
        require(
            bool((low <= dropped).all() & (dropped <= high).all()),
            f"between {least:.4f} and {most:.4f} by position, asked for {bench.subject.rate(p):.4g}"
            f" (allowed {low / len(bits):.4f} to {high / len(bits):.4f})",
        )
    return worst


def exact_count(bench: Bench) -> str:
    """Exactly the promised number is dropped, each time."""
    law = bench.subject.law
    concerns(isinstance(law, Subset), "drops no fixed number")
    assert isinstance(law, Subset)
    size = bench.subject.shape[law.tied[0]]
    for p in RATES:
        x, count = bench.input(), law.count(p, size)
        dropped = size - bench.mask(p, x, bench.layer(p)(x)).sum(law.tied[0])
        least, most = int(dropped.min()), int(dropped.max())
        require(
            bool((dropped == count).all()),
            f"{least} to {most} of {size} dropped at {p:.4g}, not {count}",
        )
    return f"{law.count(0.5, size)} of {size} at 0.5"


def blocks(bench: Bench) -> str:
    """What is dropped is made of whole blocks."""
    law = bench.subject.law
    concerns(isinstance(law, Block), "drops no blocks")
    assert isinstance(law, Block)
    x = bench.input()
    for p in (0.1, 0.3):
        dropped = ~bench.mask(p, x, bench.layer(p)(x))
        covered = _opened(dropped, law)
        require(bool((covered == dropped).all()), f"a dropped element in no block of {law.size}")
    return f"blocks of {law.size}"


def noise(bench: Bench) -> str:
    """The noise is normal, with the spread asked for: exact counts below nine cuts."""
    law = bench.subject.law
    concerns(isinstance(law, Gaussian), "no noise")
    assert isinstance(law, Gaussian)
    for p in (0.1, 0.5):
        x = bench.ones((ELEMENTS // 4 * bench.times,) + (1,) * (len(bench.subject.shape) - 1))
        if bench.subject.sizes != "any":
            x = bench.ones(bench.subject.shape)
        z = law.normals(x, bench.layer(p)(x), p).flatten()
        for cut in _CUTS:
            below = 1 - normal_chance(cut) / 2 if cut > 0 else normal_chance(cut) / 2
            chance = binomial_chance(int((z < cut).sum()), z.numel(), below)
            require(
                chance >= FALSE_ALARM / (2 * len(_CUTS)),
                f"{int((z < cut).sum()) / z.numel():.5f} below {cut} standard deviations at "
                f"{p:.4g}, expected {below:.5f}: chance {chance:.1e}",
            )
    return f"{len(_CUTS)} quantiles of {z.numel()} values"


def _opened(dropped: Tensor, law: Block) -> Tensor:
    """The union of all blocks that are dropped as a whole (a morphological opening)."""
    spread = dropped
    for axis in law.tied:
        spread = _windows(spread, axis, law.size, beyond=law.clipped).all(-1)
    for axis in law.tied:
        spread = _windows(spread, axis, law.size, beyond=False).any(-1)
        spread = spread.narrow(axis, law.size - 1, dropped.shape[axis])
    return spread


def _windows(mask: Tensor, axis: int, size: int, *, beyond: bool) -> Tensor:
    """All windows along an axis, padded with what lies beyond the border."""
    shape = list(mask.shape)
    shape[axis] = size - 1
    border = torch.full(shape, beyond, device=mask.device)
    return torch.cat([border, mask, border], axis).unfold(axis, size, 1)
