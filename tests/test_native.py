"""Every C++ kernel that this processor has, bit for bit against a slow Philox written here."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel import native

N: Any = pytest.importorskip("dropkit.kernel._native", reason="the C++ kernels were not built")

KEY = 0x9F2C_13D7_0B5A_E641
RATES = [0, 2**-40, 1e-9, 0.1, 0.25, 0.5, 0.9, 1 - 1e-9, 1 - 2**-40, 1]
BASES = [0, 7, 2**32 - 3, 2**37 + 13, 2**64 - 300]  # aligned, not, and over each edge
DTYPES = list(native.DTYPES)
WORD = np.uint64(0xFFFFFFFF)


@pytest.fixture(params=N.available())
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    before = N.selected()
    N.select(request.param)
    yield request.param
    N.select(before)


# ---- the oracle


def philox(counter: tuple[Any, Any, Any, Any], key: int) -> np.ndarray:
    """The four words, along the first axis."""
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    c = [np.atleast_1d(np.asarray(word, np.uint64)) for word in counter]
    half = np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> half) ^ c[1] ^ k0, b & WORD, (a >> half) ^ c[3] ^ k1, a & WORD]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & WORD, (k1 + np.uint64(0xBB67AE85)) & WORD
    return np.stack(np.broadcast_arrays(*c))


def word(index: np.ndarray, domain: int, key: int = KEY) -> np.ndarray:
    block = index >> np.uint64(2)
    words = philox((block & WORD, block >> np.uint64(32), 0, domain), key)
    return np.take_along_axis(words, (index & np.uint64(3)).astype(int)[None], 0)[0]


def byte(index: np.ndarray) -> np.ndarray:
    block, within = index >> np.uint64(4), index & np.uint64(15)
    words = philox((block & WORD, block >> np.uint64(32), 0, 0), KEY)
    chosen = np.take_along_axis(words, (within >> np.uint64(2)).astype(int)[None], 0)[0]
    return chosen >> (within % np.uint64(4) * np.uint64(8)) & np.uint64(255)


def threshold(rate: float) -> int:
    return round(rate * 2**40)


def kept(index: np.ndarray, rates: Any) -> Tensor:
    """Where each index is kept; a rate for all, or one for each."""
    flat = index.ravel()
    t = np.round(np.broadcast_to(rates, index.shape).ravel() * 2.0**40).astype(np.uint64)
    high, low, drawn = t >> np.uint64(32), t & WORD, byte(flat)
    dropped = (drawn < high) | ((drawn == high) & (word(flat, 1) < low))
    return torch.from_numpy(np.asarray(~dropped).reshape(index.shape))


@functools.cache  # by many tests, and for every target
def mask_of(sizes: tuple[int, ...], strides: tuple[int, ...], base: int, rate: float) -> Tensor:
    return kept(indices(sizes, strides, base), rate)


def indices(sizes: tuple[int, ...], strides: tuple[int, ...], base: int) -> np.ndarray:
    index = np.full(sizes, base, np.uint64)
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        shape = [1] * len(sizes)
        shape[axis] = size
        index += (np.arange(size, dtype=np.uint64) * np.uint64(stride % 2**64)).reshape(shape)
    return index


def wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit, and nan where nan."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    alike = a.contiguous().view(bits) == b.contiguous().view(bits)
    return a.dtype == b.dtype and bool((alike | (a.isnan() & b.isnan())).all())


def expected(x: Tensor, keep: Tensor, scale: float, shift: float = 0, fill: float = 0) -> Tensor:
    value = wide(x) * scale
    if shift or fill:
        value = value + shift
    return torch.where(keep, value, torch.tensor(fill, dtype=value.dtype)).to(x.dtype)


def numbers(count: int, dtype: torch.dtype) -> Tensor:
    """Normal ones, and each kind of odd one."""
    x = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    for place, odd in enumerate([math.nan, math.inf, -math.inf, -0.0, 1e-40, 3e-8, 6e4, 3e38]):
        x[place::97] = odd
    return x.to(dtype)


def scale_of(rate: float) -> float:
    return 1 / (1 - rate) if rate < 1 else 1.0


def test_the_oracle_knows_the_published_answers() -> None:
    ones = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    for counter, key, answer in [
        ((0, 0, 0, 0), 0, "6627e8d5e169c58dbc57ac4c9b00dbd8"),
        ((ones, ones, ones, ones), 2**64 - 1, "408f276d41c83b0ea20bc7c66d5451fd"),
        (pi, 0x299F31D0_A4093822, "d16cfe0994fdcceb5001e42024126ea1"),
    ]:
        assert "".join(f"{int(w):08x}" for w in philox(counter, key).ravel()) == answer


# ---- whole tensors


def flat(x: Tensor, y: Tensor, rate: float, base: int, threads: int = 1, **affine: float) -> None:
    shift, fill = affine.get("shift", 0.0), affine.get("fill", 0.0)
    N.flat(
        x.data_ptr(), y.data_ptr(), native.DTYPES[x.dtype], x.numel(), base, KEY,
        threshold(rate), scale_of(rate), shift, fill, threads,
    )  # fmt: skip


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("n", [1, 7, 64, 1000, 9001])
def test_flat(target: str, n: int, base: int) -> None:
    for rate in RATES:
        keep = mask_of((n,), (1,), base, rate)
        for dtype in DTYPES:
            x = numbers(n, dtype)
            want = expected(x, keep, scale_of(rate))
            y = torch.full_like(x, 9)
            flat(x, y, rate, base)
            assert same(y, want), (rate, dtype)
            flat(x, x, rate, base)
            assert same(x, want), (rate, dtype, "in place")


def test_mutant_a_shifted_index_is_seen(target: str) -> None:
    x, y = torch.ones(1000), torch.empty(1000)
    flat(x, y, 0.5, 1)
    assert not same(y, expected(x, mask_of((1000,), (1,), 0, 0.5), 2.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_affine(target: str, dtype: torch.dtype) -> None:
    x = numbers(1003, dtype)
    y = torch.empty_like(x)
    flat(x, y, 0.3, 5, shift=0.25, fill=-1.5)
    keep = mask_of((1003,), (1,), 5, 0.3)
    assert same(y, expected(x, keep, scale_of(0.3), 0.25, -1.5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_relu(target: str, dtype: torch.dtype) -> None:
    x, code, n = numbers(1003, dtype), native.DTYPES[dtype], 1003
    y, grad = torch.empty_like(x), torch.empty_like(x)
    N.relu_flat(x.data_ptr(), y.data_ptr(), code, n, 9, KEY, threshold(0.4), 1.5, 1)
    keep = mask_of((n,), (1,), 9, 0.4)
    assert same(y, expected(torch.where(x < 0, 0, x), keep, 1.5))
    N.relu_backward_flat(x.data_ptr(), y.data_ptr(), grad.data_ptr(), code, n, 1.5, 1)
    assert same(grad, expected(x, ~(y <= 0), 1.5))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_add(target: str, dtype: torch.dtype) -> None:
    x, code, n = numbers(1003, dtype), native.DTYPES[dtype], 1003
    residual = numbers(1003, dtype).roll(11)
    product = torch.where(mask_of((n,), (1,), 9, 0.4), wide(x) * 1.5, 0)
    want = (wide(residual) + product).to(dtype)
    law = (9, KEY, threshold(0.4), 1.5, 1)
    N.add_flat(x.data_ptr(), residual.data_ptr(), residual.data_ptr(), code, n, *law)
    assert same(residual, want)


@pytest.mark.parametrize("columns", [1, 7, 64, 1001])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bias_add(target: str, dtype: torch.dtype, columns: int) -> None:
    rows, code = 2 + 3000 // columns, native.DTYPES[dtype]
    x = numbers(rows * columns, dtype).view(rows, columns)
    bias, residual, y = numbers(columns, dtype).flip(0), x.roll(3, 0), torch.empty_like(x)
    keep = mask_of((rows, columns), (columns, 1), 9, 0.4)
    value = torch.where(keep, (wide(x) + wide(bias)) * 1.5, 0)
    law = (code, rows, columns, 9, KEY, threshold(0.4), 1.5, 2)
    N.bias_add(x.data_ptr(), bias.data_ptr(), 0, y.data_ptr(), *law)
    assert same(y, value.to(dtype))
    N.bias_add(x.data_ptr(), bias.data_ptr(), residual.data_ptr(), y.data_ptr(), *law)
    assert same(y, (wide(residual) + value).to(dtype))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("n", [1, 5, 1000])
def test_words_and_uniform(target: str, n: int, base: int) -> None:
    index = indices((n,), (1,), base)
    for domain in (0, 1, 2):
        y = torch.empty(n, dtype=torch.int32)
        N.words(y.data_ptr(), n, base, KEY, domain, 1)
        assert (y.numpy().view(np.uint32) == word(index, domain)).all()
    u = torch.empty(n)
    N.uniform(u.data_ptr(), n, base, KEY, 1)
    assert (u.numpy() == (word(index, 2) >> np.uint64(8)).astype(np.float32) * 2.0**-24).all()


# ---- strides


def contiguous(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(sizes, device="meta").stride()


def shared(sizes: tuple[int, ...], *axes: int) -> tuple[int, ...]:
    """Strides of a mask that has size 1 along these axes."""
    small = contiguous(tuple(1 if a in axes else s for a, s in enumerate(sizes)))
    return tuple(0 if a in axes else s for a, s in enumerate(small))


IMAGE, VIDEO, TEXT, TABLE = (2, 37, 13, 11), (2, 6, 3, 5, 7), (3, 130, 70), (91, 67)
LAYOUTS = {
    "channels last": (IMAGE, (0, 3, 1, 2), contiguous(IMAGE)),
    "three channels last": ((2, 3, 40, 41), (0, 3, 1, 2), contiguous((2, 3, 40, 41))),
    "wide channels last": ((1, 50, 35, 31), (0, 3, 1, 2), contiguous((1, 50, 35, 31))),
    "channels last, channels": (IMAGE, (0, 3, 1, 2), shared(IMAGE, 2, 3)),
    "3d channels last": (VIDEO, (0, 4, 1, 2, 3), contiguous(VIDEO)),
    "transposed": (TABLE, (1, 0), contiguous(TABLE)),
    "channels": (IMAGE, (0, 1, 2, 3), shared(IMAGE, 2, 3)),
    "samples": (IMAGE, (0, 1, 2, 3), shared(IMAGE, 1, 2, 3)),
    "time": (TEXT, (0, 1, 2), shared(TEXT, 1)),
    "tokens": (TEXT, (0, 1, 2), shared(TEXT, 2)),
    "batch": (TEXT, (0, 1, 2), shared(TEXT, 0)),
    "long rows over time": ((2, 3, 5000), (0, 1, 2), shared((2, 3, 5000), 1)),
    "all": (TEXT, (0, 1, 2), (0, 0, 0)),
    "mask transposed": (TABLE, (0, 1), (1, 91)),
    "any strides": (TABLE, (0, 1), (3, 1000)),
    "shard": (TEXT, (0, 1, 2), (9999, 77, 1)),
    "backwards": (TABLE, (0, 1), (-67, -1)),
    "number": ((), (), ()),
    "nothing": ((3, 0, 2), (0, 1, 2), (0, 2, 1)),
}


def laid_out(sizes: tuple[int, ...], order: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of `sizes` whose axes lie in memory in this order."""
    x = numbers(math.prod(sizes), dtype).view([sizes[a] for a in order])
    return x.permute([order.index(a) for a in range(len(order))])


