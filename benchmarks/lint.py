"""How fast `dropkit lint` is on real trees, beside torchfix and beside Python's own parser.

Each tree is linted by a process of its own on one core, and the figure is its processor time, from
the interpreter's start to its end: the median of some runs, with their range. Torchfix is run once,
as it takes minutes; it needs an environment of its own (pip install torchfix).

    python benchmarks/lint.py TREE... [--repeats 5] [--torchfix /path/to/torchfix]
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path


def processor_seconds(command: list[str]) -> float:
    """Of a process and its children, without what it prints."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:  # type: ignore[call-overload]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return float(used.ru_utime + used.ru_stime)


def size(tree: Path) -> tuple[int, int]:
    """Files and lines."""
    files = list(tree.rglob("*.py"))
    return len(files), sum(file.read_bytes().count(b"\n") for file in files)


def parsed(tree: Path) -> float:
    """Seconds in which Python parses the whole tree, and does nothing else."""
    texts = [file.read_bytes() for file in tree.rglob("*.py")]
    began = time.process_time()
    for text in texts:
        try:
            ast.parse(text)
        except (SyntaxError, ValueError):
            continue
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--torchfix", help="the command, to compare with")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(
        "| tree | files | lines | dropkit lint, s | lines per s | parsing alone, s | torchfix, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for tree in asked.trees:
        files, lines = size(tree)
        ours = [sys.executable, "-m", "dropkit", "lint", "--jobs", "1", "--isolated", str(tree)]
        runs = [processor_seconds(ours) for _ in range(asked.repeats)]
        middle = statistics.median(runs)
        spread = f"{middle:.2f} ({min(runs):.2f} to {max(runs):.2f})"
        theirs = ""
        if asked.torchfix:
            took = processor_seconds([asked.torchfix, "-j", "1", str(tree)])
            theirs = f"{took:.0f} ({took / middle:.0f} times)"
        print(
            f"| {tree.name} | {files:,} | {lines:,} | {spread} | {lines / middle:,.0f} "
            f"| {parsed(tree):.2f} | {theirs} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
