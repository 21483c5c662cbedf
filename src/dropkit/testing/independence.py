"""Which draws are equal, and which know nothing of each other.

Dependence is judged by Fisher's exact test on disjoint pairs of bits. So it does not matter
whether the rate itself is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from torch import Tensor

from dropkit.testing.bench import Bench, dependence
from dropkit.testing.bounds import FALSE_ALARM
from dropkit.testing.report import concerns, require

_LAYERS = 3


def shared_axes(bench: Bench) -> str:
    """One draw holds along the shared axes, and no further."""
    shared = bench.subject.shared
    concerns(bool(shared), "no shared axes")
    x = bench.input()
    mask = bench.mask(0.5, x, bench.layer(0.5)(x))
    first = mask
    for axis in shared:
        first = first.narrow(axis, 0, 1)
    require(bool((first == mask).all()), f"not all are alike along the axes {shared}")
    return f"alike along {shared}"


def independent_calls(bench: Bench) -> str:
    """A call's mask says nothing of the next one's."""
    bench.reseed(6)
    series = bench.series(bench.layer(0.5), 0.5)
    half = len(series) // 2
    pairs = {"the next": (series[0 : 2 * half : 2], series[1 : 2 * half : 2])}
    if half > 1:
        pairs["half the calls later"] = (series[:half], series[half : 2 * half])
    return _judge(pairs, "calls")


def independent_layers(bench: Bench) -> str:
    """A layer's masks say nothing of those of another of the same make."""
    bench.reseed(7)
    layers = [bench.layer(0.5) for _ in range(_LAYERS)]
    series = [bench.series(layer, 0.5) for layer in layers]
    pairs = combinations(range(_LAYERS), 2)
    return _judge({f"{i} and {j}": (series[i], series[j]) for i, j in pairs}, "layers")


def independent_elements(bench: Bench) -> str:
    """An element's draw says nothing of another's, near or far, along any independent axis."""
    lags = 0
    for p in (0.5, 0.1) if bench.subject.drops else (0.5,):
        bits = bench.untied(bench.slim(p))
        pairs = dict(_neighbours(bits)) | dict(_lagged(bits.flatten()))
        _judge(pairs, f"elements at {p}")
        lags = max(lags, len(pairs))
    concerns(lags > 0, "one draw for all")
    return f"{lags} distances in {bits.numel()} draws"


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


def _judge(pairs: dict[str, tuple[Tensor, Tensor]], of: str) -> str:
    if not pairs:
        return ""
    chances = {name: dependence(first, second) for name, (first, second) in pairs.items()}
    name = min(chances, key=lambda name: chances[name])
    first, second = pairs[name]
    require(
        chances[name] >= FALSE_ALARM / (2 * len(pairs)),
        f"{of}, {name}: {float((first == second).double().mean()):.1%} of {first.numel()} pairs "
        f"agree: chance {chances[name]:.1e}",
    )
    return f"{len(pairs)} comparisons"
