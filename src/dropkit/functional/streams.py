"""Several streams from one key, wherever the key is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel import Key, derive
from dropkit.kernel.keys import check_key
from dropkit.kernel.mask import WORD64, signed

_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # as `derive` has them


def split(key: Key, count: int) -> tuple[Key, ...]:
    """Make `count` keys of one: `derive(key, n)` for n = 0, 1, ....

    A key in a tensor stays on its device, where the same arithmetic makes the same keys.

    Args:
        key: 64 bits, as an integer or in a tensor.
        count: how many keys.

    Raises:
        SettingError: a key of other than 64 bits, a negative count.

    >>> import torch, dropkit.functional as F
    >>> F.split(7, 2) == (F.derive(7, 0), F.derive(7, 1))
    True
    >>> [int(key) % 2**64 for key in F.split(torch.tensor(7), 2)] == list(F.split(7, 2))
    True

    Source: the finalizer of SplitMix64, Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom
    Number Generators".
    """
    if count < 0:
        raise SettingError(f"count: expected the number of keys, 0 or more; got {count}")
    key = check_key(key)
    if not isinstance(key, Tensor):
        return tuple(derive(key, n) for n in range(count))
    numbers = torch.arange(count, dtype=torch.int64, device=key.device)
    return _mixed(_mixed(key) ^ numbers).unbind()


def _mixed(state: Tensor) -> Tensor:
    """A step of `derive`, in int64, which wraps as 64 bits without a sign do."""
    state = state + signed(_MIX[0])
    for shift, factor in ((30, _MIX[1]), (27, _MIX[2])):
        state = (state ^ _shifted(state, shift)) * signed(factor)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & (WORD64 >> bits)
