"""Under `torch.func.vmap` and `torch.compile` it is still the same dropout."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from dropkit.testing.bench import Apply, Bench, dependence
from dropkit.testing.bounds import FALSE_ALARM
from dropkit.testing.gradients import factor
from dropkit.testing.report import concerns, require

_P = 0.5
_LANES = 4


def vmap_different(bench: Bench) -> str:
    """Under `vmap(randomness="different")` each lane draws its own mask."""
    masks = _lanes(bench, "different")
    bits = [bench.untied(bench.arranged(mask)) for mask in masks]
    chance = min(dependence(a, b) for a, b in combinations(bits, 2))
    require(chance >= FALSE_ALARM / 6, f"lanes depend: chance {chance:.1e}")
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
    """Compiled as one graph it draws afresh each call, and keeps its values and its gradient."""
    concerns("compile" in bench.subject.claims, "not claimed")
    return _compiled(bench, "aot_eager")


def compiled_inductor(bench: Bench) -> str:
    """The same of the default backend, which writes code of its own."""
    concerns("inductor" in bench.subject.claims, "not claimed")
    return _compiled(bench, "inductor")


def as_one_graph(apply: Apply, backend: str) -> Apply:
    """Compile, without a break, as a function that the compiler has not met."""

    def run(x: Tensor) -> Tensor:
        return apply(x)

    run.__code__ = run.__code__.replace()  # its cache, and its limit of recompiling, are a code's
    graph: Apply = torch.compile(run, backend=backend, fullgraph=True)
    return graph


def _compiled(bench: Bench, backend: str) -> str:
    x = bench.plenty().requires_grad_()
    apply = bench.layer(_P)
    graph = as_one_graph(apply, backend)
    series = []
    for _ in range(3):
        y = graph(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        expected = factor(bench, x, y)
        near = (gradient - expected).abs() <= 1e-4 * expected.abs().clamp_min(1)
        require(bool(near.all()), "the gradient's mask is another")
        series.append(bench.untied(bench.arranged(bench.mask(_P, x.detach(), y.detach()))))
    chance = min(dependence(a, b) for a, b in combinations(series, 2))
    require(chance >= FALSE_ALARM / 6, f"calls depend: chance {chance:.1e}")
    still = as_one_graph(bench.layer(_P, training=False), backend)(x)
    require(torch.equal(still, bench.layer(_P, training=False)(x)), "eval mode differs")
    return f"one graph, {backend}"


def _lanes(bench: Bench, randomness: str) -> Tensor:
    """The mask of each lane."""
    concerns("vmap" in bench.subject.claims, "not claimed")
    x = bench.plenty()
    x = x.expand(_LANES, *x.shape)
    y = torch.func.vmap(bench.layer(_P), randomness=randomness)(x)
    return torch.stack([bench.mask(_P, a, b) for a, b in zip(x, y, strict=True)])
