"""Under `torch.func.vmap` and `torch.compile` it is still the same dropout."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from dropkit.bounds import FALSE_ALARM
from dropkit.testing.bench import Bench, dependence, difference
from dropkit.testing.circumstances import RATE
from dropkit.testing.gradients import factor
from dropkit.testing.report import concerns, require
from dropkit.testing.subject import Apply
from dropkit.testing.values import units_off

_LANES = 4
_CALLS = 8


def vmap_different(bench: Bench) -> str:
    """Under `vmap(randomness="different")` each lane draws its own mask, at the rate."""
    masks = _lanes(bench, "different")
    _judge(bench, bench.plenty(), list(masks), "lanes")
    return f"{_LANES} lanes differ"


def vmap_same(bench: Bench) -> str:
    """Under `vmap(randomness="same")` all lanes use one mask."""
    masks = _lanes(bench, "same")
    require(bool((masks == masks[0]).all()), "lanes differ")
    return f"{_LANES} lanes alike"


def vmap_error(bench: Bench) -> str:
    """Under plain `vmap` a draw is an error, as PyTorch's own are."""
    concerns("vmap" in bench.subject.claims, "not claimed")
    try:
        _lanes(bench, "error")
    except RuntimeError as error:
        require("randomness" in str(error), f"an error that does not say why: {error}")
        return "refused"
    require(False, "drew without being asked whether lanes are to differ")
    return ""


def compiled(bench: Bench) -> str:
    """Compiled as one graph it draws afresh, with its rate, its values and its gradient."""
    concerns("compile" in bench.subject.claims, "not claimed")
    return _compiled(bench, "aot_eager")


def compiled_inductor(bench: Bench) -> str:
    """The same of the default backend, which writes code of its own."""
    concerns("inductor" in bench.subject.claims, "not claimed")
    return _compiled(bench, "inductor")


def as_one_graph(apply: Apply, backend: str) -> Apply:
    """Compile, without a break, as a function that the compiler has not met.

    For these sizes alone: the compiler remembers by file and line which sizes it met, and would
    compile another graph after other subjects.
    """

    def run(x: Tensor) -> Tensor:
        return apply(x)

    run.__code__ = run.__code__.replace()  # its cache, and its limit of recompiling, are a code's
    graph: Apply = torch.compile(run, backend=backend, fullgraph=True, dynamic=False)
    return graph


def _compiled(bench: Bench, backend: str) -> str:
    x = bench.plenty().requires_grad_()
    apply = bench.layer(RATE)
    graph = as_one_graph(apply, backend)
    series = []
    for _ in range(3):
        y = graph(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        expected = factor(bench, x, y)
        near = (gradient - expected).abs() <= 1e-4 * expected.abs().clamp_min(1)
        require(bool(near.all()), "the gradient's mask is another")
        series.append(_mask(bench, x.detach(), y.detach()))
    _judge(bench, x.detach(), series, "calls")
    still = as_one_graph(bench.layer(RATE, training=False), backend)(x)
    require(torch.equal(still, bench.layer(RATE, training=False)(x)), "eval mode differs")
    return f"one graph, {backend}"


def _lanes(bench: Bench, randomness: str) -> Tensor:
    """The mask of each lane."""
    concerns("vmap" in bench.subject.claims, "not claimed")
    x = bench.plenty()
    x = x.expand(_LANES, *x.shape)
    y = torch.func.vmap(bench.layer(RATE), randomness=randomness)(x)
    return torch.stack([_mask(bench, a, b) for a, b in zip(x, y, strict=True)])


def _mask(bench: Bench, x: Tensor, y: Tensor) -> Tensor:
    """Where it kept, and nothing but what its scale makes of that, if it does so elsewhere."""
    if bench.subject.drops and _off(bench, x, bench.layer(RATE)(x)) <= bench.subject.ulps:
        off = _off(bench, x, y)
        require(off <= bench.subject.ulps, f"values are {off:.3g} units in the last place off")
    return bench.mask(RATE, x, y)


def _off(bench: Bench, x: Tensor, y: Tensor) -> float:
    return float(units_off(bench, RATE, x, y.detach()).max())


def _judge(bench: Bench, x: Tensor, masks: list[Tensor], what: str) -> None:
    """Are the bits of each independent of those of the others, and as many as elsewhere?"""
    series = [bench.untied(bench.arranged(mask)) for mask in masks]
    pairs = list(combinations(series, 2))
    chance = min(dependence(a, b) for a, b in pairs)
    require(chance >= FALSE_ALARM / (2 * len(pairs)), f"{what} depend: chance {chance:.1e}")
    bits, usual = torch.stack(series), bench.repeated(bench.layer(RATE), RATE, x, _CALLS)
    chance = difference(usual, bits)
    shares = [f"{float((~kept).double().mean()):.4f}" for kept in (bits, usual)]
    said = f"{shares[0]} dropped at {RATE}, {shares[1]} in usual calls: chance {chance:.1e}"
    require(chance >= FALSE_ALARM / 2, said)
