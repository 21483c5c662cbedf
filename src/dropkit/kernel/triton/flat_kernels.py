"""The GPU kernels for consecutive elements, where speed is decided. Imported only where Triton is.

Arguments in capitals are compiled in. No other is (`RUNTIME`), and 64-bit numbers come as two
words, so that a new key, place, rate or length never compiles anew.
"""
# mypy: ignore-errors
# Triton reads these functions as its own language, whose types are not Python's.

import triton
import triton.language as tl

from dropkit.kernel.triton.activations import activated, slope
from dropkit.kernel.triton.bits import held, joined, kept_blocks, places
from dropkit.kernel.triton.launch import INTERPRETED

DRAW = ("key", "key_high", "base", "base_high", "high", "low", "scale", "shift", "fill")
CUTS = tl.constexpr(INTERPRETED)
"""Whether it is the interpreter that runs: it cuts a bfloat16 off where GPUs round to it."""
RUNTIME = ("n", "lead", "columns", *DRAW)


@triton.jit
def widened(value, WIDE: tl.constexpr):
    """The value in the type that arithmetic is done in."""
    if WIDE:
        return value.to(tl.float64)
    else:
        return value.to(tl.float32)


@triton.jit
def narrowed(value, TYPE: tl.constexpr):
    """The value in the type that lies in memory, rounded to the nearest, of two to the even."""
    if CUTS and tl.bfloat16 == TYPE:
        bits = value.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        value = tl.where(value == value, bits.to(tl.float32, bitcast=True), value)
    return value.to(TYPE)


@triton.jit
def number(value, WIDE: tl.constexpr):
    """A scalar argument; where WIDE, the 64 bits of a double, as Triton passes floats in 32."""
    if WIDE:
        return value.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        return value


@triton.jit
def taken(pointers, inside, WIDE: tl.constexpr, WHOLE: tl.constexpr):
    """What lies in memory. A WHOLE tile has no mask, so that any length is read in 16 bytes."""
    if WHOLE:
        return widened(tl.load(pointers), WIDE)
    else:
        return widened(tl.load(pointers, mask=inside, other=0), WIDE)


@triton.jit
def flat_tile(
    x, second, bias, y, base, start, n, columns, high, low, k0, k1, scale, shift, fill,
    KIND: tl.constexpr, ROLE: tl.constexpr, BIAS: tl.constexpr, SHIFT: tl.constexpr,
    REFINE: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """One tile of `flat_kernel`. Its loads stand first: the bits are drawn while they travel."""
    rows = tl.arange(0, BLOCK // 16) * 16
    within = rows[:, None] + tl.arange(0, 16)[None, :]
    first = tl.maximum(-start, 0).to(tl.int32)
    inside = (within >= first) & (within < tl.minimum(n - start, BLOCK).to(tl.int32))
    value = taken(x + start + within, inside, WIDE, WHOLE)
    if ROLE != "none":
        more = taken(second + start + within, inside, WIDE, WHOLE)
    if BIAS == "even":  # 16 | columns: one remainder per 16 elements, and loads of 16 bytes
        column = tl.multiple_of(((start % columns).to(tl.int32) + rows) % columns, 16)
        value += taken(bias + column[:, None] + tl.arange(0, 16)[None, :], inside, WIDE, WHOLE)
    if BIAS == "any":
        column = (start % columns + columns + within) % columns
        value += taken(bias + column, inside, WIDE, WHOLE)
    index = base + start.to(tl.uint64) + rows.to(tl.uint64)
    kept = (kept_blocks(index, high, low, k0, k1, REFINE)[:, None] & places()[None, :]) != 0
    value = more * slope(value, KIND) if ROLE == "grad" else activated(value, KIND)
    value = value * scale
    if SHIFT:
        value += shift
    value = tl.where(kept, value, fill)
    if ROLE == "residual":
        value += more
    if WHOLE:
        tl.store(y + start + within, narrowed(value, y.dtype.element_ty))
    else:
        tl.store(y + start + within, narrowed(value, y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=RUNTIME)
def flat_kernel(
    x, second, bias, y, n, lead, columns,
    key, key_high, base, base_high, high, low, scale, shift, fill,
    KIND: tl.constexpr, ROLE: tl.constexpr, BIAS: tl.constexpr, SHIFT: tl.constexpr,
    REFINE: tl.constexpr, WIDE: tl.constexpr, HELD: tl.constexpr, SKEW: tl.constexpr,
    BLOCK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Consecutive elements, of consecutive mask indices: y = kept ? f(x) * scale + shift : fill.

    Tiles begin at multiples of 16 of the mask index; the first has `lead` elements before x.
    """
    k0, k1 = held(key, key_high, HELD)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if SKEW:
        start -= lead
    base = joined(base, base_high)
    scale = number(scale, WIDE)
    shift = number(shift, WIDE)
    fill = number(fill, WIDE)
    high = high.to(tl.uint32)
    low = low.to(tl.uint32)
    if (start >= 0) & (start + BLOCK <= n):
        flat_tile(
            x, second, bias, y, base, start, n, columns, high, low, k0, k1, scale, shift, fill,
            KIND, ROLE, BIAS, SHIFT, REFINE, WIDE, BLOCK, True,
        )  # fmt: skip
    else:  # the ends
        for part in range(0, tl.minimum(n - start, BLOCK).to(tl.int32), PART):
            flat_tile(
                x, second, bias, y, base, start + part, n, columns, high, low, k0, k1, scale, shift,
                fill, KIND, ROLE, BIAS, SHIFT, REFINE, WIDE, PART, False,
            )  # fmt: skip


@triton.jit(do_not_specialize=("n", "scale"))
def passed_kernel(grad, y, out, n, scale, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """out = y <= 0 ? 0 : grad * scale."""
    scale = number(scale, WIDE)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    at = start + tl.arange(0, BLOCK)
    if start + BLOCK <= n:
        value = taken(grad + at, at < n, WIDE, True) * scale
        value = tl.where(taken(y + at, at < n, WIDE, True) <= 0, 0.0, value)
        tl.store(out + at, narrowed(value, out.dtype.element_ty))
    else:
        rest = taken(grad + at, at < n, WIDE, False) * scale
        rest = tl.where(taken(y + at, at < n, WIDE, False) <= 0, 0.0, rest)
        tl.store(out + at, narrowed(rest, out.dtype.element_ty), mask=at < n)
