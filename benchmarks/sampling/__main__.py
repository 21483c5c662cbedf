"""Monte Carlo dropout, tool by tool: which sites are sampled, what is left behind, what it costs.

    python -m benchmarks.sampling [--quick] [--only coverage speed zoo] [--write PAGE]

Peers that are not installed, or do not load, are named on the page with the reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from benchmarks.sampling import coverage, failures, speed, wanted, zoo
from benchmarks.sampling.tools import PACKAGES, Tool, all_tools, class_walk, packaged

PARTS = ("coverage", "speed", "zoo")


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    there = [name for name in ("transformers", "numpy") if find_spec(name)]
    return (
        f"{next(named, platform.processor())}, {os.cpu_count()} cores{busy}; torch "
        f"{torch.__version__}, {', '.join(f'{name} {metadata.version(name)}' for name in there)}, "
        f"Python {platform.python_version()}; commit {commit or 'unknown'}; "
        f"{time.strftime('%Y-%m-%d')}"
    )


def introduction(peers: list[Tool]) -> Iterator[str]:
    yield "# Monte Carlo dropout, tool by tool\n"
    yield f"Written by `make bench-sampling`. {machine()}.\n"
    there = {tool.package: tool.version for tool in peers if not tool.missing}
    yield f"Peers: {', '.join(f'{name} {version}' for name, version in there.items()) or 'none'}.\n"
    missing = {PACKAGES[tool.name][0]: tool.missing for tool in peers if tool.missing}
    for name, why in missing.items():
        yield f"{name} could not be tried: {why}.\n"


def report(parts: list[str], quick: bool) -> Iterator[str]:
    peers = [packaged(name) for name in PACKAGES]
    yield from introduction(peers)
    torch.set_num_threads(1)
    if "coverage" in parts:
        yield from coverage.table(all_tools(), quick)
        yield ""
        yield from failures.spoilt(all_tools())
        yield ""
    timed = [Tool("class walk", class_walk), *peers]
    if "speed" in parts:
        yield f"## What {speed.DRAWS} draws cost\n"
        yield speed.WORDS
        for threads in (1, 2):
            torch.set_num_threads(threads)
            yield from speed.table(timed, quick)
    if "zoo" in parts:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            yield from zoo.table(quick)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few draws, rounds and models")
    options.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options.add_argument("--write", type=Path, help="the page to write")
    asked = options.parse_args()
    lines = []
    for line in report(asked.only, asked.quick):
        print(line, flush=True)
        lines.append(line)
    for line in wanted.section(lines):
        print(line)
        lines.append(line)
    if asked.write:
        asked.write.write_text("\n".join(lines).rstrip() + "\n", "utf-8")


if __name__ == "__main__":
    main()
