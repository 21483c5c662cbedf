"""Example inputs from a command line: `8x3x224x224`, `ids=8x128:int64<30522`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from dropkit.apps.targets.target import Inputs
from dropkit.errors import SettingError
from dropkit.inspection.showing import printable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SPEC = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:[x,]\d+)*)"
    r"(?::(?P<dtype>\w+))?(?:<(?P<bound>\d+))?"
)
DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
LARGEST = 1 << 32
"""Elements of one input: 16 GB as float32."""


def parsed(specs: Sequence[str]) -> Inputs:
    """The inputs that specifications ask for, with the same values each time.

    Raises:
        SettingError: one of them is none.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for spec in specs:
        name, value = _one(spec)
        if name in kwargs:
            raise SettingError(f"--input {name} was given twice")
        if name:
            kwargs[name] = value
        else:
            args.append(value)
    return Inputs(tuple(args), kwargs)


def taken(given: Any, what: str) -> Inputs:
    """Inputs as a function gave them: a tuple or list of them, a dictionary, or a single one."""
    if isinstance(given, Mapping):
        named = {str(name): value for name, value in given.items()}
        return Inputs((), named)
    if isinstance(given, tuple | list):
        return Inputs(tuple(given))
    if given is None:
        raise SettingError(f"expected {printable(what)} to give inputs; it gave None")
    return Inputs((given,))


def _one(spec: str) -> tuple[str, Tensor]:
    import torch

    found = _SPEC.fullmatch(spec.strip())
    if found is None:
        raise SettingError(
            "expected --input SHAPE or NAME=SHAPE:DTYPE<BOUND, such as 8x3x224x224 or "
            f"ids=8x128:int64<30522; got {printable(spec)!r}"
        )
    shape = tuple(int(size) for size in re.split("[x,]", found["shape"]))
    dtype = found["dtype"] or ("int64" if found["bound"] else "float32")
    if dtype not in DTYPES:
        raise SettingError(
            f"expected a dtype of {', '.join(DTYPES)}; got {printable(dtype)} in --input "
            f"{printable(spec)}"
        )
    bound = int(found["bound"]) if found["bound"] else None
    if bound is not None and (
        bound < 1 or dtype.startswith(("float", "bfloat", "complex", "bool"))
    ):
        raise SettingError(
            f"expected a bound above 0 of whole numbers; got {printable(spec)!r}. Numbers below "
            "30522 are :int64<30522"
        )
    count = prod(shape)
    if count > LARGEST:
        raise SettingError(f"--input {printable(spec)} has {count:,} elements; try a smaller batch")
    return found["name"] or "", values(shape, getattr(torch, dtype), bound)


def sized(shape: Iterable[int]) -> str:
    """A shape as it is typed: 8x3x224x224."""
    return "x".join(map(str, shape))


def values(
    shape: tuple[int, ...], dtype: torch.dtype, bound: int | None = None, device: str = "cpu"
) -> Tensor:
    """A tensor whose values differ, have both signs and are never 0; whole numbers from 0 on."""
    import torch

    if device == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    count = prod(shape)
    if dtype.is_floating_point or dtype.is_complex:
        waves = torch.arange(count, dtype=torch.float32).mul_(1.7).add_(0.5).sin_()
        return waves.to(dtype).reshape(shape)
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    return (torch.arange(count) % (bound or 2)).to(dtype).reshape(shape)
