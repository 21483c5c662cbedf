"""Dropout on a GPU, forward and backward, against PyTorch's and torch.compile of it, and a copy.

First the bits: the mask on the GPU has to be that of the CPU. Then times by CUDA events, each round
timing every contestant in turn; the figures are medians over rounds with their ranges. Bandwidth
counts what a dropout must move: x and y forward, the two gradients backward.

    python benchmarks/kernel_gpu.py [--elements 268435456] [--rates 0.1 0.5] [--rounds 21]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

import dropkit
import dropkit.functional as F

WARM = 3
"""Rounds before the first that counts: compilation, the allocator, clocks."""

ODD = (1 << 20) + 7
"""Elements whose bits are compared: whole tiles and a rest."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Step = Callable[[], object]


def compare_bits() -> int:
    """How many masks were compared; an error at the first that differs."""
    places = (0, 5, (1 << 37) + 13, (1 << 62) + 16)
    cases = [(p, at, dtype) for p in (1e-9, 0.1, 0.25, 0.9) for at in places for dtype in DTYPES]
    for p, offset, dtype in cases:
        x = torch.linspace(-4, 4, ODD).to(dtype)
        there = F.dropout(x.cuda(), p, key=1234, offset=offset).cpu()
        if not torch.equal(F.dropout(x, p, key=1234, offset=offset), there):
            raise SystemExit(f"The bits differ from the CPU's: p={p}, offset={offset}, {dtype}")
    return len(cases)


def contestants(x: Tensor, grad: Tensor, p: float) -> dict[str, dict[str, Step]]:
    """For each name, what runs forward and what runs forward and backward."""
    y = torch.empty_like(grad)
    theirs = torch.nn.functional.dropout
    named: dict[str, Callable[[Tensor], Tensor]] = {
        "dropkit": lambda z: F.dropout(z, p),
        "dropkit, key given": lambda z: F.dropout(z, p, key=7),
        "torch": lambda z: theirs(z, p),
        "torch.compile": torch.compile(lambda z: theirs(z, p)),
    }

    def both(call: Callable[[Tensor], Tensor]) -> Step:
        return lambda: torch.autograd.grad(call(x), x, grad)

    steps = {
        name: {"forward": lambda call=call: call(x.detach()), "forward + backward": both(call)}
        for name, call in named.items()
    }
    copies = {"forward": lambda: y.copy_(grad), "forward + backward": lambda: copy_twice(y, grad)}
    return {"copy (the bound)": copies, **steps}


def copy_twice(y: Tensor, x: Tensor) -> None:
    y.copy_(x)
    y.copy_(x)


def milliseconds(step: Step) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def timed(steps: dict[str, dict[str, Step]], what: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contestant, interleaved: drifting clocks touch all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM + rounds):
        for name, step in steps.items():
            spent = milliseconds(step[what])
            if turn >= WARM:
                times[name].append(spent)
    return times


def report(times: dict[str, list[float]], moved: int) -> None:
    best = statistics.median(next(iter(times.values())))
    for name, spent in times.items():
        middle = statistics.median(spent)
        print(
            f"| {name} | {middle:.3f} | {min(spent):.3f} to {max(spent):.3f} "
            f"| {moved / middle / 1e6:.0f} | {best / middle:.2f} |"
        )


def provenance() -> str:
    """The machine, the versions and the commit that the figures belong to."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "none"
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
    ).stdout.strip()
    return (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__} (CUDA {torch.version.cuda}), "
        f"Triton {triton}, Python {platform.python_version()}, dropkit {dropkit.__version__} "
        f"({commit or 'no commit'})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 28)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5])
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a GPU that PyTorch can use; it found none.")
    print(provenance())
    print(f"{compare_bits()} masks are those of the CPU, bit for bit.")
    x = torch.ones(asked.elements, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    grad = torch.ones_like(x, requires_grad=False)
    for p in asked.rates:
        steps = contestants(x, grad, p)
        for passes, what in enumerate(("forward", "forward + backward"), 1):
            print(f"\np = {p}, {what}, {asked.elements} elements of bfloat16\n")
            print("| | ms | range | GB/s | of a copy |\n|---|---|---|---|---|")
            report(timed(steps, what, asked.rounds), passes * 4 * asked.elements)


if __name__ == "__main__":
    main()
