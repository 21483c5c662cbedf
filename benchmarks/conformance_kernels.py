"""The conformance suite over dropkit's own dropouts, with one kernel.

    DROPKIT_KERNEL=avx2 python benchmarks/conformance_kernels.py [--effort small] [--only NAME ...]
    DROPKIT_KERNEL=triton TRITON_INTERPRET=1 python benchmarks/conformance_kernels.py

What was found is kept in a file of the kernel's, dropout by dropout, so that a run that was
interrupted goes on, as long as the code is the same; and the section on kernels in
docs/conformance.md is written from these files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import torch

from dropkit.kernel import gpu, native
from dropkit.testing import Subject, check
from dropkit.testing.effort import Effort
from dropkit.testing.own import dropkit_functions, dropkit_layers

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "conformance"
PAGE = ROOT / "docs" / "conformance.md"
KERNELS = {
    "reference": "plain torch",
    "portable": "C++, portable",
    "avx2": "AVX2",
    "avx512": "AVX-512",
    "neon": "NEON",
    "triton": "Triton, interpreted",
}
HEADING = "## Kernels"
HEAD = """
dropkit's own dropouts again, with each of the kernels that draw their masks. A cell says how many
checks were passed, and how many failed.

`make conformance KERNEL=avx2` makes a column, `make conformance-triton` that of the GPU's kernels,
interpreted. There a call takes a twentieth of a second, and so the run is a small one: all checks,
by the same exact bounds, on fewer draws. At a rate of 0.1 it finds a deviation of 0.0025 in 99 of
100 runs, where a usual one finds 0.0013; at 0.3, where each call has 96 draws, 0.036 and 0.009. Of
the wrong dropouts in `tests/mutants_dropout.py` it catches all but three, which are named there."""

Row = dict[str, Any]


def kernel() -> str:
    """The kernel that is asked for, and there."""
    name = native.forced()
    if not name:
        sys.exit(f"expected DROPKIT_KERNEL to name a kernel, one of {', '.join(KERNELS)}")
    if name == "triton" and not gpu.available(torch.device("cpu")):
        sys.exit("expected Triton to be installed, and TRITON_INTERPRET=1")
    return name


def found(subject: Subject, effort: Effort) -> Row:
    """What the checks of one dropout say, and what they took."""
    began = time.process_time()
    with warnings.catch_warnings():  # numpy's, of infinities: the interpreter computes with it
        warnings.filterwarnings("ignore", "invalid value|overflow", RuntimeWarning)
        report = check(subject, effort=effort)
    took = time.process_time() - began
    failed = {found.name: found.evidence for found in report.failures}
    passed = [found.name for found in report.counted("pass")]
    return {"dropout": subject.name, "passed": passed, "failed": failed, "seconds": round(took, 1)}


def run(subjects: Iterable[Subject], effort: Effort, file: Path, conditions: Row) -> None:
    """Check those that the file has not, under the same conditions; and write each into it."""
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {}
    rows = kept["rows"] if kept.get("conditions") == conditions else []
    done = {row["dropout"] for row in rows}
    for subject in subjects:
        if subject.name in done:
            continue
        row = found(subject, effort)
        rows.append(row)
        text = json.dumps({"conditions": conditions, "rows": rows}, indent=1)
        file.write_text(text + "\n", "utf-8")
        verdict = "".join(f"\n    FAIL {name}: {why}" for name, why in row["failed"].items())
        said = f"{row['seconds']:6.1f} s  {len(row['passed'])} ok  {row['dropout']}{verdict}"
        print(said, file=sys.stderr, flush=True)


def conditions(effort: Effort) -> Row:
    """What the results hang on."""
    versions = {"torch": torch.__version__, "Python": platform.python_version()}
    if native.forced() == "triton":
        import triton

        versions = {"Triton": triton.__version__, **versions}
    return {"effort": effort, "seed": 0, "versions": versions, "code": code()}


def code() -> str:
    """A name of all that draws, and all that checks."""
    source = ROOT / "src" / "dropkit"
    parts = [source / part for part in ("kernel", "functional", "nn", "testing")]
    files = sorted(at for part in parts for at in part.rglob("*"))
    texts = (at.read_bytes() for at in files if at.suffix in (".py", ".cpp", ".hpp"))
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


# ---- the page


def section(directory: Path = RESULTS) -> list[str]:
    """The section of the page: a column for each kernel that was run."""
    runs = {name: directory / f"{name}.json" for name in KERNELS}
    runs = {name: json.loads(at.read_text("utf-8")) for name, at in runs.items() if at.exists()}
    if not runs:
        return []
    cells = {name: {row["dropout"]: row for row in runs[name]["rows"]} for name in runs}
    dropouts = list(dict.fromkeys(name for rows in cells.values() for name in rows))
    lines = [HEADING, HEAD, "", "| dropout | " + " | ".join(KERNELS[name] for name in runs) + " |"]
    lines.append("|---|" + ":-:|" * len(runs))
    for dropout in dropouts:
        row = " | ".join(cell(rows.get(dropout)) for rows in cells.values())
        lines.append(f"| {dropout} | {row} |")
    return [*lines, "", *(taken(name, runs[name]) for name in runs), *failures(cells), ""]


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    failed = f", **{len(row['failed'])} FAIL**" if row["failed"] else ""
    return f"{len(row['passed'])} ok{failed}"


def taken(name: str, ran: Row) -> str:
    effort, versions = ran["conditions"]["effort"], ran["conditions"]["versions"]
    seconds = sum(row["seconds"] for row in ran["rows"])
    said = ", ".join(f"{what} {version}" for what, version in versions.items())
    return f"- {KERNELS[name]}: a {effort} run, {seconds:,.0f} s of one processor's time; {said}."


def failures(cells: dict[str, dict[str, Row]]) -> Iterator[str]:
    for name, rows in cells.items():
        for row in rows.values():
            for what, evidence in row["failed"].items():
                yield f"- {KERNELS[name]}, {row['dropout']}: {what}: {evidence}"


def write(page: Path) -> None:
    """Put the section into a page, in its place or before what failed."""
    text = page.read_text("utf-8")
    text = re.sub(rf"^{HEADING}\n.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    before, after = text.split("## What failed", 1)
    lines = "\n".join(section())
    page.write_text(f"{before}{lines}\n## What failed{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--effort", choices=get_args(Effort), help="by default small for Triton")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of dropouts")
    given = parser.parse_args()
    name = kernel()
    effort = given.effort or ("small" if name == "triton" else "usual")
    own = (*dropkit_layers(), *dropkit_functions())
    chosen = [subject for subject in own if any(part in subject.name for part in given.only)]
    RESULTS.mkdir(exist_ok=True)
    run(chosen, effort, RESULTS / f"{name}.json", conditions(effort))
    write(PAGE)


if __name__ == "__main__":
    main()
