"""The conformance suite over the dropouts of the field, as tables.

    python benchmarks/conformance.py [--effort thorough] [--only NAME ...] [--markdown FILE]

Libraries that are not installed are left out. With --markdown the page is written to a file
(docs/conformance.md is one); otherwise it is printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import torch

import conformance_kernels
from dropkit.testing import CHECKS, CONCERNS, Check, Report, Subject, check
from dropkit.testing.effort import Effort
from dropkit.testing.own import dropkit_functions, dropkit_layers
from dropkit.testing.subjects import (
    timm_layers,
    torch_layers,
    torchvision_layers,
    transformers_layers,
)

LIBRARIES = {
    "torch": torch_layers(),
    "torchvision": torchvision_layers(),
    "timm": timm_layers(),
    "transformers": transformers_layers(),
    "dropkit": (*dropkit_layers(), *dropkit_functions()),
}
CELLS = {"pass": "ok", "fail": "**FAIL**", "not applicable": "-"}

WHY = {
    "rate": "The seed rate of the DropBlock paper ignores that blocks overlap, so that too few are "
    "dropped where p is large. timm seeds the whole map at the rate that is meant for its inner "
    "part, so that too many are.",
    "rate_by_position": "What lies near a border is in fewer blocks than what lies in the middle.",
    "rate_by_input": "Where 1 - p plus a uniform draw is computed in the dtype of the input and "
    "rounded down, bfloat16 has rates in 256ths: a rate of 1/4096 is none. Where the kept are "
    "counted by a sum in float16 (torchvision), more than 65504 are infinitely many, and the scale "
    "is 0.",
    "scale": "In float64 the factor has another precision: size / kept is computed in float32 "
    "(timm), or something is added to the number of the kept (torchvision).",
    "half": "The factor is rounded to the half before it multiplies. In bfloat16 at rate 0.1 it is "
    "1.109 in place of 1.111, and so is the mean. This is the CPU; CUDA's kernel was not run.",
    "rate_one": "A division by 1 - p that has no case for 0; and a seed rate that is below 1 where "
    "p is 1, so that not all is dropped.",
    "in_place": "The layers take `inplace`, and do not pass it on.",
    "vmap_different": "vmap does not see a draw into a tensor that was not made from its input.",
}

HEAD = """# Conformance

`dropkit.testing` holds a dropout against what it claims: its rate at every position and for any
input, its values, what is independent and what is equal, its derivatives, seeds, modes and keys.
Here are PyTorch's layers, those of other libraries, and dropkit's own. Each cell is one check:
*ok*, **FAIL**, or a dash where the dropout does not claim it. What failed is
[below](#what-failed), with its evidence.

Statistical checks use exact bounds; together they raise a false alarm in fewer than one of two
million runs. To check a dropout of your own, see [the suite](#checking-your-own).
"""
TAIL = """## Checking your own

```python
import torch
from dropkit.testing import Subject, check

mine = Subject(make=torch.nn.Dropout2d, shape=(8, 16, 7, 5), shared=(2, 3))
print(check(mine, only=["rate", "shared_axes", "gradient_mask"]))
```

In a module of tests the same is three lines, and each check is a test of its own:

```python
from dropkit.testing import DropoutContract


class TestMine(DropoutContract):
    subject = mine
```

`check(mine, effort="thorough")` draws 16 times as much, and `effort="small"` a quarter of the
elements in a sixteenth of the calls, by the same checks and bounds; in a contract it is a line,
`effort = "small"`. What each of them finds is a table in `dropkit.testing.effort`.
"""


def run(subjects: Iterable[Subject], effort: Effort) -> list[Report]:
    reports = []
    for subject in subjects:
        began = time.perf_counter()
        reports.append(check(subject, effort=effort))
        took = time.perf_counter() - began
        print(f"{took:6.1f} s  {subject.name}", file=sys.stderr)
    return reports


def table(reports: list[Report], names: list[str]) -> Iterator[str]:
    """Rows are dropouts, columns are checks; those that concern none are left out."""
    shown = [name for name in names if any(r[name].verdict != "not applicable" for r in reports)]
    yield "| dropout | " + " | ".join(name.replace("_", " ") for name in shown) + " |"
    yield "|---|" + ":-:|" * len(shown)
    for report in reports:
        cells = " | ".join(CELLS[report[name].verdict] for name in shown)
        yield f"| {report.subject} | {cells} |"
    yield ""
    for name in shown:
        promise = (CHECKS[name].__doc__ or "").partition("\n")[0]
        yield f"- *{name.replace('_', ' ')}*: {promise}"


def failures(reports: list[Report]) -> Iterator[str]:
    """What failed, by check, with the evidence of each dropout; like evidence is said once."""
    for name in CHECKS:
        failed = [(report.subject, report[name]) for report in reports]
        by_evidence: dict[str, list[str]] = {}
        for subject, found in failed:
            if found.verdict == "fail":
                by_evidence.setdefault(evidence(found), []).append(subject)
        if by_evidence:
            yield f"\n### {name.replace('_', ' ')}\n"
            if name in WHY:
                yield f"{WHY[name]}\n"
            for words, subjects in by_evidence.items():
                yield f"- {', '.join(subjects)}: {words}"


def evidence(found: Check, longest: int = 200) -> str:
    words = " ".join(found.evidence.replace("|", "/").split())
    return words if len(words) <= longest else words[:longest].rsplit(" ", 1)[0] + " ..."


def summary(reports: list[Report]) -> Iterator[str]:
    yield "| dropout | ok | FAIL | - |"
    yield "|---|--:|--:|--:|"
    for report in reports:
        counts = (len(report.counted(verdict)) for verdict in CELLS)
        yield f"| {report.subject} | " + " | ".join(map(str, counts)) + " |"


def versions() -> str:
    there = [
        f"{name} {importlib.metadata.version(name)}"
        for name, subjects in LIBRARIES.items()
        if subjects and name != "dropkit"
    ]
    device = "CPU and CUDA" if torch.cuda.is_available() else "CPU"
    return f"Python {platform.python_version()}, {', '.join(there)}; {device}; seed 0."


def page(reports: list[Report]) -> str:
    lines = [HEAD, versions(), "\n## In all\n", *summary(reports)]
    for concern, tests in CONCERNS.items():
        rows = [test.__name__ for test in tests]
        concerned = [r for r in reports if any(r[n].verdict != "not applicable" for n in rows)]
        lines += [f"\n## {concern.capitalize()}\n", *table(concerned, rows)]
    found = list(failures(reports))
    lines += ["", *conformance_kernels.section()]
    lines += ["## What failed", *(found or ["\nNothing."]), "", TAIL.rstrip(), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--effort", choices=get_args(Effort), default="usual")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of dropouts")
    parser.add_argument("--markdown", type=Path, help="where to write the page")
    given = parser.parse_args()
    chosen = [
        subject
        for library in LIBRARIES.values()
        for subject in library
        if any(part in subject.name for part in given.only)
    ]
    text = page(run(chosen, given.effort))
    if given.markdown:
        given.markdown.write_text(text, "utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
