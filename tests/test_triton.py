"""The GPU kernels against the law, written down once more here with numpy's 64-bit integers.

Triton runs interpreted, in a process of its own: the variable that asks for it would reach all that
imports Triton later. What only a compiler can find is looked for by compiling, which needs no GPU.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dropkit.kernel import triton as gpu
from dropkit.kernel.triton import flat_calls, launch, strided_calls

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CPU = torch.device("cpu")
WORD64 = (1 << 64) - 1
INSTALLED = find_spec("triton") is not None
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the process of test_interpreted")
compiled = pytest.mark.skipif(INTERPRETED or not INSTALLED, reason="needs Triton, not interpreted")

RATES = (0.0, 2.0**-40, 1e-9, 0.1, 0.25, 0.5, 0.9, 1 - 2.0**-40, 1.0)
BASES = (0, 16, 5, (1 << 32) - 33, (1 << 37) + 13, (1 << 64) - 40)
KEYS = (0, 7, -1, 0x0123456789ABCDEF, (1 << 64) - 3)
SIZES = (4099, 1, 15, 513, 3000, 1000)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@compiled
def test_interpreted() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


def test_the_package_loads_without_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import dropkit.kernel.triton as gpu"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_available_only_where_triton_runs() -> None:
    assert gpu.available(CPU) == INTERPRETED
    assert not gpu.available(torch.device("meta"))


# The law


def philox(counter: list[Any], key: int) -> np.ndarray:
    """The four words for four counter words, along a new last axis."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = list(np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter)))
    for turn in range(10):
        k0 = np.uint64(key + turn * 0x9E3779B9 & 0xFFFFFFFF)
        k1 = np.uint64((key >> 32) + turn * 0xBB67AE85 & 0xFFFFFFFF)
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> half) ^ c[1] ^ k0, b & low, (a >> half) ^ c[3] ^ k1, a & low]
    return np.stack(c, -1)


def words(index: np.ndarray, domain: int, key: int, bits: int = 2) -> np.ndarray:
    """The word of each index, where each block serves 2**bits of them."""
    block = index >> np.uint64(bits)
    four = philox([block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), 0, domain], key)
    which = index >> np.uint64(bits - 2) & np.uint64(3)
    return np.take_along_axis(four, which.astype(np.int64)[..., None], -1)[..., 0]


def kept(index: np.ndarray, threshold: Any, key: int) -> Tensor:
    byte = words(index, 0, key, bits=4) >> (index & np.uint64(3)) * np.uint64(8) & np.uint64(255)
    draw = byte << np.uint64(32) | words(index, 1, key)
    return torch.as_tensor(draw >= np.asarray(threshold, np.uint64))


def indices(sizes: tuple[int, ...], strides: tuple[int, ...], base: int) -> np.ndarray:
    index = np.full((), base, np.uint64)
    for size, stride in zip(sizes, strides, strict=True):
        index = index[..., None] + np.arange(size, dtype=np.uint64) * np.uint64(stride)
    return index


def run(n: int, base: int) -> np.ndarray:
    return indices((n,), (1,), base)


def steps(rate: float) -> int:
    return round(rate * 2**40)


def expected(
    x: Tensor, mask: Tensor, scale: float, shift: float = 0.0, fill: float = 0.0
) -> Tensor:
    wide = x if x.dtype == torch.float64 else x.float()
    return torch.where(mask, wide * scale + shift, fill).to(x.dtype)


ONES = (1 << 32) - 1
PI = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]


