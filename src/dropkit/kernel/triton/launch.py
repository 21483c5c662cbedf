"""How the kernels are called: what is passed, in which form, on which device."""

from __future__ import annotations

import os
import struct
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
GRID = (1 << 31) - 1
"""The most programs that CUDA starts along the first axis of a grid."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run as Python, an operation of numpy at a time, which is for tests."""

_WORD = (1 << 32) - 1
_TILES = 2
_LARGEST = 1 << 18  # elements of an interpreted tile; Triton takes 1 << 20


def available(device: torch.device) -> bool:
    """Whether the kernels run there: on GPUs that Triton knows; interpreted, for tests, on CPUs.

    Interpreted means that TRITON_INTERPRET=1 was set when Triton was imported.
    """
    if not _installed():
        return False
    if device.type == "cuda":
        return _known(torch.cuda.current_device() if device.index is None else device.index)
    return device.type == "cpu" and INTERPRETED


def launch(kernel: Any, programs: int, y: Tensor, *arguments: Any, **compiled: Any) -> None:
    """Runs a kernel on the device of y.

    A product and a sum stay two roundings, as on the CPU: a GPU would fuse them into one.
    """
    if programs > GRID:
        raise NotImplementedError(f"expected at most {GRID} tiles; got {programs}")
    if y.is_cuda and y.device.index != torch.cuda.current_device():
        with torch.cuda.device(y.device):
            kernel[(programs,)](*arguments, **compiled, enable_fp_fusion=False)
    else:
        kernel[(programs,)](*arguments, **compiled, enable_fp_fusion=False)


def draw(key: int | Tensor, base: int) -> tuple[Any, int, int, int]:
    """A key and a mask index, as the kernels take them: in words with a sign."""
    if isinstance(key, Tensor):
        return key, 0, signed(base), signed(base >> 32)
    return signed(key), signed(key >> 32), signed(base), signed(base >> 32)


def limits(threshold: int) -> tuple[int, int]:
    """The byte that a threshold begins with, and the 32 bits that refine it."""
    return threshold >> 32, signed(threshold)


def numbers(dtype: torch.dtype, *values: float) -> tuple[Any, ...]:
    """Scalars in the precision that the dtype is computed in: a double travels as its bits."""
    if dtype != torch.float64:
        return values
    return tuple(struct.unpack("<q", struct.pack("<d", value))[0] for value in values)


def refines(threshold: int) -> bool:
    """Whether 8 bits do not decide: not for rates such as 0, 1/4 and 1/2."""
    return bool(threshold & _WORD)


def supported(*tensors: Tensor | None) -> None:
    """Raises where a dtype has no kernel."""
    for x in tensors:
        if x is not None and x.dtype not in FLOATS:
            raise NotImplementedError(f"expected one of {FLOATS}; got {x.dtype}")


def signed(word: int) -> int:
    """The lowest 32 bits as an int32: Triton then never takes it for another type."""
    word &= _WORD
    return word - (1 << 32) if word >> 31 else word


def tiles(count: int, size: int) -> int:
    """How many tiles of a size cover a count."""
    return -(-count // size)


def tile(size: int, count: int) -> int:
    """The elements of a tile, of `count` in all: `size`; interpreted, at least half of all.

    The interpreter takes as long for a tile of 1,000 as for one of 10,000. Up to two tiles it has
    those of a GPU; and of whatever is larger it has two or more.
    """
    if not INTERPRETED:
        return size
    share = max(1, -(-count // _TILES))
    return min(max(size, 1 << (share - 1).bit_length()), max(size, _LARGEST))


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _known(index: int) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(index) >= (7, 0)
