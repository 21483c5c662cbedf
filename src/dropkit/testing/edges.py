"""Tensors without elements or axes, integers, and work in place."""

from __future__ import annotations

import torch

from dropkit.bounds import FALSE_ALARM
from dropkit.testing.bench import Bench
from dropkit.testing.circumstances import RATE
from dropkit.testing.gradients import factor
from dropkit.testing.rates import dropped_share
from dropkit.testing.report import concerns, require

_REFUSALS = (RuntimeError, TypeError, ValueError)
_CALLS = 128


def empty(bench: Bench) -> str:
    """A batch of nothing gives a batch of nothing, at every rate and in both modes."""
    concerns("empty" in bench.subject.claims, "not claimed")
    concerns(bench.rows is not None, "takes no other batch")
    assert bench.rows is not None
    shape = list(bench.subject.shape)
    shape[bench.rows] = 0
    for p in bench.subject.ends:
        for training in (True, False):
            x = bench.ones(tuple(shape)).requires_grad_()
            y = bench.layer(p, training=training)(x)
            require(y.shape == x.shape, f"{tuple(x.shape)} became {tuple(y.shape)} at {p}")
            require(y.dtype == x.dtype, f"{x.dtype} became {y.dtype} at {p}")
            torch.autograd.grad(y.sum(), x)
    return f"{tuple(shape)}"


def scalar(bench: Bench) -> str:
    """A tensor without axes is one element, dropped with the probability asked for."""
    concerns("scalar" in bench.subject.claims, "not claimed")
    bound = bench.subject.shared or bench.subject.law.tied or bench.subject.sizes != "any"
    concerns(not bound, "has axes by its law")
    x = bench.ones(())
    apply = bench.layer(RATE)
    require(apply(x).shape == (), f"() became {tuple(apply(x).shape)}")
    bits = torch.stack([bench.mask(RATE, x, apply(x)) for _ in range(_CALLS)])
    dropped, chance = dropped_share(bench, RATE, bits)
    require(chance >= FALSE_ALARM, f"{dropped:.3f} dropped at {RATE}: chance {chance:.1e}")
    return f"{dropped:.3f} of {_CALLS} dropped at {RATE}"


def integers(bench: Bench) -> str:
    """Integers are refused in training, or treated right: never cut off."""
    concerns("integer" in bench.subject.claims, "not claimed")
    concerns(bench.subject.drops and bench.subject.scaling == "inverted", "no two values")
    x = (bench.input() * 100).to(torch.int64)
    try:
        still, y = bench.layer(RATE, training=False)(x), bench.layer(1 / 3)(x)
    except _REFUSALS as error:
        return f"refused ({type(error).__name__})"
    require(torch.equal(still, x), "changed in eval mode")
    exact = x.double() * bench.subject.affine(1 / 3).scale
    right = (y == 0) | ((y.double() - exact).abs() <= 1e-4 * exact)
    at = int(right.flatten().int().argmin())
    require(bool(right.all()), f"{int(x.flatten()[at])} became {y.flatten()[at].item()} at 1/3")
    return f"become {y.dtype}"


def in_place(bench: Bench) -> str:
    """In place it writes into its input, and refuses a leaf that needs a gradient."""
    concerns(bench.subject.inplace is not None, "not in place")
    for p in bench.subject.ends[1:]:
        x = bench.input()
        y = bench.inplace(p)(x)
        require(y.data_ptr() == x.data_ptr(), f"the output has memory of its own at {p}")
        require(torch.equal(y, x), f"the input does not hold the output at {p}")
        require(not torch.equal(x, bench.input()), f"nothing was written at {p}")
    leaf = bench.input().requires_grad_()
    try:
        bench.inplace(RATE)(leaf)
    except RuntimeError:
        pass
    else:
        require(False, "a leaf that needs a gradient was written over")
    leaf = bench.input().requires_grad_()
    y = bench.inplace(RATE)(leaf * 1)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    near = (gradient - factor(bench, leaf, y)).abs() <= 1e-5
    require(bool(near.all()), "the gradient's mask is another")
    x = bench.input()
    require(
        torch.equal(bench.inplace(RATE, training=False)(x), bench.input()), "changed in eval mode"
    )
    return "writes into its input"
