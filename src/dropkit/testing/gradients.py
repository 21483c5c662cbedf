"""The mask of the derivative is the mask of the value: backward, forward, twice, recomputed."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError
from torch.utils.checkpoint import checkpoint

from dropkit.testing.bench import Bench
from dropkit.testing.circumstances import RATE
from dropkit.testing.laws import Gaussian
from dropkit.testing.report import concerns, require
from dropkit.testing.subject import Apply

_NEAR = 64  # units in the last place: a quotient of two results that were each rounded


def gradient_mask(bench: Bench) -> str:
    """Backward uses the mask that forward drew, whatever the input."""
    x = bench.input().requires_grad_()
    apply = bench.layer(RATE)
    for _ in range(2):
        y = apply(x)
        later = apply(bench.input())  # another call in between changes nothing
        del later
        (gradient,) = torch.autograd.grad(y.sum(), x)
        _alike(gradient, factor(bench, x, y), "gradient")
    for how in bench.circumstances:
        if how.differentiable:
            x = how.alter(bench.input()).detach().requires_grad_()
            y = bench.called(how, RATE)(x)
            (gradient,) = torch.autograd.grad(y.sum(), x)
            _alike(gradient, factor(bench, x, y), f"gradient{how},")
    return "the same mask"


def double_backward(bench: Bench) -> str:
    """The gradient can be differentiated, and is a linear map with the same mask."""
    concerns("double backward" in bench.subject.claims, "not claimed")
    x = bench.input().requires_grad_()
    direction = torch.full_like(x, 3.0).requires_grad_()
    y = bench.layer(RATE)(x)
    (gradient,) = torch.autograd.grad(y, x, direction, create_graph=True)
    require(gradient.requires_grad, "the gradient has no gradient")
    (second,) = torch.autograd.grad(gradient, direction, torch.full_like(x, 2.0))
    _alike(second / 2, factor(bench, x, y), "gradient of the gradient")
    _gradcheck(bench)
    return "the same mask"


def forward_mode(bench: Bench) -> str:
    """`torch.func.jvp` uses the mask that forward drew."""
    concerns("forward mode" in bench.subject.claims, "not claimed")
    x = bench.input()
    with warnings.catch_warnings():  # the first jvp of a process scripts PyTorch's own rules
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", DeprecationWarning)
        y, tangent = torch.func.jvp(bench.layer(RATE), (x,), (torch.full_like(x, 2.0),))[:2]
    _alike(tangent / 2, factor(bench, x, y), "tangent")
    return "the same mask"


def checkpointed(bench: Bench) -> str:
    """A checkpointed call draws the same mask when it is computed again."""
    concerns("checkpoint" in bench.subject.claims, "not claimed")
    x = bench.input().requires_grad_()
    apply = bench.layer(RATE)
    y, gradient = recomputed(apply, x, preserve=True)
    _alike(gradient, factor(bench, x, y), "gradient after recomputation")
    return "the same mask"


def recomputed(apply: Apply, x: Tensor, *, preserve: bool) -> tuple[Tensor, Tensor]:
    """Output and gradient of a checkpointed call, with draws in between."""

    def cubed(x: Tensor) -> Tensor:
        return apply(x) ** 3  # its backward needs the output, so that it is computed again

    y = checkpoint(cubed, x, use_reentrant=False, preserve_rng_state=preserve)
    apply(x.detach())
    (gradient,) = torch.autograd.grad(y.sum(), x)
    value = y.detach().sign() * y.detach().abs() ** (1 / 3)
    slope = torch.where(value == 0, 0.0, gradient / (3 * value**2))
    return value, slope


def factor(bench: Bench, x: Tensor, y: Tensor) -> Tensor:
    """dy/dx of an output, as read off its values."""
    x, y = x.detach(), y.detach()
    law = bench.subject.law
    if isinstance(law, Gaussian):
        return torch.ones_like(y) if law.additive else y / x
    mask = bench.mask(RATE, x, y)
    if bench.subject.scaling == "normalized":
        return torch.where(mask, y / x, 0.0)
    return mask.to(y.dtype) * bench.subject.affine(RATE).scale


def _alike(seen: Tensor, expected: Tensor, what: str) -> None:
    near = _NEAR * torch.finfo(seen.dtype).eps * expected.abs().clamp_min(1.0)
    wrong = (seen - expected).abs() > near
    at = int(wrong.flatten().int().argmax())
    require(
        not bool(wrong.any()),
        f"{int(wrong.sum())} of {wrong.numel()}: {what} {float(seen.flatten()[at]):.6g} where the "
        f"output has a factor of {float(expected.flatten()[at]):.6g}",
    )


def _gradcheck(bench: Bench) -> None:
    """PyTorch's own comparison with finite differences, the mask held by the seed."""
    x = bench.input(dtype=torch.float64)
    if bench.subject.sizes == "any":
        x = x[tuple(slice(0, 2) for _ in x.shape)].contiguous()
    run = bench.seeded(bench.layer(RATE))
    if not torch.equal(run(x), run(x)):
        return  # says `seeded`, not this check
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        try:
            check(run, (x.requires_grad_(),), fast_mode=True)
        except GradcheckError as error:
            require(False, str(error).strip().splitlines()[0])
