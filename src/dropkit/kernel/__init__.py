"""Random bits as a function of a key and an index; the only room that draws them.

mask[i] = f(key, i): nothing else enters. The values given here have been checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit.errors import SettingError
from dropkit.kernel import autograd, dispatch, fused, operators, reference
from dropkit.kernel.autograd import diagonal, redrawn
from dropkit.kernel.context import check_one_mask, drawn_on, recorded, traced, transformed
from dropkit.kernel.fused import ACTIVATIONS, Activation, activated
from dropkit.kernel.indexing import check_axes, indexing, mask_sizes, mask_strides
from dropkit.kernel.keys import (
    check_key,
    derive,
    derive_on,
    draw_key,
    fresh,
    in_scope,
    in_traced_scope,
    keyed,
    replayed_keys,
    seed_others,
    seed_torch,
    split,
)
from dropkit.kernel.mask import WORD64, Affine, Key, Mask, inverted, signed
from dropkit.kernel.shortcut import plain_dropout
from dropkit.kernel.streams import Stream
from dropkit.records import Shard

Scaling = Literal["inverted", "classic"]

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Affine",
    "Key",
    "Scaling",
    "Stream",
    "activated",
    "activation_dropout",
    "check_axes",
    "check_key",
    "check_rates",
    "derive",
    "derive_on",
    "diagonal",
    "draw_key",
    "dropout",
    "dropout_add",
    "fresh",
    "keep",
    "keyed",
    "normal",
    "plain_dropout",
    "readable",
    "redrawn",
    "replayed_keys",
    "resolve_key",
    "seed_others",
    "seed_torch",
    "signed",
    "split",
    "subset",
    "uniform",
]


def dropout(
    x: Tensor,
    rate: float | Tensor,
    *,
    key: Key,
    shared: Sequence[int] = (),
    offset: int | Shard = 0,
    scaling: Scaling = "inverted",
    affine: Affine | None = None,
    inplace: bool = False,
) -> Tensor:
    """x with a fraction `rate` dropped; differentiable to any order, and nothing is kept for it.

    `affine` says what becomes of the kept and of the dropped, in place of a scaling; it needs a
    rate that is a number.
    """
    whole = not shared and type(offset) is int and offset == 0
    mask = Mask(key, rate) if whole else Mask(key, rate, *indexing(x.shape, shared, offset))
    if x.is_complex():  # a number is dropped as a whole
        return _complex(x, mask, scaling, inplace)
    return _dropout(x, mask, affine or _affine(rate, scaling), inplace)


def _affine(rate: float | Tensor, scaling: Scaling) -> Affine:
    return inverted(rate) if scaling == "inverted" else Affine(1.0)


def _dropout(x: Tensor, mask: Mask, affine: Affine, inplace: bool) -> Tensor:
    return (autograd.dropout_ if inplace else autograd.dropout)(x, mask, affine)


def _complex(x: Tensor, mask: Mask, scaling: Scaling, inplace: bool) -> Tensor:
    strides = mask.strides or mask_strides(x.shape, frozenset())
    rate = mask.rate.unsqueeze(-1) if isinstance(mask.rate, Tensor) else mask.rate
    mask = mask._replace(rate=rate, strides=(*strides, 0))
    y = _dropout(torch.view_as_real(x.resolve_conj()), mask, _affine(rate, scaling), inplace=False)
    return x.copy_(torch.view_as_complex(y)) if inplace else torch.view_as_complex(y)


def activation_dropout(
    x: Tensor, activation: Activation, rate: float, *, key: Key, offset: int | Shard = 0
) -> Tensor:
    """dropout(activation(x))."""
    mask = Mask(key, rate, *indexing(x.shape, (), offset))
    return fused.activation_dropout(x, activation, mask, inverted(rate))


def dropout_add(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    rate: float,
    *,
    key: Key,
    offset: int | Shard = 0,
) -> Tensor:
    """residual + dropout(x + bias)."""
    mask = Mask(key, rate, *indexing(x.shape, (), offset))
    return fused.dropout_add(x, bias, residual, mask, inverted(rate))


def keep(
    sizes: Sequence[int],
    rate: float | Tensor,
    *,
    key: Key,
    shared: Sequence[int] = (),
    offset: int | Shard = 0,
    device: torch.device,
) -> Tensor:
    """Booleans, True where kept: of `sizes`, but 1 along shared axes (if the rate is a number)."""
    strides, base = indexing(sizes, shared, offset)
    if not isinstance(rate, Tensor):
        sizes = mask_sizes(sizes, shared)
    if drawn_on(device):
        operators.check_recordable(*sizes, *(strides or ()))
        number, rates = autograd.split(rate)
        of = operators.tensor_key(key, device)
        kept: Tensor = operators.keep_op(of, number, rates, sizes, strides, signed(base))
        return kept
    return dispatch.keep(Mask(key, rate, strides, base), sizes, device)


def uniform(
    sizes: Sequence[int],
    *,
    key: Key,
    shared: Sequence[int] = (),
    offset: int | Shard = 0,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draws from [0, 1): of `sizes`, but 1 along shared axes."""
    return reference.uniform(_words(sizes, key, shared, offset, device), dtype)


