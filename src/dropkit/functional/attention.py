"""Scaled dot-product attention whose dropout keeps nothing of the size of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional import blockwise
from dropkit.functional.blockwise import Law
from dropkit.functional.checks import broadcasts, check_rate
from dropkit.functional.dropout import dropout
from dropkit.kernel import Key
from dropkit.kernel.context import rewritten, transformed
from dropkit.records import Shard


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    training: bool = True,
    dropout_key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Attend to values, with a fraction `dropout_p` of the attention weights dropped.

    .. math:: O = \big( m \odot \mathrm{softmax}(s \, Q K^T + b) / (1 - p) \big) V,
        \qquad P(m_{ls} = 0) = p

    The mask index of a weight is its place in the whole (..., L, S), row by row. Blocks of rows are
    worked on one after another, and again in backward, for which the inputs and the key are kept,
    and weights only where all of them are smaller than the inputs. Half types are computed in
    float32. Without dropout this is torch's own function.

    Args:
        query, key, value: (..., Hq, L, E), (..., H, S, E) and (..., H, S, Ev).
        attn_mask: broadcasts to (..., L, S); booleans, True where a query may attend, or numbers
            added to the scores. A row that may attend to nothing gives zeros.
        dropout_p: the fraction dropped, from 0 to 1.
        is_causal: the l-th query attends to the first l + 1 keys; excludes `attn_mask`.
        scale: what scores are multiplied by; 1 / sqrt(E) if not given.
        enable_gqa: every Hq / H query heads share a head of keys and values.
        training, dropout_key, offset, generator: as in `dropout`; the whole is that of the weights.

    Raises:
        SettingError: a rate outside [0, 1]. RuntimeError: tensors that do not fit together.

    >>> import torch, dropkit.functional as F
    >>> q, k, v = torch.randn(3, 2, 5, 8).unbind()
    >>> weights = (q @ k.mT / 8**0.5).softmax(-1)
    >>> out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, dropout_key=7)
    >>> torch.allclose(out, F.dropout(weights, 0.1, key=7) @ v, atol=1e-6)
    True

    Source: Vaswani et al. 2017, "Attention Is All You Need"; blocks: Rabe & Staats 2021. Unlike
    torch's, the same weights are dropped whichever implementation runs.
    """
    tensors = (query, key, value)
    if has_torch_function(tensors):
        own = {"dropout_key": dropout_key, "offset": offset, "generator": generator}
        options = (attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return _overridden(tensors, *tensors, *options, training=training, **own)
    check_rate(dropout_p)
    if not training or dropout_p == 0:
        rest: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
        return functional.scaled_dot_product_attention(*tensors, attn_mask, 0.0, is_causal, **rest)
    drawn = kernel.resolve_key(dropout_key, generator, query)
    law = Law(dropout_p, is_causal, _scale(scale, query), drawn, offset)
    return _dropped(query, key, value, attn_mask, law, enable_gqa)


def _scale(scale: float | None, query: Tensor) -> float:
    return 1 / math.sqrt(query.size(-1)) if scale is None else scale


def _overridden(tensors: tuple[Tensor, ...], *args: Any, **options: Any) -> Tensor:
    """What a mode, or a class of tensors of its own, makes of it."""
    result: Tensor = handle_torch_function(scaled_dot_product_attention, tensors, *args, **options)
    return result


def _dropped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, law: Law, shared: bool
) -> Tensor:
    """Attention with dropout: in blocks, or as the formula where somebody looks on."""
    query, key, value = _checked(query, key, value, mask, law.causal)
    with _uncast(query):
        if shared:
            key, value = (_repeated(part, query.size(-3)) for part in (key, value))
        inputs, formula = (query, key, value, mask), partial(composed, law=law)
        result = blockwise.attention(inputs, law, formula) if _is_plain(*inputs) else None
        return formula(*inputs) if result is None else result


def composed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    law: Law,
) -> Tensor:
    """The formula, in operators that a compiler, a transform or a sharded tensor sees through."""
    q, k, v = (
        part if part.dtype == torch.float64 else part.float() for part in (query, key, value)
    )
    scores = (q @ k.mT) * law.scale
    if law.causal:
        bias = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    drop = partial(dropout, p=law.rate, key=law.key, offset=law.offset)
    if bias is None:
        return (drop(scores.softmax(-1)) @ v).to(query.dtype)
    closed = bias.dtype == torch.bool
    scores = scores.masked_fill(~bias, -torch.inf) if closed else scores + bias.to(scores.dtype)
    dead = (scores == -torch.inf).all(-1, keepdim=True)  # rows that may attend to nothing
    weights = scores.masked_fill(dead, 0.0).softmax(-1).masked_fill(dead, 0.0)
    return (drop(weights) @ v).to(query.dtype)


def _is_plain(*tensors: Tensor | None) -> bool:
    """Whether nobody looks on who would have to see derivatives made of operators."""
    return not (transformed() or any(part is not None and rewritten(part) for part in tensors))


def _checked(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors in the type that they are computed from, if they fit together."""
    if mask is not None and causal:
        raise RuntimeError(
            "scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
        )
    if _is_cast(query) and query.dtype != torch.float64:
        low = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(low), key.to(low), value.to(low)
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise RuntimeError(
            "Expected query, key, and value to have the same floating-point dtype, but got "
            f"query.dtype: {query.dtype}, key.dtype: {key.dtype}, and value.dtype: {value.dtype}"
        )
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be at least 2 dimensional, but got "
            f"{query.dim()}, {key.dim()} and {value.dim()} dimensions"
        )
    if key.size(-2) != value.size(-2):
        raise RuntimeError(
            f"Expected as many keys as values, but got {key.size(-2)} and {value.size(-2)}"
        )
    if mask is not None:
        _check_mask(mask, query, (*query.shape[:-1], key.size(-2)))
    return query, key, value


def _check_mask(mask: Tensor, query: Tensor, sizes: Sequence[int]) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or floating point, but got attn_mask.dtype: "
            f"{mask.dtype} and query.dtype: {query.dtype}"
        )
    if not broadcasts(mask.shape, sizes):
        raise RuntimeError(
            f"Expected attn_mask of a shape that broadcasts to {tuple(sizes)}, but got "
            f"{tuple(mask.shape)}"
        )


def _uncast(x: Tensor) -> AbstractContextManager[object]:
    """Out of autocast: what is computed in float32 stays so."""
    return torch.autocast(x.device.type, enabled=False) if _is_cast(x) else nullcontext()


def _is_cast(x: Tensor) -> bool:
    """Whether autocast is in force where x is."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _repeated(part: Tensor, heads: int) -> Tensor:
    """Heads of keys or values, each as often as queries share it."""
    if part.dim() < 3 or heads % part.size(-3):
        raise SettingError(
            "enable_gqa: expected a number of query heads that is a multiple of the heads of keys "
            f"and values; got {heads} and {part.size(-3) if part.dim() > 2 else 1}"
        )
    return part.repeat_interleave(heads // part.size(-3), -3)
