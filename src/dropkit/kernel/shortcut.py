"""The short way to the most common mask: that of a plain tensor, with a C++ kernel.

A mask takes the time of a multiplication, so on small tensors what is spent on the way shows: here
nothing is looked at twice. All else, and all that could be wrong, is left to the long way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.kernel import cpu, native
from dropkit.kernel.autograd import eager
from dropkit.kernel.context import traced, transformed
from dropkit.kernel.dispatch import INTERPRETED
from dropkit.kernel.keys import fresh, in_scope
from dropkit.kernel.mask import WORD64, Key, Mask, inverted, threshold
from dropkit.records import Shard

_OPEN = cpu.NATIVE is not None and not INTERPRETED
_threads = torch.get_num_threads


def plain_dropout(
    x: Tensor,
    p: float | Tensor,
    key: Key | None,
    offset: int | Shard,
    generator: torch.Generator | None,
) -> Tensor | None:
    """Inverted dropout of the elements of x; None: by the long way."""
    if (
        not _OPEN
        or type(x) is not Tensor
        or traced()
        or transformed()
        or type(p) is not float
        or not 0.0 < p < 1.0
        or type(offset) is not int
        or generator is not None
        or not x.is_cpu
        or x.dtype not in native.DTYPES
        or x.layout is not torch.strided
        or not x.is_contiguous()
        or x.is_neg()
    ):
        return None
    if key is None:
        if in_scope():
            return None
        key = fresh()
    elif type(key) is not int or not 0 <= key <= WORD64:
        return None
    if x.requires_grad and torch.is_grad_enabled():
        return eager(x, Mask(key, p, None, offset), inverted(p))
    y = torch.empty_like(x)
    cpu.NATIVE.flat(
        x.data_ptr(), y.data_ptr(), native.DTYPES[x.dtype], x.numel(), offset & WORD64, key,
        threshold(p), inverted(p).scale, 0.0, 0.0, _threads(),
    )  # fmt: skip
    return y
