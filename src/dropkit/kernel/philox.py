"""Philox4x32-10 in plain torch: 128 random bits as a function of a counter and a key.

Salmon, Moraes, Dror & Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3". Words are 32 bits
in int64 tensors, so that the same lines run on every device.
"""

from __future__ import annotations

from torch import Tensor

WORD = (1 << 32) - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def halves(value: int | Tensor) -> tuple[int | Tensor, int | Tensor]:
    """The low and the high 32 bits of 64."""
    return value & WORD, (value >> 32) & WORD


def philox(block: Tensor, key: int | Tensor, domain: int) -> Words:
    """The four words of each block of a domain: counter (low, high, 0, domain).

    `block`: int64, read as 64 bits without a sign. `key`: 64 bits.

    >>> import torch
    >>> [f"{int(word):08x}" for word in philox(torch.tensor(0), 0, 0)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    low, high = block & WORD, (block >> 32) & WORD
    return rounds((low, high, low & 0, (low & 0) + domain), *halves(key))


def rounds(counter: Words, key0: int | Tensor, key1: int | Tensor) -> Words:
    """The ten rounds on any counter and key."""
    a, b, c, d = counter
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # wrapping: the 64 bits are right
        a, b = ((right >> 32) & WORD) ^ b ^ key0, right & WORD
        c, d = ((left >> 32) & WORD) ^ d ^ key1, left & WORD
        key0, key1 = (key0 + _WEYL[0]) & WORD, (key1 + _WEYL[1]) & WORD
    return a, b, c, d
