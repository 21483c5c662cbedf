"""What becomes of the values: of the kept, of the dropped, on average, and at the ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dropkit.bounds import FALSE_ALARM, mean_chance, normal_chance
from dropkit.testing.bench import Bench
from dropkit.testing.circumstances import PLAIN, RATE
from dropkit.testing.laws import Affine, Gaussian
from dropkit.testing.rates import RATES
from dropkit.testing.report import concerns, require

_BARELY = 1 + 1e-5  # room for rounding, where a bound is of exact arithmetic
_ROUNDED = 1 + 2**-6  # of half a unit: the room that computing in float32 first leaves
_NOT_FINITE = (math.inf, -math.inf, math.nan)
_SINGLE = 2.0**-21  # a few roundings in float32


def scale(bench: Bench) -> str:
    """A kept value is scaled exactly, whatever the input; a dropped one is exactly the fill."""
    concerns(bench.subject.drops, "no two values")
    worst = 0.0
    signed = bench.input()
    signed.view(-1)[::2] *= -1
    plain = [(PLAIN, p, signed) for p in (*RATES, *bench.unforeseen)]
    plain.append((PLAIN, RATE, torch.zeros_like(signed)))
    for how, p, given in [*plain, *((how, RATE, bench.input()) for how in bench.circumstances)]:
        x, y = how.call(bench.called(how, p), given)
        require(y.dtype == x.dtype, f"{x.dtype} became {y.dtype} at {p:.4g}")
        off = units_off(bench, p, x, y).flatten()
        at = int(off.nan_to_num(torch.inf).argmax())
        worst = max(worst, float(off[at]))
        require(
            float(off[at]) <= bench.subject.ulps,
            f"{float(x.flatten()[at]):.6g} became {float(y.flatten()[at]):.6g} at {p:.4g}{how}: "
            f"neither dropped nor scaled by {_seen(bench, p, y != 0).scale:.6g}, by "
            f"{float(off[at]):.3g} units in the last place",
        )
    return f"within {worst:.1f} units in the last place"


def units_off(bench: Bench, p: float, x: Tensor, y: Tensor) -> Tensor:
    """How far outputs lie from the nearer of what they may be, in units in the last place."""
    scale, shift, fill = _seen(bench, p, y != 0)
    from_kept = (y.double() - (x.double() * scale + shift)).abs()
    from_fill = (y.double() - fill).abs()
    room = torch.finfo(y.dtype).eps * ((x.double() * scale).abs() + abs(shift) + abs(fill))
    if not fill:
        from_fill = torch.where(y == 0, 0.0, torch.inf)  # a zero is exact
    return torch.minimum(from_kept, from_fill) / room.clamp_min(torch.finfo(torch.float64).tiny)


def half(bench: Bench) -> str:
    """In float16 and bfloat16 a kept value is rounded once, not its scale first."""
    concerns("half" in bench.subject.claims, "not claimed")
    concerns(bench.subject.drops, "no two values")
    for dtype in (torch.bfloat16, torch.float16):
        for p in (0.1, 1 / 3):
            x = bench.input(dtype=dtype)
            y = bench.layer(p)(x)
            require(y.dtype == dtype, f"{dtype} became {y.dtype}")
            mask = bench.mask(p, x, y)
            affine = _seen(bench, p, mask)
            exact = torch.where(mask, x.double() * affine.scale + affine.shift, affine.fill)
            half_a_unit = torch.exp2(exact.abs().log2().floor()) * torch.finfo(dtype).eps / 2
            room = half_a_unit * _ROUNDED + _SINGLE * (abs(affine.shift) + affine.scale)
            wrong = (y.double() - exact).abs() > room
            at = int(wrong.int().argmax())
            require(
                not bool(wrong.any()),
                f"{dtype} {float(x.flatten()[at])} became {float(y.flatten()[at])} at {p:.4g}, "
                f"{float(exact.to(dtype).flatten()[at])} is nearest",
            )
    return "rounded once"


def expectation(bench: Bench) -> str:
    """The mean over training calls is the output of eval mode; for alpha, mean 0 and variance 1."""
    concerns(bench.subject.scaling != "none", "nothing is scaled")
    said = ""
    for p in (0.1, 0.5):
        if bench.subject.scaling == "alpha":
            _self_normalizing(bench, p)
            continue
        x = bench.ones(bench.subject.shape)
        means, draws = _repeated(bench, p, x, lambda y: y.mean())
        mean = float(means.mean())
        expected = float(bench.layer(p, training=False)(x).double().mean())
        if isinstance(bench.subject.law, Gaussian):
            chance = normal_chance((mean - expected) / bench.subject.law.std(p) * math.sqrt(draws))
        elif bench.subject.scaling == "normalized":
            chance = float(abs(mean - expected) < 1e-4)
        else:
            top = bench.subject.affine(p).scale * _BARELY
            chance = mean_chance(mean / top, draws, expected / top)
        said = f"{mean:.5f} in training, {expected:.5f} in eval at {p:.4g}"
        require(chance >= FALSE_ALARM / 4, f"{said}: chance {chance:.1e}")
    return said or "mean 0 and variance 1"


def rate_zero(bench: Bench) -> str:
    """At rate 0 the output is the input, bit for bit, whatever the input; and nothing is drawn."""
    for how in (PLAIN, *bench.circumstances):
        call = partial(how.call, bench.called(how, 0.0), bench.input())
        (x, y), moved = bench.moved(call)
        require(alike(x, y), f"values changed{how}")
        require(not moved, f"the global random state moved{how}")
    if "nan and inf" in bench.subject.claims:
        odd = spoiled(bench.input())
        require(alike(bench.layer(0.0)(odd), odd), "an inf or a nan changed")
    return "identity, nothing drawn"


def rate_one(bench: Bench) -> str:
    """At rate 1 the output is zero and gradients are finite."""
    concerns(1.0 in bench.subject.ends, "takes no rate of 1")
    x = bench.input().requires_grad_()
    y = bench.layer(1.0)(x)
    require(
        not bool(y.any()), f"outputs up to {float(y.detach().nan_to_num(torch.inf).abs().max())}"
    )
    if y.requires_grad:
        (gradient,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
        finite = gradient is None or bool(gradient.isfinite().all())
        require(finite, "a gradient that is not finite")
    bad = bench.input().detach().clone()
    bad.view(-1)[:2] = torch.tensor([torch.inf, torch.nan])
    after = bench.layer(1.0)(bad).flatten()[:2].tolist()
    return f"zeros; inf and nan become {after[0]:g} and {after[1]:g}"


def nan_and_inf(bench: Bench) -> str:
    """A kept nan or inf stays, a dropped one is the fill or nan; no other element sees them."""
    concerns("nan and inf" in bench.subject.claims, "not claimed")
    apply = bench.seeded(bench.layer(RATE), 4)
    x = bench.input()
    clean = apply(x)
    concerns(alike(clean, apply(x)), "is not seeded")
    noise = not bench.subject.drops
    kept = torch.ones_like(x, dtype=torch.bool) if noise else bench.mask(RATE, x, clean)
    places = torch.arange(x.numel(), device=x.device).view(x.shape) % 3 == 0
    for bad in _NOT_FINITE:
        y = apply(torch.where(places, bad, x))
        stays = y.isnan() if math.isnan(bad) else ~y.isfinite() if noise else y == bad
        right = torch.where(kept, stays, y.isnan() | (y == clean)) | ~places
        at = int(right.int().flatten().argmin())
        which = "kept" if kept.flatten()[at] else "dropped"
        became = float(y.flatten()[at])
        require(bool(right.all()), f"a {which} {bad:g} became {became:g} at {RATE:.4g}")
        require(alike(y[~places], clean[~places]), f"another element changed, for a {bad:g}")
    return "inf, -inf and nan"


def selects(bench: Bench) -> str:
    """A dropped inf or nan is gone: the mask selects, it does not multiply."""
    concerns("selects" in bench.subject.claims, "not claimed")
    concerns(bench.subject.drops, "nothing is dropped")
    apply = bench.seeded(bench.layer(0.5), 4)
    x = bench.input()
    clean = apply(x)
    mask = bench.mask(0.5, x, clean)
    for bad in _NOT_FINITE:
        y = apply(torch.where(mask, x, bad))
        at = int(((y != clean) & ~mask).int().flatten().argmax())
        require(
            torch.equal(y[~mask], clean[~mask]), f"a dropped {bad:g} became {y.flatten()[at]:g}"
        )
        require(torch.equal(y[mask], clean[mask]), f"a kept value changed, for a dropped {bad:g}")
        gone = 1.0 not in bench.subject.ends or not bench.layer(1.0)(torch.full_like(x, bad)).any()
        require(bool(gone), f"not {bad:g} at rate 1")
    return "inf and nan are dropped"


def alike(x: Tensor, y: Tensor) -> bool:
    """Are they equal, nan to nan?"""
    return (
        x.shape == y.shape and x.dtype == y.dtype and bool(((x == y) | (x != x) & (y != y)).all())
    )


def spoiled(x: Tensor) -> Tensor:
    """The same with an inf, one below zero, and a nan."""
    x = x.clone()
    x.view(-1)[: len(_NOT_FINITE)] = torch.tensor(_NOT_FINITE)
    return x


def _seen(bench: Bench, p: float, mask: Tensor) -> Affine:
    """The affine map; where kept values are normalized, by this very mask."""
    if bench.subject.scaling != "normalized":
        return bench.subject.affine(p)
    return Affine(mask.numel() / max(1, int(mask.sum())))


def _repeated(
    bench: Bench, p: float, x: Tensor, summary: Callable[[Tensor], Tensor]
) -> tuple[Tensor, int]:
    """A summary of each of many calls, and how many independent draws they are of."""
    bench.reseed(5)
    apply = bench.layer(p)
    calls = bench.calls(x.numel())
    each = math.prod(bench.subject.shape[axis] for axis in bench.subject.independent)
    return torch.stack([summary(apply(x).double()) for _ in range(calls)]), calls * each


def _self_normalizing(bench: Bench, p: float) -> None:
    """From inputs of mean 0 and variance 1 come outputs of mean 0 and variance 1."""
    x = bench.ones(bench.subject.shape)
    x.view(-1)[::2] = -1
    ends = _extremes(bench.subject.affine(p))
    both, draws = _repeated(bench, p, x, lambda y: torch.stack([y.mean(), y.square().mean()]))
    mean, square = both.mean(0).tolist()
    low, width = min(ends) * _BARELY, (max(ends) - min(ends)) * _BARELY
    top = max(end**2 for end in ends) * _BARELY
    odd = float(x.mean())  # of an odd number of values one has no opposite
    chances = (
        mean_chance(
            (mean - low) / width,
            draws,
            (odd * bench.subject.affine(p).scale * (1 - p) - low) / width,
        ),
        mean_chance(square / top, draws, 1 / top) if not odd else 1.0,
    )
    require(
        min(chances) >= FALSE_ALARM / 4, f"mean {mean:.4f}, mean square {square:.4f} at {p:.4g}"
    )


def _extremes(affine: Affine) -> tuple[float, float, float]:
    """What -1 and 1 may become."""
    return affine.shift - affine.scale, affine.shift + affine.scale, affine.fill
