"""The page: its parts, of which some may be measured anew and the others stay."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from benchmarks.sampling import coverage, failures, speed, wanted, zoo
from benchmarks.sampling.tools import PACKAGES, Tool, all_tools, class_walk, packaged


def machine() -> str:
    """Where and with what a part was measured."""
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


def introduction() -> Iterator[str]:
    """The peers, and why one is missing."""
    yield "# Monte Carlo dropout, tool by tool\n"
    peers = [packaged(name) for name in PACKAGES]
    there = {tool.package: tool.version for tool in peers if not tool.missing}
    named = ", ".join(f"{name} {version}" for name, version in there.items())
    yield f"Written by `make bench-sampling`. Peers: {named or 'none'}.\n"
    missing = {PACKAGES[tool.name][0]: tool.missing for tool in peers if tool.missing}
    for name, why in missing.items():
        yield f"{name} could not be tried: {why}.\n"


def sites(quick: bool) -> Iterator[str]:
    """Which sites are sampled, what is left behind, and what that does."""
    torch.set_num_threads(1)
    tools = all_tools()
    yield from coverage.table(tools, quick)
    yield ""
    yield from failures.spoilt(tools)


def speeds(quick: bool) -> Iterator[str]:
    """What it costs."""
    yield f"{speed.HEADING}\n"
    yield speed.WORDS
    peers = (packaged(name) for name in PACKAGES)
    timed = [Tool("class walk", class_walk), *peers]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        yield from speed.table(timed, quick)


def any_model(quick: bool) -> Iterator[str]:
    """Whether it is ever slower."""
    yield f"{zoo.HEADING}\n"
    yield zoo.WORDS
    for threads in (1, 2):
        torch.set_num_threads(threads)
        yield from zoo.table(quick)


PARTS: Mapping[str, tuple[str, Callable[[bool], Iterator[str]]]] = {
    "coverage": (coverage.HEADING, sites),
    "speed": (speed.HEADING, speeds),
    "zoo": (zoo.HEADING, any_model),
}
"""By name: the heading, and what measures."""


def page(only: Sequence[str], quick: bool, before: str) -> Iterator[str]:
    """All lines; parts that are not asked for are as they were."""
    lines = list(introduction())
    yield from lines
    for name, (heading, measure) in PARTS.items():
        if name not in only:
            kept = part(before, heading)
            lines += kept
            yield from kept
            continue
        where = machine()
        for line in measure(quick):
            lines.append(line)
            yield line
        lines.append(f"\nMeasured on {where}.\n")
        yield lines[-1]
    yield from wanted.section(lines)


def part(page: str, heading: str) -> list[str]:
    """The lines of a part, its heading first; none: the page has it not."""
    lines = page.splitlines()
    if heading not in lines:
        return []
    start = lines.index(heading)
    ends = (at for at, line in enumerate(lines) if at > start and line.startswith("## "))
    return lines[start : next(ends, len(lines))]
