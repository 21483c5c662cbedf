"""Zoneout: units of a recurrent state that keep their previous value."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_dropped, check_rate
from dropkit.kernel import Affine, Key
from dropkit.records import Shard

_MASK = Affine(1.0)  # kept as it is; dropped to 0


def zoneout(
    new: Tensor,
    old: Tensor,
    p: float | Tensor = 0.1,
    training: bool = True,
    *,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Let each unit keep its previous value with probability p.

    .. math:: h_i = m_i \, new_i + (1 - m_i) \, old_i, \qquad P(m_i = 0) = p

    Outside of training, the expectation (1 - p) new + p old. A unit has one of both values
    exactly; nothing is kept for backward but the key.

    Args:
        new: the state that the cell computed, floating point, of any shape.
        old: the state before, of the same shape.
        p: the fraction of units that keep the old value, from 0 to 1; or a tensor of rates.
        training: if False, the expectation is returned.
        key, offset, generator: as in `dropout`; of two steps with one key, both zone out the
            same units.

    Raises:
        SettingError: p outside [0, 1]; shapes that differ.

    >>> import torch, dropkit.functional as F
    >>> F.zoneout(torch.ones(6), torch.zeros(6), 0.5, key=1)
    tensor([0., 0., 1., 1., 1., 0.])
    >>> F.zoneout(torch.ones(2), torch.zeros(2), 0.25, training=False)
    tensor([0.7500, 0.7500])

    Source: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
    Activations".
    """
    check_rate(p, new)
    if old.shape != new.shape:
        raise SettingError(f"old: expected new's shape, {tuple(new.shape)}; got {tuple(old.shape)}")
    check_dropped(new)
    if new.is_complex():
        raise SettingError("new: expected real numbers; got complex ones")
    if not isinstance(p, Tensor) and p == 0:
        return new
    if not training:
        p = p.to(new.dtype) if isinstance(p, Tensor) else p
        return _part(new, 1.0 - p) + _part(old, p)
    key = kernel.resolve_key(key, generator, new)

    def kept_old(value: Tensor) -> Tensor:
        kept = kernel.keep(value.shape, p, key=key, offset=offset, device=value.device)
        return value.masked_fill(kept, 0.0)

    fresh = kernel.dropout(new, p, key=key, offset=offset, affine=_MASK)
    return fresh + kernel.diagonal(old, kept_old)


def _part(x: Tensor, share: float | Tensor) -> Tensor:
    """A share of x; no share of an infinity is 0."""
    if isinstance(share, Tensor):
        return (x * share).masked_fill(share == 0, 0.0)
    return x * share if share else x.masked_fill(torch.ones_like(x, dtype=torch.bool), 0.0)
