"""Which draws are equal, and which know nothing of each other.

Dependence is judged by Fisher's exact test on disjoint pairs of bits. So it does not matter
whether the rate itself is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from dropkit.bounds import FALSE_ALARM, hypergeometric_chance
from dropkit.testing.bench import Bench, dependence
from dropkit.testing.circumstances import PLAIN, RATE
from dropkit.testing.report import concerns, require

_LAYERS = 3
_SPAN = (1 << 15, 1 << 18)  # bits that are compared at short distances, and at the longest


class Echo(NamedTuple):
    """Of all distances the one at which two draws agree most oddly."""

    chance: float
    """Of an agreement so odd at any of the distances."""
    distances: int
    said: str


def shared_axes(bench: Bench) -> str:
    """One draw holds along the shared axes, whatever the input, and no further."""
    shared = bench.subject.shared
    concerns(bool(shared), "no shared axes")
    given = bench.input() if bench.subject.drops else bench.ones(bench.subject.shape)
    for how in (PLAIN, *bench.circumstances):
        x, y = how.call(bench.called(how, 0.5), given)  # of ones, noise is rounded alike
        first = mask = bench.mask(0.5, x, y)
        for axis in shared:
            first = first.narrow(axis, 0, 1)
        same = bool((first == mask).all())
        require(same, f"not all are alike along the axes {shared}{how}")
    return f"alike along {shared}"


def independent_calls(bench: Bench) -> str:
    """A call's mask says nothing of any later one's."""
    bench.reseed(6)
    series = bench.series(bench.layer(0.5), 0.5)
    half = len(series) // 2
    pairs = {"the next": (series[0 : 2 * half : 2], series[1 : 2 * half : 2])}
    if half > 1:
        pairs["half the calls later"] = (series[:half], series[half : 2 * half])
    return _judge(pairs, "calls", echo(series))


def independent_layers(bench: Bench) -> str:
    """A layer's masks say nothing of those of another of the same make."""
    bench.reseed(7)
    layers = [bench.layer(0.5) for _ in range(_LAYERS)]
    series = [bench.series(layer, 0.5) for layer in layers]
    pairs = combinations(range(_LAYERS), 2)
    named = {f"{i} and {j}": (series[i], series[j]) for i, j in pairs}
    return _judge(named, "layers", echo(torch.cat(series)))


def independent_elements(bench: Bench) -> str:
    """An element's draw says nothing of another's, near or far, along any independent axis."""
    lags = 0
    for p in (0.5, 0.1) if bench.subject.drops else (0.5,):
        bits = bench.untied(bench.slim(p))
        pairs = dict(_neighbours(bits)) | dict(_lagged(bits.flatten()))
        found = echo(bits) if p == 0.5 else None
        _judge(pairs, f"elements at {p}", found)
        lags = max(lags, len(pairs) + (found.distances if found else 0))
    for how in bench.circumstances:
        few = bench.untied(bench.few(how, RATE))
        _judge(dict(_neighbours(few)), f"elements at {RATE}{how}", share=len(bench.circumstances))
    concerns(lags > 0, "one draw for all")
    return f"{lags} distances in {bits.numel()} draws"


def echo(bits: Tensor) -> Echo:
    """Agreement at every distance, counted by Fourier transforms.

    Runs of `size` bits alternate: those of one kind are compared with those of the other at all
    distances from half a size to one and a half. So no bit is in two pairs of one distance, and
    each count has the hypergeometric law; the oddest one's chance is taken as often as there are
    counts. Draws that come again with a period p are seen at its multiples, too.
    """
    bits = bits.flatten()
    oddest, distances, size = Echo(1.0, 0, "nothing to compare"), 0, 1
    while 2 * size <= min(bits.numel(), _SPAN[1]):
        for start in (0, size):
            runs = min(bits.numel() - start, max(_SPAN[0], 2 * size)) // (2 * size)
            if runs:
                pairs = bits[start : start + 2 * size * runs].view(runs, 2, size)
                found = _oddest(pairs[:, 0], pairs[:, 1])
                distances += found.distances
                oddest = min(oddest, found)
        size *= 2
    return oddest._replace(chance=min(1.0, oddest.chance * distances), distances=distances)


def _oddest(first: Tensor, second: Tensor) -> Echo:
    """Of all shifts by up to half a run the one at which runs agree most oddly."""
    runs, size = first.shape
    ones, twos = (torch.fft.rfft(x.double(), 2 * size) for x in (first, second))
    both = torch.fft.irfft((ones.conj() * twos).sum(0), 2 * size).round()
    shift = torch.arange(-(size // 2), size // 2 + 1, device=first.device)
    both = both[shift]
    # of the first the bits from `low` on have a partner, of the second those up to `high`
    zero = torch.zeros(1, dtype=torch.int64, device=first.device)
    upto_first, upto_second = (torch.cat([zero, x.sum(0).cumsum(0)]) for x in (first, second))
    back, on = (-shift).clamp_min(0), shift.clamp_min(0)
    a = (upto_first[size - on] - upto_first[back]).double()
    b = (upto_second[size - back] - upto_second[on]).double()
    n = (runs * (size - shift.abs())).double()
    spread = (a * b * (n - a) * (n - b)).sqrt() / n
    z = torch.where(spread > 0, (both - a * b / n).abs() / spread, 0.0)
    at = int(z.argmax())
    counts = (int(x[at]) for x in (both, n, a, b))
    chance = hypergeometric_chance(*counts)
    said = f"at a distance of {size + int(shift[at])}, of {int(n[at])} pairs"
    return Echo(chance, len(shift), said)


def _neighbours(bits: Tensor) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Disjoint pairs of neighbours along each axis, beginning with the first and the second."""
    for axis in range(bits.ndim):
        for start in (0, 1):
            count = (bits.shape[axis] - start) // 2
            if count:
                run = bits.narrow(axis, start, 2 * count).unfold(axis, 2, 2)
                pair = run.select(-1, 0), run.select(-1, 1)
                yield f"neighbours along axis {axis} of the draws, from {start}", pair


def _lagged(bits: Tensor) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Disjoint pairs at each distance that is a power of two."""
    lag = 1
    while 2 * lag <= bits.numel():
        for start in (0, lag):
            count = (bits.numel() - start) // (2 * lag)
            if count:
                run = bits[start : start + 2 * lag * count].view(count, 2, lag)
                yield f"a distance of {lag}, from {start}", (run[:, 0], run[:, 1])
        lag *= 2


def _judge(
    pairs: dict[str, tuple[Tensor, Tensor]], of: str, found: Echo | None = None, share: int = 1
) -> str:
    """Are all pairs independent, and is there no echo? One of `share` judgements of a check."""
    if found is not None:
        chance = found.chance
        require(chance >= FALSE_ALARM / 4, f"{of}, {found.said}: chance {chance:.1e}")
    if not pairs:
        return ""
    chances = {name: dependence(first, second) for name, (first, second) in pairs.items()}
    name = min(chances, key=lambda name: chances[name])
    first, second = pairs[name]
    require(
        chances[name] >= FALSE_ALARM / (4 * share * len(pairs)),
        f"{of}, {name}: {float((first == second).double().mean()):.1%} of {first.numel()} pairs "
        f"agree: chance {chances[name]:.1e}",
    )
    return f"{len(pairs) + (found.distances if found else 0)} comparisons"
