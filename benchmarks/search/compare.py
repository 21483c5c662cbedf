"""The discovered space against what is searched elsewhere, at the same time on the clock.

    make bench-search-compare
    python -m benchmarks.search.compare [--seconds N] [--seeds N] [--jobs N]

Three tables: 1,000 images of MNIST, and Concrete and Kin8nm of UCI (of the latter 1,000 rows). A
network of two hidden layers that drops its inputs and hidden units is trained with AdamW; a fifth
of its rows validates, and says which epoch and which trial are the best. The ways of choosing stand
in `ways.py`. Each runs for the same time in a process of one thread, interleaved with the others,
and goes on where it stopped. What is compared is the best trial's network on the test rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.search import ways
from benchmarks.search.marks import written
from benchmarks.search.nets import Trained, table
from benchmarks.uci.provenance import provenance
from scipy import stats

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
WAYS = tuple(ways.WAYS)
SECONDS = {"mnist-1000": 1.0, "concrete": 0.45, "kin8nm-1000": 0.45}
"""Of the time that is given, how much each table gets."""

Row = dict[str, Any]


def searched(data: Path, name: str, way: str, seed: int, seconds: float) -> Row:
    """Search in one way: what the best trial scored, and its network on the test rows."""
    of = table(data, name, seed)
    found: list[Trained] = []
    ways.trained(of, {}, {}, 0)  # what loads late is loaded
    ways.WAYS[way](of, seed, time.monotonic() + seconds, found)
    best = min(found)
    row = {"table": name, "way": way, "seed": seed, "seconds": seconds, "trials": len(found)}
    return row | {"valid": best.score, "test": best.test(of)}


def page(rows: list[Row]) -> str:
    """Test loss by table and way, and how much dropkit's is below the others'."""
    lines = [f"| table | {' | '.join(WAYS)} |", f"|---|{'---|' * len(WAYS)}"]
    for name in SECONDS:
        cells = (
            f"{np.mean([*_tests(rows, name, way).values()]):.4f} ({_trials(rows, name, way):.0f})"
            for way in WAYS
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "How much dropkit's loss is below that of the others, with 95 % intervals:", ""]
    lines += [f"| table | {' | '.join(WAYS[1:])} |", f"|---|{'---|' * len(WAYS[1:])}"]
    for name in SECONDS:
        ours = _tests(rows, name, "dropkit")
        cells = (_gap(ours, _tests(rows, name, way)) for way in WAYS[1:])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    spent = ", ".join(f"{row['seconds']:g} s for {row['table']}" for row in _firsts(rows))
    made, seeds = provenance(), len({row["seed"] for row in rows})
    facts = f"{spent}; {seeds} seeds. {made['cpu']}, {made['date']}"
    return "\n".join([*lines, "", f"{facts}."])


def _gap(ours: dict[int, float], theirs: dict[int, float]) -> str:
    gaps = np.array([theirs[seed] - ours[seed] for seed in ours if seed in theirs])
    if len(gaps) < 2:
        return "?"
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
    return f"{gaps.mean():+.4f} ± {half:.4f}"


def _tests(rows: list[Row], name: str, way: str) -> dict[int, float]:
    return {r["seed"]: r["test"] for r in rows if (r["table"], r["way"]) == (name, way)}


def _trials(rows: list[Row], name: str, way: str) -> float:
    return float(np.mean([r["trials"] for r in rows if (r["table"], r["way"]) == (name, way)]))


def _firsts(rows: list[Row]) -> list[Row]:
    return [next(row for row in rows if row["table"] == name) for name in SECONDS]


def _started(data: Path, name: str, way: str, seed: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.search.compare", "--seconds", str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--data", str(data), "--one", name, way, str(seed)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the tables (%(default)s)")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/search.jsonl"))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (args.data / "mnist" / "mnist.npz").exists() or not (args.data / "uci").is_dir():
        parser.error(
            f"expected mnist/mnist.npz (train_images, train_labels, test_images, test_labels) and "
            f"uci/concrete/data.csv, uci/kin8nm/data.csv in {args.data}; try --data FOLDER"
        )
    if args.one:
        name, way, seed = args.one
        print(json.dumps(searched(args.data, name, way, int(seed), args.seconds * SECONDS[name])))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    held = [json.loads(line) for line in args.out.open()] if args.out.exists() else []
    rows = [r for r in held if r["seconds"] == args.seconds * SECONDS[r["table"]]]
    rows = [r for r in rows if r["seed"] < args.seeds]
    done = {(row["seed"], row["table"], row["way"]) for row in rows}
    todo = [one for one in product(range(args.seeds), SECONDS, WAYS) if one not in done]
    for at in range(0, len(todo), args.jobs):
        group = todo[at : at + args.jobs]
        running = [_started(args.data, name, way, seed, args.seconds) for seed, name, way in group]
        for process in running:
            said, _ = process.communicate()
            if process.returncode:
                sys.exit(f"{process.args} ended with {process.returncode}; what was found is kept")
            rows.append(json.loads(said.splitlines()[-1]))
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], file=sys.stderr, flush=True)
    print(page(rows))
    if args.write:
        written(args.write, "compare", page(rows))


if __name__ == "__main__":
    main()
