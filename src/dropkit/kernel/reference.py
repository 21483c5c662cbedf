"""Every law in plain torch, on any device: the oracle of the kernels, and what runs without them.

The bit stream, in full: docs/bitstream.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dropkit.kernel.indexing import mask_strides
from dropkit.kernel.mask import (
    ONE,
    Affine,
    Key,
    Mask,
    plain_scale,
    scales,
    signed,
    threshold,
    thresholds,
)
from dropkit.kernel.philox import WORD, philox

BYTES, REFINEMENTS, WORDS = range(3)
"""The domains of a key: what its counters are drawn for."""


def dropout(x: Tensor, mask: Mask, affine: Affine) -> Tensor:
    """`affine` of the elements that the mask keeps, its fill for those that it drops."""
    wide = x if x.dtype == torch.float64 else x.float()
    if isinstance(mask.rate, Tensor):
        wide = wide * scales(mask.rate, affine).to(wide)
    else:
        wide = wide * plain_scale(affine) + affine.shift
    return torch.where(keep(mask, x.shape, x.device), wide, affine.fill).to(x.dtype)


def keep(mask: Mask, sizes: Sequence[int], device: torch.device) -> Tensor:
    """Booleans of `sizes`: True where the mask keeps."""
    key = _key(mask.key, device)
    limit: int | Tensor
    if isinstance(mask.rate, Tensor):
        limit = thresholds(mask.rate.to(device)).expand(tuple(sizes))
    else:
        limit = threshold(mask.rate)
        if limit in (0, ONE):
            return torch.full(tuple(sizes), limit == 0, device=device)
    index = indices(sizes, mask.strides, mask.base, device)
    byte, first = _bytes(index, key, mask), limit >> 32
    kept = byte >= first
    unsure = byte == first
    last = limit[unsure] & WORD if isinstance(limit, Tensor) else limit & WORD
    kept[unsure] = words(index[unsure], key, REFINEMENTS) >= last
    return kept.expand(tuple(sizes))


def indices(
    sizes: Sequence[int], strides: Sequence[int] | None, base: int, device: torch.device
) -> Tensor:
    """The mask index of each element, as int64 (modulo 2**64)."""
    if strides is None:
        strides = mask_strides(sizes, frozenset())
    index = torch.full((), signed(base), dtype=torch.int64, device=device)
    for size, stride in zip(sizes, strides, strict=True):
        step = torch.arange(size, device=device) * signed(stride)
        index = index.unsqueeze(-1) + step
    return index


def words(index: Tensor, key: Key, domain: int = WORDS) -> Tensor:
    """32 random bits for each mask index, in int64."""
    return _pick(philox(_quotient(index, 2), key, domain), index & 3)


def unsigned(words: Tensor) -> Tensor:
    """Words that came as int32, in int64."""
    return words.to(torch.int64) & WORD


def joined(pairs: Tensor) -> Tensor:
    """Pairs of words, along the last axis, as numbers of 63 bits."""
    return (pairs[..., 0] << 31) ^ (pairs[..., 1] >> 1)


def uniform(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Words as numbers from [0, 1), in steps of 2**-24 (float64: 2**-32)."""
    if dtype == torch.float64:
        return bits.double() * 2.0**-32
    return ((bits >> 8).float() * 2.0**-24).to(dtype)


def normal(pairs: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pairs of words, along the last axis, as pairs of standard normal draws.

    Box & Muller 1958: a radius from the first word; the cosine and the sine of the second.
    """
    wide = dtype if dtype == torch.float64 else torch.float32
    first, second = pairs.to(wide).unbind(-1)
    radius = ((first + 0.5) * 2.0**-32).log().mul(-2.0).sqrt()
    angle = second * (2.0**-32 * 2.0 * math.pi)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).to(dtype)


def _bytes(index: Tensor, key: Key, mask: Mask) -> Tensor:
    """8 random bits for each mask index; a run of indices costs one block for sixteen."""
    if mask.strides is None and index.numel():
        first = _quotient(index.reshape(-1)[0], 4)
        count = (index.numel() + 30) // 16 + 1
        block = (first + torch.arange(count, device=index.device)) & ((1 << 60) - 1)
        table = torch.stack(philox(block, key, BYTES), -1).unsqueeze(-1)
        shifts = torch.arange(0, 32, 8, device=index.device)
        run = ((table >> shifts) & 0xFF).reshape(-1)
        lead = int(index.reshape(-1)[0] & 15)
        return run[lead : lead + index.numel()].view(index.shape)
    word = _pick(philox(_quotient(index, 4), key, BYTES), (index >> 2) & 3)
    return (word >> ((index & 3) * 8)) & 0xFF


def _quotient(index: Tensor, bits: int) -> Tensor:
    """The block that an index lies in; the index has no sign."""
    return (index >> bits) & ((1 << (64 - bits)) - 1)


def _pick(four: Sequence[Tensor], which: Tensor) -> Tensor:
    low = torch.where(which == 1, four[1], four[0])
    high = torch.where(which == 3, four[3], four[2])
    return torch.where(which < 2, low, high)


def _key(key: Key, device: torch.device) -> Key:
    return key.to(device) if isinstance(key, Tensor) else signed(key)
