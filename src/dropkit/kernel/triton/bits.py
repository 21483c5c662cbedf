"""What a thread computes: Philox, and from it the bits of a mask.

Imported only where Triton is; the law that it follows is told in `dropkit.kernel.reference`.
All arithmetic is on unsigned words, so the same source serves NVIDIA, AMD and the interpreter.
"""
# mypy: ignore-errors
# Triton reads these functions as its own language, whose types are not Python's.

import triton
import triton.language as tl

HIGHS = tl.constexpr(0x80808080)
"""The highest bit of each byte of a word."""


@triton.jit
def joined(low, high):
    """64 unsigned bits from two signed words: an argument's type never depends on its value."""
    return (high.to(tl.uint32).to(tl.uint64) << 32) | low.to(tl.uint32).to(tl.uint64)


@triton.jit
def held(key, key_high, HELD: tl.constexpr):
    """The two key words; where HELD, `key` points at 64 bits that are read as the kernel runs."""
    if HELD:
        whole = tl.load(key).to(tl.uint64)
        return whole.to(tl.uint32), (whole >> 32).to(tl.uint32)
    else:
        return key.to(tl.uint32), key_high.to(tl.uint32)


@triton.jit
def philox(block, DOMAIN: tl.constexpr, k0, k1):
    """The four words of Philox4x32-10 (Salmon et al. 2011) at 64-bit block numbers.

    A product of 64 bits is one instruction (IMAD.WIDE) that yields both halves.
    """
    c0 = block.to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    c2 = tl.zeros_like(c0)
    c3 = tl.zeros_like(c0) + DOMAIN
    for _ in tl.static_range(10):
        first = c0.to(tl.uint64) * 0xD2511F53
        second = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (second >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (first >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = second.to(tl.uint32)
        c3 = first.to(tl.uint32)
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def above(word, bound):
    """Bit 7 of each byte: whether the byte is at least the bound's, for four bytes at once."""
    # The low seven bits cannot borrow from a neighbour once bit 7 is set; bit 7 decides by itself
    # where the two differ in it. ptxas makes three instructions of this.
    low = (word | 0x80808080) - (bound & 0x7F7F7F7F)
    return (word & ~bound) | (~(word ^ bound) & low)


@triton.jit
def other(word, bound):
    """Bit 7 of each byte: whether the byte differs from the bound's."""
    apart = word ^ bound
    return ((apart & 0x7F7F7F7F) + 0x7F7F7F7F) | apart


@triton.jit
def packed(a, b, c, d):
    """Sixteen flags in a word: that of byte j of word k stands at bit 8 j + 7 - k."""
    return (a & HIGHS) | ((b & HIGHS) >> 1) | ((c & HIGHS) >> 2) | ((d & HIGHS) >> 3)


@triton.jit
def places():
    """The bit of `packed` that belongs to each of a block's 16 elements."""
    column = tl.arange(0, 16).to(tl.uint32)
    return (tl.full([16], 0x80, tl.uint32) >> (column >> 2)) << ((column & 3) * 8)


@triton.jit
def kept_blocks(index, high, low, k0, k1, REFINE: tl.constexpr):
    """The flags (see `packed`) of the 16 elements from each index, a multiple of 16: 1 is kept.

    An element whose byte equals `high` is decided by a word of its own: 1 element in 256. The
    loop decides at most one of every block per turn. So a turn costs one Philox per 16 elements,
    where deciding for all would cost one per 4; a tile of 256 blocks takes 1.4 turns on average.
    """
    a, b, c, d = philox(index >> 4, 0, k0, k1)
    bound = tl.zeros_like(a) + high * 0x01010101
    kept = packed(above(a, bound), above(b, bound), above(c, bound), above(d, bound))
    kept = tl.where(high > 255, tl.zeros_like(kept), kept)  # rate 1
    if REFINE:
        pending = packed(~other(a, bound), ~other(b, bound), ~other(c, bound), ~other(d, bound))
        while tl.max((pending != 0).to(tl.int32), axis=0) > 0:
            one = pending & (~pending + 1)
            k = tl.where((one & 0x30303030) != 0, 2, 0) + tl.where((one & 0x50505050) != 0, 1, 0)
            a, b, c, d = philox((index >> 2) + k.to(tl.uint64), 1, k0, k1)
            below = (
                tl.where(
                    (one & 0xFFFF) != 0,
                    tl.where((one & 0xFF) != 0, a, b),
                    tl.where((one & 0xFF0000) != 0, c, d),
                )
                < low
            )
            kept = tl.where(below, kept & ~one, kept)
            pending = pending ^ one
    else:
        # Never turns. A compiler moves arithmetic to where its result is used, where 2 to 8 threads
        # share a block and each would draw it; not across a loop, so it moves the result instead.
        while high > 256:
            kept = ~kept
            high = high - 1
    return kept


@triton.jit
def word(index, DOMAIN: tl.constexpr, k0, k1):
    """The 32 bits of a domain that belong to each index: word index & 3 of block index >> 2."""
    a, b, c, d = philox(index >> 2, DOMAIN, k0, k1)
    return picked(a, b, c, d, index.to(tl.uint32) & 3)


@triton.jit
def picked(a, b, c, d, which):
    """One of four words."""
    return tl.where(which < 2, tl.where(which == 0, a, b), tl.where(which == 2, c, d))


@triton.jit
def kept_each(index, high, low, k0, k1, REFINE: tl.constexpr):
    """Whether each index, whatever it is, is kept."""
    a, b, c, d = philox(index >> 4, 0, k0, k1)
    at = index.to(tl.uint32) & 15
    byte = (picked(a, b, c, d, at >> 2) >> ((at & 3) * 8)) & 0xFF
    dropped = byte < high
    if REFINE:
        dropped = dropped | ((byte == high) & (word(index, 1, k0, k1) < low))
    return ~dropped
