"""How often each element is dropped, and in what pattern."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropkit.bounds import (
    FALSE_ALARM,
    binomial_chance,
    binomial_limits,
    mean_chance,
)
from dropkit.testing.bench import Bench
from dropkit.testing.circumstances import KINDS, PLAIN, RATE, kind
from dropkit.testing.laws import Block, Gaussian, Subset
from dropkit.testing.report import concerns, require

RATES = (0.1, 0.5, 1 / 3, 0.9, 1e-3)
"""An everyday one; the only one that 8 bits hold; one that no bits hold; most; hardly any."""

_CUTS = (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)


def rate(bench: Bench) -> str:
    """An element is dropped with the probability asked for, whichever is asked for.

    Of 4 million independent draws a bias of 0.0016 is seen at rate 0.1 (8 bits: 26/256 = 0.1016)
    all but once in 30,000 runs, and one of 1/512 at rate 0.5 all but once in 35. At rates that
    hang on the seed there are a million.
    """
    concerns(bench.subject.drops, "nothing is dropped")
    lines = []
    fewer = bench.sizes.elements // (16 if bench.rows is None else 4)
    for p in (*RATES, *bench.unforeseen):
        bits = bench.slim(p) if p in RATES else bench.draws(p, slim=True, elements=fewer)
        dropped, chance = dropped_share(bench, p, bits)
        said = f"{dropped:.6f} of {bits.numel()} dropped at {bench.subject.rate(p):.4g}"
        alarm = FALSE_ALARM / (len(RATES) + len(bench.unforeseen))
        require(chance >= alarm, f"{said}: chance {chance:.1e}")
        lines.append(said)
    return lines[0]


def rate_by_input(bench: Bench) -> str:
    """The rate is the same for any values, dtype, strides, batch and grad mode, and with a key.

    Of 260,000 draws in each circumstance a bias of 0.01 is seen at rate 0.3; where a call has few
    draws there are 30,000, which show one of 0.03. At 1/4096 no dtype's coarse grain is hidden.
    """
    concerns(bench.subject.drops, "nothing is dropped")
    judged = [(how, p) for how in bench.circumstances for p in how.rates]
    for how, p in judged:
        bits = bench.few(how, p)
        parts = _by_kind(bits, stacked=bench.rows is None) if how.mixed else [None]
        for part in parts:
            dropped, chance = dropped_share(bench, p, bits, part)
            require(
                chance >= FALSE_ALARM / (len(judged) + KINDS),
                f"{dropped:.6f} dropped at {bench.subject.rate(p):.4g}{how}: chance {chance:.1e}",
            )
    return f"{len(bench.circumstances)} circumstances"


def dropped_share(
    bench: Bench, p: float, bits: Tensor, part: Tensor | None = None
) -> tuple[float, float]:
    """What share of arranged bits, or of a part of them, is dropped; and the chance of that."""
    expected = bench.subject.rate(p)
    if bench.subject.law.tied:  # the share of each independent row is a draw from [0, 1]
        counted = torch.ones_like(bits) if part is None else part
        dropped, of = (
            bench.units(x).sum(1, dtype=torch.float64) for x in (~bits & counted, counted)
        )
        shares = dropped[of > 0] / of[of > 0]
        share = min(1.0, float(shares.mean()))
        return share, mean_chance(share, len(shares), expected)
    counted = bits if part is None else bits[part]
    number = counted.numel() - int(torch.count_nonzero(counted))
    return number / counted.numel(), binomial_chance(number, counted.numel(), expected)


def _by_kind(bits: Tensor, *, stacked: bool) -> list[Tensor]:
    """Where in arranged bits the values were of each kind."""
    shape = tuple(bits.shape[1:] if stacked else bits.shape)
    kinds = kind(shape, bits.device).expand(bits.shape)
    return [kinds == number for number in range(KINDS)]


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
    """The noise is normal, with the spread asked for: exact counts below nine cuts.

    In every circumstance, as `rate_by_input` has them.
    """
    law = bench.subject.law
    concerns(isinstance(law, Gaussian), "no noise")
    assert isinstance(law, Gaussian)
    one = bench.ones((1,) * len(bench.subject.shape))
    seen = [(PLAIN, 0.1), (PLAIN, 0.5), *((how, RATE) for how in bench.circumstances)]
    for how, p in seen:
        elements = bench.sizes.elements // (4 if how is PLAIN else 16)
        values = bench.draws(p, slim=how.slim, how=how, elements=elements, read=law.noisy)
        values = bench.untied(values).flatten()
        centre = float(law.centre(how.alter(one).detach()))
        for cut in _CUTS:
            # between two numbers of the dtype, so that rounding moves none across
            low = torch.tensor(centre + law.std(p) * cut, dtype=values.dtype, device=values.device)
            high = torch.nextafter(low, torch.full_like(low, torch.inf))
            exact = ((float(low) + float(high)) / 2 - centre) / law.std(p)
            below = math.erfc(-exact / math.sqrt(2)) / 2
            count = int(torch.count_nonzero(values <= low))
            chance = binomial_chance(count, values.numel(), below)
            require(
                chance >= FALSE_ALARM / (len(seen) * len(_CUTS)),
                f"{count / values.numel():.5f} below {exact:.3g} standard deviations at {p:.4g}"
                f"{how}, expected {below:.5f}: chance {chance:.1e}",
            )
    return f"{len(_CUTS)} quantiles of {values.numel()} values"


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
