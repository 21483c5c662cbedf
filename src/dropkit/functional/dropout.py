"""Dropout of elements, and of all that shares an axis: channels, time steps, samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import (
    SCALINGS,
    check_choice,
    check_dropped,
    check_rate,
    check_tensor,
)
from dropkit.functional.sharding import is_sharded, keyed_shard
from dropkit.kernel import Key, Scaling, plain_dropout
from dropkit.records import Shard


def dropout(
    x: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    shared: Sequence[int] = (),
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    r"""Zero each element with probability p, and scale the others so that the mean stays.

    .. math:: y_i = x_i \, m_i / (1 - p), \qquad P(m_i = 0) = p, \qquad m_i = f(key, i)

    `i` is the element's index in the whole tensor, row by row. Device, dtype, strides, threads and
    cuts of a batch do not enter. The realized rate is within 2**-41 of p; nothing is kept for
    backward but the key.

    Args:
        x: a tensor of any shape, float16, bfloat16, float32, float64 or complex.
        p: the fraction dropped, from 0 to 1; or a tensor of rates that broadcasts against x.
        training: if False, x is returned as it is.
        inplace: write the result into x.
        shared: axes along which one draw is shared. Channels of (N, C, H, W) are dropped with
            (2, 3), features over time of (N, T, F) with (1,), whole samples with all but 0.
        key: 64 bits, as an integer or in a tensor, that name the mask: equal keys, equal masks.
        offset: the index of x's first element in the whole tensor, if x is a run of its rows; or
            a `Shard`, if x is a box within it.
        generator: draws the key. Without key and generator, torch's default generator does.
        scaling: "inverted": / (1 - p) in training; "classic": * (1 - p) outside of it.

    Raises:
        SettingError: p outside [0, 1], a key of other than 64 bits, axes that x does not have.
        RuntimeError: integers in x, as torch has it.

    >>> import torch, dropkit.functional as F
    >>> x = torch.ones(2, 6)
    >>> whole = F.dropout(x, 0.5, key=7)
    >>> halves = [F.dropout(x[:1], 0.5, key=7), F.dropout(x[1:], 0.5, key=7, offset=6)]
    >>> torch.equal(whole, torch.cat(halves))
    True

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting". Unlike torch.nn.functional.dropout, a dropped infinity or NaN becomes 0.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            dropout, (x,), x, p=p, training=training, shared=shared, key=key, offset=offset,
            generator=generator, inplace=inplace, scaling=scaling,
        )  # fmt: skip
    alone = type(shared) is tuple and not shared
    plain = training and alone and not inplace and scaling == "inverted"
    if plain and (y := plain_dropout(x, p, key, offset, generator)) is not None:
        return y
    _check(x, p, shared, scaling)
    if (not training and scaling == "inverted") or (not isinstance(p, Tensor) and p == 0):
        return x
    return _dropped(x, p, training, inplace, shared, key, offset, generator, scaling)


def _check(x: Tensor, p: float | Tensor, shared: Sequence[int], scaling: Scaling) -> None:
    check_tensor(x)
    check_rate(p, x)
    kernel.check_axes(shared)
    check_choice("scaling", scaling, SCALINGS)


def _jagged(x: Any, inplace: bool, run: Callable[[Tensor], Tensor]) -> Tensor:
    """A ragged batch: what is dropped are its values."""
    values = run(x.values())
    if inplace:
        return x  # type: ignore[no-any-return]
    result: Tensor = torch.nested.nested_tensor_from_jagged(
        values, x.offsets(), x.lengths(), jagged_dim=x._ragged_idx
    )
    return result


def _dropped(
    x: Tensor,
    p: float | Tensor,
    training: bool,
    inplace: bool,
    shared: Sequence[int],
    key: Key | None,
    offset: int | Shard,
    generator: torch.Generator | None,
    scaling: Scaling,
) -> Tensor:
    if x.layout is torch.jagged and not shared:
        return _jagged(x, inplace, lambda values: _dropped(
            values, p, training, inplace, shared, key, offset, generator, scaling
        ))  # fmt: skip
    check_dropped(x)
    if not training:
        return _evaluated(x, p, inplace)
    if is_sharded(x):
        if offset != 0:
            raise SettingError("offset: expected none for a DTensor, which knows its own; got one")
        y = keyed_shard(
            x, key, generator, lambda part, drawn, place: kernel.dropout(
                part, p, key=drawn, shared=shared, offset=place, scaling=scaling
            )
        )  # fmt: skip
        return x.copy_(y) if inplace else y
    key = kernel.resolve_key(key, generator, x)
    return kernel.dropout(
        x, p, key=key, shared=shared, offset=offset, scaling=scaling, inplace=inplace
    )


def _evaluated(x: Tensor, p: float | Tensor, inplace: bool) -> Tensor:
    """Classic dropout outside of training: the mean of its masks."""
    keep = 1.0 - (p.to(x.dtype) if isinstance(p, Tensor) else p)
    return x.mul_(keep) if inplace else x * keep
