"""The GPU kernel for any strides and rates. Imported only where Triton is."""
# mypy: ignore-errors
# Triton reads these functions as its own language, whose types are not Python's.

import triton
import triton.language as tl

from dropkit.kernel.triton.bits import held, joined, kept_blocks, kept_each, places
from dropkit.kernel.triton.flat_kernels import DRAW, narrowed, number, widened


@triton.jit
def along(line, n1, n2, n3, n4, s0, s1, s2, s3, s4, RANK: tl.constexpr):
    """How far the coordinates of a line's number move, axis 4 the fastest: their sum by strides."""
    far = tl.zeros_like(line).to(tl.int64)
    if RANK > 1:
        far += (line % n4 if RANK > 2 else line).to(tl.int64) * s4
    if RANK > 2:
        line = line // n4
        far += (line % n3 if RANK > 3 else line).to(tl.int64) * s3
    if RANK > 3:
        line = line // n3
        far += (line % n2 if RANK > 4 else line).to(tl.int64) * s2
    if RANK > 4:
        line = line // n2
        far += (line % n1 if RANK > 5 else line).to(tl.int64) * s1
    if RANK > 5:
        far += (line // n1).to(tl.int64) * s0
    return far


@triton.jit(do_not_specialize=("m0", "m1", "m2", "m3", "m4", "m5", *DRAW))
def strided_kernel(
    x, y, thresholds, scales, lines, n1, n2, n3, n4, n5,
    x0, x1, x2, x3, x4, x5, y0, y1, y2, y3, y4, y5,
    m0, m1, m2, m3, m4, m5, r0, r1, r2, r3, r4, r5,
    key, key_high, base, base_high, high, low, scale, shift, fill,
    DRAWS: tl.constexpr, RANK: tl.constexpr, LOADED: tl.constexpr, SCALED: tl.constexpr,
    SHIFT: tl.constexpr, REFINE: tl.constexpr, WIDE: tl.constexpr, HELD: tl.constexpr,
    LARGE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Axis 5 is walked along; axes 0 to 4, of which RANK - 1 are in use, number the `lines`.

    DRAWS: "block", 16 consecutive indices along axis 5; "line", one draw, shared along axis 5;
    "each" element; "rated", each with a threshold and a scale of its own.
    """
    k0, k1 = held(key, key_high, HELD)
    tile = tl.program_id(0).to(tl.int64) if LARGE else tl.program_id(0)
    across = (n5 + COLS - 1) // COLS
    if DRAWS == "block":  # COLS = 16: a row of the tile is any run of 16 in any line
        line = tile * ROWS + tl.arange(0, ROWS)
        first = (line % across).to(tl.int64) * 16
        line = line // across
        column = first[:, None] + tl.arange(0, 16)[None, :]
    else:
        line = tile // across * ROWS + tl.arange(0, ROWS)
        column = ((tile % across).to(tl.int64) * COLS + tl.arange(0, COLS))[None, :]
    inside = (line < lines)[:, None] & (column < n5)
    if LOADED:
        at = along(line, n1, n2, n3, n4, x0, x1, x2, x3, x4, RANK)[:, None] + column * x5
        value = widened(tl.load(x + at, mask=inside, other=0), WIDE)
    else:
        value = widened(tl.full([ROWS, COLS], 1, tl.int8), WIDE)
    index = along(line, n1, n2, n3, n4, m0, m1, m2, m3, m4, RANK).to(tl.uint64)
    index += joined(base, base_high)
    high = high.to(tl.uint32)
    low = low.to(tl.uint32)
    if DRAWS == "block":
        index += first.to(tl.uint64)
        kept = (kept_blocks(index, high, low, k0, k1, REFINE)[:, None] & places()[None, :]) != 0
    elif DRAWS == "line":
        kept = kept_each(index, high, low, k0, k1, REFINE)[:, None]
    else:
        index = index[:, None] + (column * m5).to(tl.uint64)
        if DRAWS == "rated":
            at = along(line, n1, n2, n3, n4, r0, r1, r2, r3, r4, RANK)[:, None] + column * r5
            threshold = tl.load(thresholds + at, mask=inside, other=0).to(tl.uint64)
            high = (threshold >> 32).to(tl.uint32)
            low = threshold.to(tl.uint32)
            if SCALED:
                value *= widened(tl.load(scales + at, mask=inside, other=0), WIDE)
        kept = kept_each(index, high, low, k0, k1, REFINE)
    value *= number(scale, WIDE)
    if SHIFT:
        value += number(shift, WIDE)
    value = tl.where(kept, value, number(fill, WIDE))
    at = along(line, n1, n2, n3, n4, y0, y1, y2, y3, y4, RANK)[:, None] + column * y5
    tl.store(y + at, narrowed(value, y.dtype.element_ty), mask=inside)
