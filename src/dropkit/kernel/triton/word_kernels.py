"""The GPU kernel for raw words and uniform draws. Imported only where Triton is."""
# mypy: ignore-errors
# Triton reads these functions as its own language, whose types are not Python's.

import triton
import triton.language as tl

from dropkit.kernel.triton.bits import held, joined, philox, picked


@triton.jit(do_not_specialize=("n", "lead", "key", "key_high", "base", "base_high"))
def word_kernel(
    y, n, lead, key, key_high, base, base_high,
    DOMAIN: tl.constexpr, SKEW: tl.constexpr, HELD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The words of consecutive indices: raw where y has integers, else numbers from [0, 1).

    A row of the tile is a block, and 16 bytes of y: one thread draws it and writes it.
    Tiles begin at multiples of 4 of the mask index; the first has `lead` elements before y.
    """
    k0, k1 = held(key, key_high, HELD)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if SKEW:
        start -= lead
    rows = tl.arange(0, BLOCK // 4)
    index = joined(base, base_high) + start.to(tl.uint64) + rows.to(tl.uint64) * 4
    a, b, c, d = philox(index >> 2, DOMAIN, k0, k1)
    which = tl.arange(0, 4)[None, :]
    word = picked(a[:, None], b[:, None], c[:, None], d[:, None], which)
    if y.dtype.element_ty == tl.float64:
        word = word.to(tl.float64) * 2.3283064365386963e-10
    elif y.dtype.element_ty == tl.float32:
        word = (word >> 8).to(tl.float32) * 5.960464477539063e-08
    within = rows[:, None] * 4 + which
    if (start >= 0) & (start + BLOCK <= n):
        tl.store(y + start + within, word.to(y.dtype.element_ty))
    else:
        at = start + within
        tl.store(y + at, word.to(y.dtype.element_ty), mask=(at >= 0) & (at < n))