@pytest.mark.parametrize(
    "counter, key, answer",
    [
        ([0, 0, 0, 0], 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([ONES] * 4, (1 << 64) - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (PI, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_law_here_is_random123s(counter: list[int], key: int, answer: str) -> None:
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == answer


@interpreted
@pytest.mark.parametrize("rate", RATES)
def test_flat(rate: float) -> None:
    keys, dtypes = itertools.cycle(KEYS), itertools.cycle(DTYPES)
    for base, n, key, dtype in zip(BASES, SIZES, keys, dtypes, strict=False):
        x = torch.linspace(-3, 3, n, dtype=dtype)
        mask, scale = kept(run(n, base), steps(rate), key & WORD64), 1.1
        y = torch.full_like(x, 7)
        gpu.flat(x, y, key, base, steps(rate), scale)
        assert torch.equal(y, expected(x, mask, scale)), (base, n, key, dtype)


@interpreted
@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_tensor_is_read_there_and_y_may_be_x(key: int) -> None:
    x = torch.linspace(-3, 3, 513)
    law = expected(x, kept(run(513, 16), steps(0.1), key & WORD64), 1.1)
    held = torch.tensor([key & WORD64], dtype=torch.uint64).view(torch.int64)
    gpu.flat(x, x, held, 16, steps(0.1), 1.1)
    assert torch.equal(x, law)


@interpreted
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_affine_and_what_is_dropped(dtype: torch.dtype) -> None:
    numbers = [math.nan, math.inf, -math.inf, 0.1]
    x = torch.tensor(numbers, dtype=dtype).repeat(100)
    y, affine = torch.empty_like(x), [1.7, 0.3, -1.9]
    gpu.flat(x, y, 3, 0, steps(0.3), *affine)
    mask = kept(run(400, 0), steps(0.3), 3)
    torch.testing.assert_close(y, expected(x, mask, *affine), rtol=0, atol=0, equal_nan=True)
    assert (y[~mask] == torch.tensor(affine[2], dtype=dtype)).all()


LAYOUTS = {  # sizes, strides of x, strides of the mask, base
    "channels": ((3, 5, 49), (245, 49, 1), (5, 1, 0), 0),
    "rows": ((4, 7, 32), (224, 32, 1), (32, 0, 1), 64),
    "rows, not aligned": ((4, 7, 30), (210, 30, 1), (30, 0, 1), 64),
    "transposed": ((20, 33), (1, 20), (33, 1), 5),
    "a shard": ((5, 24), (24, 1), (160, 1), 160 * 3 + 48),
    "spread": ((7, 3, 2), (1, 0, 7), (6, 2, 1), (1 << 64) - 20),
    "six axes": ((2, 3, 2, 3, 2, 3), (108, 36, 18, 6, 3, 1), (1, 2, 6, 12, 36, 72), 1 << 37),
    "one": ((), (), (), 9),
}


@interpreted
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_strided(layout: str, rate: float) -> None:
    sizes, x_strides, mask_strides, base = LAYOUTS[layout]
    dtype = torch.bfloat16 if rate == 0.5 else torch.float64
    x = torch.linspace(-3, 3, 2000, dtype=dtype).as_strided(sizes, x_strides)
    y = torch.zeros(2000, dtype=dtype)[3:].as_strided(sizes, x.contiguous().stride())
    mask = kept(indices(sizes, mask_strides, base), steps(rate), 11)
    place = (sizes, x_strides, y.stride(), mask_strides, 11, base, steps(rate))
    affine = [1.1, 0.2, 0.7]
    gpu.strided(x, y, *place, *affine)
    assert torch.equal(y, expected(x, mask, *affine))
    gpu.strided(None, y, *place, 3.0)
    assert torch.equal(y, expected(torch.ones_like(y), mask, 3.0))
    flags = torch.empty(sizes, dtype=torch.bool)
    gpu.keep(flags, sizes, flags.stride(), mask_strides, 11, base, steps(rate))
    assert torch.equal(flags, mask)


@interpreted
@pytest.mark.parametrize("shape", [(6, 1, 33), (33,), (1, 5, 1)])
def test_rated(shape: tuple[int, ...]) -> None:
    sizes = (6, 5, 33)
    count = math.prod(shape)
    rates = torch.tensor(RATES).double().repeat(count)[:count].view(shape)
    scales = torch.linspace(0.5, 2, count, dtype=torch.float64).view(shape)
    limits = (rates * 2**40).round().long()
    steps_of = limits.expand(sizes).stride()
    mask = kept(indices(sizes, (165, 33, 1), 7), limits.expand(sizes).numpy(), 5)
    x = torch.linspace(-3, 3, 990).view(sizes)
    y, place = torch.empty_like(x), (x.stride(), x.stride(), x.stride(), 5, 7)
    gpu.rated(x, y, sizes, *place, limits, scales, steps_of)
    assert torch.equal(y, torch.where(mask, x * scales.float(), 0.0))
    flags = torch.empty(sizes, dtype=torch.bool)
    gpu.rated_keep(flags, sizes, *place[1:], limits, steps_of)
    assert torch.equal(flags, mask)


@interpreted
@pytest.mark.parametrize("base", BASES)
def test_words(base: int) -> None:
    raw = torch.empty(2050, dtype=torch.int32)
    for domain in (0, 1, 2):
        gpu.words(raw, 9, base, domain)
        law = words(run(2050, base), domain, 9)
        assert np.array_equal(raw.numpy().view(np.uint32), law)
    single, double = torch.empty(2050), torch.empty(2050, dtype=torch.float64)
    gpu.uniform(single, 9, base)
    gpu.uniform(double, torch.tensor(9), base)
    assert np.array_equal(single.numpy(), (law >> np.uint64(8)).astype(np.float32) * 2.0**-24)
    assert np.array_equal(double.numpy(), law.astype(np.float64) * 2.0**-32)


ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}


@interpreted
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_activation(kind: str, dtype: torch.dtype) -> None:
    x, place = torch.linspace(-9, 9, 801, dtype=dtype), (4, 16, steps(0.1), 1.25)
    grad, y, slope = torch.linspace(1, 2, 801, dtype=dtype), torch.empty_like(x), x.clone()
    mask, exactly = kept(run(801, 16), steps(0.1), 4), x.double().requires_grad_()
    law = torch.where(mask, ACTIVATIONS[kind](exactly) * 1.25, 0.0)
    law.backward(grad.double())
    gpu.activation(x, y, kind, *place)
    gpu.activation_backward(grad, x, slope, kind, *place)
    eps = torch.finfo(dtype).eps
    # 1 + erf(-9) cancels, times 9 * 1.25 * 2; in float64 PyTorch's own 1 - tanh^2 cancels more.
    close = {"rtol": 8 * eps, "atol": (64 if dtype == torch.float64 else 16) * eps}
    torch.testing.assert_close(y.double(), law, **close)
    torch.testing.assert_close(slope.double(), exactly.grad, **close)


@interpreted
def test_relu_and_its_slope_from_what_it_gave() -> None:
    x = torch.linspace(-1, 1, 1500)
    x[7] = math.nan
    y, slope = torch.empty_like(x), torch.empty_like(x)
    mask = kept(run(1500, 3), steps(0.25), 8)
    gpu.relu(x, y, 8, 3, steps(0.25), 4 / 3)
    law = torch.where(mask, x.relu() * (4 / 3), 0.0)
    torch.testing.assert_close(y, law, rtol=0, atol=0, equal_nan=True)
    gpu.relu_backward(x, y, slope, 4 / 3)
    law = torch.where(y <= 0, 0.0, x * (4 / 3))  # the gradient of nan is not hidden
    torch.testing.assert_close(slope, law, rtol=0, atol=0, equal_nan=True)


@interpreted
@pytest.mark.parametrize("columns, base", [(3, 0), (48, 32), (48, 5)])
@pytest.mark.parametrize("residual", [True, False])
def test_bias_add(columns: int, base: int, residual: bool) -> None:
    x = torch.linspace(-1, 1, columns * 100).view(100, columns)
    bias, more = torch.linspace(3, 4, columns), x.flip(0).contiguous() if residual else None
    mask = kept(run(x.numel(), base), steps(0.1), 2).view_as(x)
    y, place = torch.empty_like(x), (2, base, steps(0.1), 1.25)
    gpu.bias_add(x, bias, more, y, *place)
    law = torch.where(mask, (x + bias) * 1.25, 0.0)
    assert torch.equal(y, law if more is None else law + more)
    slope, total = torch.empty_like(x), torch.empty_like(bias)
    gpu.bias_add_backward(x, slope, total, *place)
    assert torch.equal(slope, expected(x, mask, 1.25))
    torch.testing.assert_close(total, slope.sum(0))
    if more is not None:
        gpu.add(x, more, y, *place)
        assert torch.equal(y, slope + more)


@interpreted
def test_nothing_to_do_and_what_has_no_kernel() -> None:
    none, whole, flags = torch.empty(0), torch.ones(3, dtype=torch.int32), torch.ones(2) > 0
    gpu.flat(none, none, 1, 0, 5, 1.0)
    gpu.words(none.int(), 1, 0, 2)
    gpu.strided(none, none, (0,), (1,), (1,), (1,), 1, 0, 5, 1.0)
    with pytest.raises(NotImplementedError, match="int32"):
        gpu.flat(whole, whole, 1, 0, 5, 1.0)
    with pytest.raises(NotImplementedError, match="axes"):
        gpu.keep(flags, (2,) * 7, tuple(range(7, 0, -1)), (1,) * 7, 1, 0, 5)


@interpreted
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_interpreters_large_tiles_draw_the_same(rate: float) -> None:
    """Wrong where the size of a tile decides bits."""
    n, base, key = 70_211, 5, 7
    x = torch.linspace(-3, 3, n)
    assert launch.tile(flat_calls.BLOCK, n) > flat_calls.BLOCK
    mask, y = kept(run(n, base), steps(rate), key), torch.full_like(x, 7)
    gpu.flat(x, y, key, base, steps(rate), 1.1)
    assert torch.equal(y, expected(x, mask, 1.1))
    for sizes, strides in (((1003, 70), (70, 1)), ((1003, 64), (64, 1)), ((1003, 70), (1, 0))):
        laid = x[: math.prod(sizes)].view(sizes)
        y, mask = torch.full_like(laid, 7), kept(indices(sizes, strides, 0), steps(rate), key)
        gpu.strided(laid, y, sizes, laid.stride(), y.stride(), strides, key, 0, steps(rate), 1.1)
        assert torch.equal(y, expected(laid, mask, 1.1)), (sizes, strides)


@interpreted
@pytest.mark.parametrize("count", [1, 4095, 8192, 8193, 70_000, 1 << 25])
def test_the_interpreters_tiles_are_a_gpus_up_to_two(count: int) -> None:
    size = launch.tile(4096, count)
    assert size == 4096 if count <= 2 * 4096 else 4096 < size <= 1 << 18
    assert launch.tiles(count, size) > 1 or count <= 4096


@compiled
def test_a_gpus_tiles_do_not_hang_on_the_size() -> None:
    assert {launch.tile(4096, count) for count in (1, 4096, 1 << 30)} == {4096}


# What the interpreter cannot know


@compiled
@pytest.mark.parametrize("target", [("cuda", 90, 32), ("hip", "gfx942", 64)], ids=str)
def test_the_kernels_compile_without_a_gpu(
    target: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launched: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    for module in (flat_calls, strided_calls):
        monkeypatch.setattr(
            module, "launch", lambda kernel, _n, _y, *a, **c: launched.append((kernel, a, c))
        )
    x = torch.zeros(64, dtype=torch.bfloat16)
    gpu.flat(x, x, 1, 0, steps(0.1), 1.0, 0.5)
    gpu.activation_backward(x, x, x, "gelu", torch.tensor(1), 5, steps(0.5), 1.0)
    gpu.bias_add(x, x[:16], x, x, 1, 0, steps(0.1), 1.0)
    gpu.relu_backward(x, x, x, 1.0)
    gpu.strided(x, x, (4, 16), (1, 4), (16, 1), (16, 1), 1, 0, steps(0.1), 1.0)
    gpu.rated(x, x, (4, 16), (16, 1), (16, 1), (0, 1), 1, 0, x.long(), x.double(), (16, 1))
    gpu.uniform(x.float(), 1, 0)
    machine = [compile_for(target, *call).asm for call in launched]
    if target[0] == "cuda":
        assert "cvt.rn.bf16" in machine[0]["ptx"], "rounds, as the interpreter is made to"
        assert "fma.rn" not in machine[0]["ptx"], "scale and shift are two roundings, as on CPUs"


TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int64: "*i64",
}


def compile_for(
    target: tuple[Any, ...], kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]
) -> Any:
    """What a launch would compile, were there a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget

    warps = constants.pop("num_warps", 4)
    signature = dict.fromkeys(kernel.arg_names, "constexpr")
    for name, value in zip(kernel.arg_names, arguments, strict=False):
        if isinstance(value, Tensor):
            signature[name] = TYPES[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    source = triton.compiler.ASTSource(kernel, signature, constants)
    options = {"num_warps": warps, "enable_fp_fusion": False}  # as `launch` asks
    return triton.compile(source, target=GPUTarget(*target), options=options)