def normal(
    sizes: Sequence[int],
    *,
    key: Key,
    shared: Sequence[int] = (),
    offset: int | Shard = 0,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal draws: of `sizes`, but 1 along shared axes."""
    drawn, strides, base = mask_sizes(sizes, shared), *indexing(sizes, shared, offset)
    if not _is_run(drawn, strides):
        index = reference.indices(drawn, strides, base, device)
        even = index & ~1
        pairs = torch.stack([_words_at(even + step, key) for step in (0, 1)], -1)
        both = reference.normal(pairs, dtype)
        return torch.where((index & 1).bool(), both[..., 1], both[..., 0])
    count, lead = math.prod(drawn), base & 1  # pairs begin at even indices
    run = _run((lead + count + 1) // 2 * 2, base - lead, key, device)
    return reference.normal(run.view(-1, 2), dtype).view(-1)[lead : lead + count].view(drawn)


def subset(rows: int, count: int, keep: int, *, key: Key, device: torch.device) -> Tensor:
    """For each row, `keep` of the numbers below `count`, sorted; all subsets as likely."""
    words = _words((rows, count, 2), key, (), 0, device)
    return reference.joined(words).argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values


def check_rates(rates: Tensor) -> None:
    """Rates are from 0 to 1; where their values cannot be read yet, the operator looks later."""
    if readable(rates):
        operators.check_rates(rates)


def readable(x: Tensor) -> bool:
    """Whether its values are there, and reading them makes nobody wait."""
    return x.is_cpu and not (traced(x) or transformed())


def resolve_key(
    key: Key | None, generator: torch.Generator | None, of: Tensor | torch.device
) -> Key:
    """The key that a caller gave, or a fresh one for a tensor or a device."""
    if key is not None:
        if generator is not None:
            raise SettingError(
                "expected a key, or a generator to draw one from; got both. Try giving one of them"
            )
        key = check_key(key)
        if isinstance(key, Tensor) and not (traced(key) or transformed()):
            return int(key) & WORD64 if key.is_cpu else key.clone()  # its owner may change it
        return key
    x, device = (of, of.device) if isinstance(of, Tensor) else (None, of)
    if generator is not None:
        return draw_key(device, generator)
    # An operator of torch, so that vmap's randomness decides, and a traced program draws each time.
    if transformed() or recorded():
        if in_scope():
            check_one_mask()
            return draw_key(device)
        return torch.randint(-(1 << 63), (1 << 63) - 1, (), dtype=torch.int64, device=device)
    # A compiler sees no scope: the operator asks for it when the program runs.
    if traced(x) and (is_dynamo_compiling() or not in_traced_scope()):
        slot = torch.empty((), dtype=torch.int64, device=device)
        drawn: Tensor = operators.draw_key_op(slot)
        return drawn
    return draw_key(device)


def _words(
    sizes: Sequence[int],
    key: Key,
    shared: Sequence[int],
    offset: int | Shard,
    device: torch.device,
) -> Tensor:
    """32 random bits for each element, in int64."""
    drawn, strides, base = mask_sizes(sizes, shared), *indexing(sizes, shared, offset)
    if _is_run(drawn, strides):
        return _run(math.prod(drawn), base, key, device).view(drawn)
    return _words_at(reference.indices(drawn, strides, base, device), key)


def _is_run(sizes: Sequence[int], strides: Sequence[int] | None) -> bool:
    """Whether the elements have consecutive indices."""
    if strides is None:
        return True
    dense = mask_strides(sizes, frozenset())
    return all(a == b or size == 1 for a, b, size in zip(strides, dense, sizes, strict=True))


def _run(count: int, base: int, key: Key, device: torch.device) -> Tensor:
    bits: Tensor
    if drawn_on(device):
        bits = operators.words_op(operators.tensor_key(key, device), count, signed(base))
    else:
        bits = dispatch.words(count, base, key, device)
    return reference.unsigned(bits)


def _words_at(index: Tensor, key: Key) -> Tensor:
    return reference.words(index, key if isinstance(key, Tensor) else signed(key))
