"""What every functional asks of its input, in torch's own words where torch has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError

SCALINGS = ("inverted", "classic")


def check_rate(p: float | Tensor, x: Tensor | None = None) -> None:
    """p is a fraction, or a tensor of fractions that broadcasts against x."""
    if isinstance(p, Tensor):
        _check_rates(p, x)
        return
    try:
        inside = 0.0 <= p <= 1.0
    except (TypeError, ValueError):  # an array has no truth value
        raise SettingError(f"p: expected a number, or a tensor of rates; got {p!r}") from None
    if not inside:
        raise SettingError(f"dropout probability has to be between 0 and 1, but got {p}")


def _check_rates(p: Tensor, x: Tensor | None) -> None:
    if not p.is_floating_point():
        raise SettingError(f"p: expected a tensor of floating-point rates; got {p.dtype}")
    if p.requires_grad:
        raise SettingError(
            "p: expected a rate without a gradient, since a Bernoulli mask has none; got one that "
            "requires grad. To learn a rate, try dropkit.nn.ConcreteDropout"
        )
    if x is not None and not broadcasts(p.shape, x.shape):
        raise SettingError(
            f"p: expected rates that broadcast against x of shape {tuple(x.shape)}; got shape "
            f"{tuple(p.shape)}"
        )
    kernel.check_rates(p)


def broadcasts(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether one shape broadcasts to the other."""
    last = large[len(large) - len(small) :]
    return len(small) <= len(large) and all(
        a == 1 or a == b for a, b in zip(small, last, strict=True)
    )


def check_fits(name: str, of: Tensor, x: Tensor) -> None:
    """A parameter does not widen what it acts on."""
    if not broadcasts(of.shape, x.shape):
        raise SettingError(
            f"{name}: expected a shape that broadcasts to x's, {tuple(x.shape)}; got "
            f"{tuple(of.shape)}"
        )


def check_number(p: object, instead: str = "dropkit.functional.dropout") -> None:
    """p is a number, for what has one rate for all."""
    if isinstance(p, Tensor):
        raise SettingError(
            f"p: expected a number, since there is one rate for all; got a tensor. Try {instead}"
        )


def check_tensor(x: object) -> None:
    """x is what torch can compute with."""
    if not isinstance(x, Tensor):
        raise SettingError(f"x: expected a tensor; got {type(x).__name__}. Try torch.as_tensor(x)")


def check_dropped(x: Tensor) -> None:
    """x has numbers that can be scaled: torch raises the same for integers."""
    check_tensor(x)
    if not (x.is_floating_point() or x.is_complex()):
        raise RuntimeError(
            f"result type Float can't be cast to the desired output type {x.dtype}: expected a "
            "floating-point or complex tensor; try x.float()"
        )
    if x.layout is not torch.strided:
        raise SettingError(
            f"x: expected a dense tensor; got one of layout {x.layout}. Try dropping its values(), "
            "or x.to_dense()"
        )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """An option is one of its words."""
    if value not in choices:
        raise SettingError(f"{name}: expected one of {', '.join(choices)}; got {value!r}")