def strided(
    x: Tensor, y: Tensor, mask: tuple[int, ...], rate: float, base: int, threads: int = 1
) -> None:
    N.strided(
        x.data_ptr(), y.data_ptr(), native.DTYPES[y.dtype], tuple(y.shape), x.stride(), y.stride(),
        mask, base, KEY, threshold(rate), scale_of(rate), 0.0, 0.0, threads,
    )  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided(target: str, layout: str) -> None:
    sizes, order, mask = LAYOUTS[layout]
    for rate, base in [(0.1, 13), (0.5, 2**64 - 1000), (1, 0)]:
        keep = mask_of(sizes, mask, base, rate)
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            x = laid_out(sizes, order, dtype)
            want = expected(x, keep, scale_of(rate))
            for y in (torch.empty_like(x), torch.empty(sizes, dtype=dtype), x):
                strided(x, y, mask, rate, base)
                assert same(y, want), (rate, dtype, y.stride())
        shown = torch.empty(sizes, dtype=torch.bool)
        N.keep(shown.data_ptr(), sizes, shown.stride(), mask, base, KEY, threshold(rate), 1)
        assert torch.equal(shown, keep)


def test_strided_slices_and_expanded(target: str) -> None:
    whole = numbers(40 * 60, torch.float16).view(40, 60)
    row = numbers(30, torch.float16)
    for x in (whole[:, 7:37], whole[::2, ::2], row.expand(40, 30), whole[3:4, 5:6]):
        mask = contiguous(tuple(x.shape))
        keep = mask_of(tuple(x.shape), mask, 77, 0.4)
        y = torch.empty(x.shape, dtype=x.dtype)
        strided(x, y, mask, 0.4, 77)
        assert same(y, expected(x, keep, scale_of(0.4)))


