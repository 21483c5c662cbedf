"""The kernels as operators of torch.

What torch.compile, torch.export and fake tensors see of dropkit is here: opaque operators with fake
implementations and derivatives. Eager code on plain tensors takes a shorter way (autograd.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel import dispatch
from dropkit.kernel.indexing import mask_strides
from dropkit.kernel.keys import draw_key
from dropkit.kernel.mask import Affine, Key, Mask, signed

_library: Any = torch.library.Library("dropkit", "DEF")  # type: ignore[no-untyped-call]
_NATURE = "CompositeExplicitAutograd"


def _define(schema: str, kernel: Any, fake: Any, *tags: torch.Tag) -> Any:
    """An operator of torch, which runs `kernel` on every device."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    _library.impl(name, kernel, _NATURE)
    torch.library.register_fake(f"dropkit::{name}", fake, lib=_library)
    return getattr(torch.ops.dropkit, name).default


def tensor_key(key: Key, device: torch.device) -> Tensor:
    """A key as an operator takes it."""
    if isinstance(key, Tensor):
        return key.to(device)
    return torch.tensor(signed(key), dtype=torch.int64, device=device)


def check_recordable(*numbers: object) -> None:
    """Numbers that torch.jit.trace follows are tensors to it, which no operator takes for sizes."""
    if any(isinstance(number, Tensor) for number in numbers):
        raise SettingError(
            "expected a program that torch.jit.trace can record; got a mask that depends on the "
            "sizes of its input. Try torch.export.export, or to trace the model in eval mode"
        )


def check_rates(rates: Tensor) -> None:
    """Rates are from 0 to 1; on a GPU, where reading them would make the host wait, unchecked."""
    if rates.is_cpu and not bool(((rates >= 0) & (rates <= 1)).all()):
        raise SettingError(
            "dropout probability has to be between 0 and 1, but got "
            f"{rates.min():g} to {rates.max():g}"
        )


def _rate(rate: float, rates: Tensor | None) -> float | Tensor:
    if rates is None:
        return rate
    check_rates(rates)
    return rates


def _draw_key(slot: Tensor) -> Tensor:
    return tensor_key(draw_key(slot.device), slot.device)


draw_key_op = _define(
    # A slot of its own, from torch.empty, keeps two draws from being taken for one.
    "draw_key(Tensor slot) -> Tensor",
    _draw_key,
    torch.empty_like,
    torch.Tag.nondeterministic_seeded,
)


def _dropout(
    x: Tensor,
    key: Tensor,
    rate: float,
    rates: Tensor | None,
    scale: float | None,
    shift: float,
    fill: float,
    strides: Sequence[int] | None,
    base: int,
) -> Tensor:
    law = _rate(rate, rates)
    index = None if strides is None else tuple(strides)
    return dispatch.dropout(x, Mask(key, law, index, base), Affine(scale, shift, fill))


dropout_op = _define(
    "dropout(Tensor x, Tensor key, float rate, Tensor? rates, float? scale, float shift,"
    " float fill, SymInt[]? strides, SymInt base) -> Tensor",
    _dropout,
    lambda x, *_: torch.empty_like(x),
)


def _keep(
    key: Tensor,
    rate: float,
    rates: Tensor | None,
    sizes: Sequence[int],
    strides: Sequence[int] | None,
    base: int,
) -> Tensor:
    law = _rate(rate, rates)
    index = None if strides is None else tuple(strides)
    return dispatch.keep(Mask(key, law, index, base), tuple(sizes), key.device)


keep_op = _define(
    "keep(Tensor key, float rate, Tensor? rates, SymInt[] sizes, SymInt[]? strides, SymInt base)"
    " -> Tensor",
    _keep,
    lambda key, rate, rates, sizes, *_: key.new_empty(sizes, dtype=torch.bool),
)

words_op = _define(
    "words(Tensor key, SymInt count, SymInt base) -> Tensor",
    lambda key, count, base: dispatch.words(count, base, key, key.device),
    lambda key, count, base: key.new_empty(count, dtype=torch.int32),
)


# ---- derivatives: dropout is linear in x, so each of them is the same operator on what comes


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.key, ctx.rate, rates, ctx.scale, _, _, ctx.strides, ctx.base = inputs
    # As many tensors as on the short way, which a checkpoint may take when it runs this again.
    ctx.save_for_backward(*[] if rates is None else [rates])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rates = ctx.saved_tensors[0] if ctx.saved_tensors else None
    x = dropout_op(grad, ctx.key, ctx.rate, rates, ctx.scale, 0.0, 0.0, ctx.strides, ctx.base)
    return x, *[None] * 8


torch.library.register_autograd("dropkit::dropout", _backward, setup_context=_save, lib=_library)


def over_batch(
    run: Callable[[Tensor, Tensor, Tensor | None, Sequence[int] | None], Tensor],
    size: int,
    dims: Sequence[int | None],
    x: Tensor,
    key: Tensor,
    rates: Tensor | None,
    strides: Sequence[int] | None,
) -> tuple[Tensor, int]:
    """`run` for vmap: one launch with one mask for the whole batch, or one for each key of it."""
    x_dim, key_dim, rates_dim = dims
    if key_dim is not None:
        each = [
            run(_member(x, x_dim, n), key.select(key_dim, n), _member(rates, rates_dim, n), strides)
            for n in range(size)
        ]
        return torch.stack(each), 0
    x = x.unsqueeze(0).expand(size, *x.shape) if x_dim is None else x.movedim(x_dim, 0)
    if rates is not None and rates_dim is not None:
        rates = rates.movedim(rates_dim, 0)
        rates = rates.reshape(size, *[1] * (x.dim() - rates.dim()), *rates.shape[1:])
    if strides is None:
        strides = mask_strides(x.shape[1:], frozenset())
    return run(x, key, rates, (0, *strides)), 0


def _member(of: Any, dim: int | None, number: int) -> Any:
    return of if of is None or dim is None else of.select(dim, number)


def _vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
    x, key, rate, rates, *affine, strides, base = inputs

    def run(x: Tensor, key: Tensor, rates: Tensor | None, strides: Any) -> Tensor:
        result: Tensor = dropout_op(x, key, rate, rates, *affine, strides, base)
        return result

    dims = (in_dims[0], in_dims[1], in_dims[3])
    return over_batch(run, info.batch_size, dims, x, key, rates, strides)


torch.library.register_vmap("dropkit::dropout", _vmap, lib=_library)


def _for_each_key(operator: Any, rates_at: int | None) -> Any:
    """vmap of an operator that only draws: once for each key."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        def member(number: int) -> Tensor:
            drawn: Tensor = operator(
                *(
                    _member(value, dim, number) if at in (0, rates_at) else value
                    for at, (value, dim) in enumerate(zip(inputs, in_dims, strict=True))
                )
            )
            return drawn

        return torch.stack([member(number) for number in range(info.batch_size)]), 0

    return rule


torch.library.register_vmap("dropkit::keep", _for_each_key(keep_op, 2), lib=_library)
torch.library.register_vmap("dropkit::words", _for_each_key(words_op, None), lib=_library)
