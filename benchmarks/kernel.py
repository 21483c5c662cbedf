"""The cost of a mask, as a ratio to the multiplication that dropout amounts to; peers; whole steps.

    python benchmarks/kernel.py [--quick] [--write docs/speed.md]

Everything of a row is measured in one process, interleaved: in each of many rounds each contender
runs once, for about a millisecond or more; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dropkit.functional as F
import kernel_wanted
import training_step
from dropkit.kernel import native

Run = Callable[[], object]
ROUNDS = 25
LEAST = 2e-3
"""Seconds that a contender runs in each round, so that the clock does not enter."""


def seconds(run: Run, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def interleaved(contenders: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    times = {}
    for name, run in contenders.items():
        run()
        times[name] = max(1, int(LEAST / max(seconds(run, 1), 1e-9)))
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            found[name].append(seconds(run, times[name]))
    return found


def ratio(found: dict[str, list[float]], of: str, to: str) -> str:
    """The median of the rounds' ratios, and the quarter of them below and above."""
    ratios = [a / b for a, b in zip(found[of], found[to], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def through(x: Tensor, run: Callable[[Tensor], Tensor]) -> Run:
    """A forward and a backward pass."""
    grad = torch.ones_like(x)

    def both() -> None:
        x.grad = None
        run(x).backward(grad)

    return both


def kernels() -> list[str]:
    module = native.load()
    return [] if module is None else [name for name in module.available() if name != "portable"]


def power(count: int) -> str:
    return f"2^{count.bit_length() - 1}"


# ---- the tables


def multiplication(sizes: list[int], rounds: int, threads: int) -> Iterator[str]:
    yield f"### Dropout / `x * c`, {threads} thread{'s' * (threads > 1)}\n"
    yield "| kernel | type | elements | p | forward | forward and backward |"
    yield "|---|---|---|---|---|---|"
    module = native.load()
    for name in kernels():
        module.select(name)  # type: ignore[union-attr]
        for dtype in (torch.float32, torch.bfloat16):
            for size in sizes:
                for p in (0.1, 0.5):
                    x = torch.randn(size).to(dtype)
                    leaf = x.clone().requires_grad_()
                    scale = functools.partial(torch.mul, other=1.25)
                    drop = functools.partial(F.dropout, p=p)
                    found = interleaved(
                        {
                            "scale": functools.partial(scale, x),
                            "drop": functools.partial(drop, x),
                            "scale both": through(leaf, scale),
                            "drop both": through(leaf, drop),
                        },
                        rounds,
                    )
                    yield (
                        f"| {name} | {str(dtype)[6:]} | {power(size)} | {p} | "
                        f"{ratio(found, 'drop', 'scale')} | "
                        f"{ratio(found, 'drop both', 'scale both')} |"
                    )
    if kernels():
        module.select(kernels()[0])  # type: ignore[union-attr]


def structured(size: int, rounds: int) -> Iterator[str]:
    yield "### Shared masks and fused forms\n"
    yield "| what | shape | / | ratio |"
    yield "|---|---|---|---|"
    images, steps = torch.randn(32, 64, size // 2048 // 64, 64), torch.randn(64, 128, size // 8192)
    last = images.to(memory_format=torch.channels_last)
    relu = lambda x: F.activation_dropout(x, "relu", 0.5)  # noqa: E731
    rows: list[tuple[str, Tensor, Callable[[Tensor], Tensor], str, Callable[[Tensor], Tensor]]] = [
        ("channels", images, lambda x: F.dropout(x, 0.2, shared=(2, 3)), "x * c", times),
        (
            "channels, channels last",
            last,
            lambda x: F.dropout(x, 0.2, shared=(2, 3)),
            "x * c",
            times,
        ),
        ("elements, channels last", last, lambda x: F.dropout(x, 0.2), "x * c", times),
        ("time steps", steps, lambda x: F.dropout(x, 0.2, shared=(1,)), "x * c", times),
        ("samples", images, lambda x: F.dropout(x, 0.2, shared=(1, 2, 3)), "x * c", times),
        ("relu and dropout", images, relu, "relu", torch.relu),
    ]
    for what, x, run, name, peer in rows:
        found = interleaved({"run": lambda: run(x), "peer": lambda: peer(x)}, rounds)  # noqa: B023
        yield f"| {what} | {tuple(x.shape)} | `{name}` | {ratio(found, 'run', 'peer')} |"
    leaf = images.clone().requires_grad_()
    found = interleaved({"run": through(leaf, relu), "peer": through(leaf, torch.relu)}, rounds)
    yield (
        f"| relu and dropout, forward and backward | {tuple(leaf.shape)} | `relu` | "
        f"{ratio(found, 'run', 'peer')} |"
    )


def times(x: Tensor) -> Tensor:
    return x * 1.25


def eager(sizes: list[int], rounds: int) -> Iterator[str]:
    yield "### `torch.nn.functional.dropout` / dropkit, one thread: how many times faster\n"
    yield "| elements | forward | forward, with gradient | forward and backward |"
    yield "|---|---|---|---|"
    theirs = functools.partial(torch.nn.functional.dropout, p=0.1)
    ours = functools.partial(F.dropout, p=0.1)
    for size in sizes:
        x = torch.randn(size)
        leaf = x.clone().requires_grad_()
        found = interleaved(
            {
                "torch": functools.partial(theirs, x),
                "ours": functools.partial(ours, x),
                "torch grad": functools.partial(theirs, leaf),
                "ours grad": functools.partial(ours, leaf),
                "torch both": through(leaf, theirs),
                "ours both": through(leaf, ours),
            },
            rounds,
        )
        cells = [ratio(found, "torch" + kind, "ours" + kind) for kind in ("", " grad", " both")]
        yield f"| {power(size)} | {' | '.join(cells)} |"


def peers(size: int, rounds: int) -> Iterator[str]:
    x, rng = torch.randn(size), np.random.default_rng(0)
    array = x.numpy()
    compiled = torch.compile(lambda x: torch.nn.functional.dropout(x, 0.1))
    contenders: dict[str, Run] = {
        "x * c": lambda: times(x),
        "dropkit": lambda: F.dropout(x, 0.1),
        "torch, eager": lambda: torch.nn.functional.dropout(x, 0.1),
        "torch, compiled": lambda: compiled(x),
        "NumPy": lambda: np.where(
            rng.random(size, dtype=np.float32) >= 0.1, array * np.float32(1 / 0.9), np.float32(0)
        ),
    } | jax_contender(array)
    found = interleaved(contenders, rounds)
    yield f"### Peers, {power(size)} elements, float32, p = 0.1, forward, one thread\n"
    yield "| | G elements/s | time / `x * c` |"
    yield "|---|---|---|"
    for name in contenders:
        speed = size / statistics.median(found[name]) / 1e9
        yield f"| {name} | {speed:.2f} | {ratio(found, name, 'x * c')} |"


def jax_contender(array: np.ndarray) -> dict[str, Run]:  # type: ignore[type-arg]
    try:
        import jax
    except ModuleNotFoundError:
        return {}

    @jax.jit
    def drop(key, x):  # type: ignore[no-untyped-def]
        return jax.numpy.where(jax.random.bernoulli(key, 0.9, x.shape), x / 0.9, 0.0)

    key, x = jax.random.key(0), jax.numpy.asarray(array)
    return {f"JAX {jax.__version__}, jitted": lambda: drop(key, x).block_until_ready()}


def kept() -> Iterator[str]:
    """Bytes that autograd keeps between forward and backward."""
    x = torch.randn(1 << 20, requires_grad=True)
    yield "### Bytes kept for backward, per element\n"
    yield "| | bytes |"
    yield "|---|---|"
    for name, run in (("dropkit", F.dropout), ("torch", torch.nn.functional.dropout)):
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(x)
        yield f"| {name} | {sum(sizes) / x.numel():g} |"


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter(()),
        platform.processor(),
    )
    return (
        f"{model}, {os.cpu_count()} cores; kernels {', '.join(kernels()) or 'none'}; torch "
        f"{torch.__version__}, NumPy {np.__version__}, Python {platform.python_version()}; "
        f"{time.strftime('%Y-%m-%d')}"
    )


def report(quick: bool) -> Iterator[str]:
    rounds = 5 if quick else ROUNDS
    sizes = [1 << 18, 1 << 20] if quick else [1 << 18, 1 << 20, 1 << 22, 1 << 25]
    yield "# The cost of a mask\n"
    yield (
        "Written by `make bench-kernel`. A cell is the median of the ratios of interleaved rounds "
        f"in one process, and its quartiles. {machine()}.\n"
    )
    for threads in (1, 2):
        torch.set_num_threads(threads)
        yield from multiplication(sizes, rounds, threads)
        yield ""
    torch.set_num_threads(1)
    yield from structured(1 << 22, rounds)
    yield ""
    yield from eager([1 << n for n in (7, 10, 13, 18, 20, 22)], rounds)
    yield ""
    yield from peers(1 << 20, rounds)
    yield ""
    yield from kept()
    yield ""
    yield from training_step.table(rounds=5 if quick else 31)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rounds and sizes")
    options.add_argument("--write", type=Path, help="the page to write")
    asked = options.parse_args()
    lines = []
    for line in report(asked.quick):
        print(line, flush=True)
        lines.append(line)
    wanted = ["", *kernel_wanted.section(lines)]
    print("\n".join(wanted))
    lines += wanted
    if asked.write:
        asked.write.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