def test_without_x_the_factor(target: str) -> None:
    y = torch.empty(TEXT)
    mask = shared(TEXT, 1)
    N.strided(
        0, y.data_ptr(), 0, TEXT, (0, 0, 0), y.stride(), mask, 3, KEY, threshold(0.1),
        scale_of(0.1), 0.0, 0.0, 2,
    )  # fmt: skip
    keep = mask_of(TEXT, mask, 3, 0.1)
    assert same(y, expected(torch.ones(TEXT), keep, scale_of(0.1)))


@pytest.mark.parametrize("rate_axes", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("mask_axes", [(), (1,), (2,)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=str)
def test_rated(target: str, rate_axes: Any, mask_axes: Any, order: Any) -> None:
    """Rates that differ along some axes."""
    rates = torch.rand([s if a in rate_axes else 1 for a, s in enumerate(TEXT)]).double()
    rates.view(-1)[:2] = torch.tensor([0.0, 1.0])[: rates.numel()]
    limits = (rates * 2.0**40).round().to(torch.int64)
    scales = torch.where(rates < 1, 1 / (1 - rates), 0.0)
    mask, step = shared(TEXT, *mask_axes), limits.expand(TEXT).stride()
    keep = kept(indices(TEXT, mask, 5), rates.numpy())
    for dtype in (torch.float32, torch.bfloat16):
        x = laid_out(TEXT, order, dtype)
        y, ones = torch.empty_like(x), torch.empty_like(x)
        for given, out in ((x.data_ptr(), y), (0, ones)):
            N.rated(
                given, out.data_ptr(), native.DTYPES[dtype], TEXT, x.stride(), y.stride(), mask,
                5, KEY, limits.data_ptr(), scales.data_ptr(), step, 2,
            )  # fmt: skip
        factor = scales.float().expand(TEXT)
        assert same(y, torch.where(keep, x.float() * factor, 0).to(dtype))
        assert same(ones, torch.where(keep, factor, 0).to(dtype))
    shown = torch.empty(TEXT, dtype=torch.bool)
    args = (shown.stride(), mask, 5, KEY, limits.data_ptr(), step, 2)
    N.rated_keep(shown.data_ptr(), TEXT, *args)
    assert torch.equal(shown, keep)


# ---- threads, processes, choices


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_change_nothing(target: str, threads: int) -> None:
    x = numbers(300_001, torch.float32)
    alone, together = torch.empty_like(x), torch.empty_like(x)
    flat(x, alone, 0.1, 5)
    flat(x, together, 0.1, 5, threads)
    assert same(alone, together)
    image = x[:299_520].view(4, 64, 30, 39).permute(0, 3, 1, 2)
    alone, together = torch.empty_like(image), torch.empty_like(image)
    strided(image, alone, contiguous(tuple(image.shape)), 0.1, 5)
    strided(image, together, contiguous(tuple(image.shape)), 0.1, 5, threads)
    assert same(alone, together)


def test_a_hundred_threads_at_once(target: str) -> None:
    x = numbers(60_000, torch.float32)
    wants = [expected(x, mask_of((60_000,), (1,), base, 0.1), 1 / 0.9) for base in range(4)]

    def call(number: int) -> bool:
        y = torch.empty_like(x)
        flat(x, y, 0.1, number % 4, 2)
        return same(y, wants[number % 4])

    with ThreadPoolExecutor(100) as pool:
        assert all(pool.map(call, range(200)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that is what is tested
def test_a_forked_child_does_not_wait_for_threads_it_lacks(target: str) -> None:
    x = torch.ones(300_000)
    y, z = torch.empty_like(x), torch.empty_like(x)
    flat(x, y, 0.1, 0, 2)
    child = os.fork()
    if child == 0:
        flat(x, z, 0.1, 0, 2)
        os._exit(0 if np.array_equal(y.numpy(), z.numpy()) else 1)  # torch would wait
    assert os.waitpid(child, 0)[1] == 0


def test_the_environment_chooses(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPKIT_KERNEL", target)
    loaded: Any = native.load()
    assert loaded.selected() == target
    monkeypatch.setenv("DROPKIT_KERNEL", "reference")
    assert native.load() is None
    monkeypatch.delenv("DROPKIT_KERNEL")
    assert native.load() is N
    assert N.selected() == N.available()[0]
    assert native.missing() is None


@pytest.mark.parametrize("name", ["sse9", "AVX2"])
def test_an_unknown_choice_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPKIT_KERNEL", name)
    with pytest.raises(SettingError, match=f"reference, portable.*got '{name}'"):
        native.load()


def test_a_kernel_of_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = next(n for n in ("neon", "avx2") if n not in N.available())
    monkeypatch.setenv("DROPKIT_KERNEL", absent)
    with pytest.raises(SettingError, match=f"asks for {absent}.*portable"):
        native.load()
    with pytest.raises(ValueError, match=r"expected one of .*portable"):
        N.select(absent)
