"""What a mask was wanted to cost, beside what it was measured to cost: read from the other tables.

    python benchmarks/kernel_wanted.py docs/speed.md

writes the section anew without measuring anything; `benchmarks/kernel.py` ends with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HEADING = "### What was wanted"


class Row(NamedTuple):
    """A row of a table under a heading."""

    heading: str
    cells: list[str]


class Wanted(NamedTuple):
    """A promise: where its figures stand, and what they have to be."""

    what: str
    bound: float
    reach: str
    heading: str
    columns: Sequence[int]
    of: Callable[[list[str]], bool] = lambda cells: True
    at_least: bool = False


LARGE = ("2^18", "2^20", "2^22")
PROMISES = (
    Wanted("forward / `x * c`, AVX-512", 1.15, "1.0", "Dropout / `x * c`", [4],
           lambda cells: cells[0] == "avx512"),
    Wanted("forward / `x * c`, AVX2", 1.6, "1.25", "Dropout / `x * c`", [4],
           lambda cells: cells[0] == "avx2"),
    Wanted("forward and backward / the same of `x * c`", 1.15, "1.0", "Dropout / `x * c`", [5]),
    Wanted("times faster than `F.dropout`, 2^18 to 2^22", 25, "40", "`torch.nn.functional", [1],
           lambda cells: cells[0] in LARGE, at_least=True),
    Wanted("never slower than `F.dropout`, forward, from 2^10", 1, "from 2^7",
           "`torch.nn.functional", [1, 2], lambda cells: cells[0] != "2^7", at_least=True),
    Wanted("the same, forward and backward", 1, "from 2^7", "`torch.nn.functional", [3],
           lambda cells: cells[0] != "2^7", at_least=True),
    Wanted("bytes kept for backward, per element", 0, "", "Bytes kept", [1],
           lambda cells: cells[0] == "dropkit"),
    Wanted("channel, time and sample masks / `x * c`", 1.1, "", "Shared masks", [3],
           lambda cells: cells[0].partition(",")[0] in ("channels", "time steps", "samples")),
    Wanted("relu and dropout, fused / relu", 1.1, "1.0", "Shared masks", [3],
           lambda cells: cells[0].startswith("relu")),
    Wanted("training step / the same with p = 0", 1.05, "1.02", "A training step", [4],
           lambda cells: cells[2] == "dropkit"),
)  # fmt: skip
UNMEASURED = "| times faster than `F.dropout` on a GPU, forward and backward | >= 1.2 | | - | - |"


def rows(lines: Sequence[str]) -> Iterator[Row]:
    heading = ""
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| "):
            yield Row(heading, [cell.strip() for cell in line.strip("|").split("|")])


def number(cell: str) -> float | None:
    try:
        return float(cell.partition(" ")[0])
    except ValueError:
        return None  # the head of a table


def section(lines: Sequence[str]) -> Iterator[str]:
    """The table of promises, from the page that these lines are."""
    yield f"{HEADING}, and what was measured\n"
    yield "Of all rows above: the least and the greatest figure, and in how many the bound holds.\n"
    yield "| what | wanted | to reach for | measured | holds |"
    yield "|---|---|---|---|---|"
    found = list(rows(lines))
    for promise in PROMISES:
        figures = [
            figure
            for heading, cells in found
            if heading.startswith(promise.heading) and promise.of(cells)
            for column in promise.columns
            if (figure := number(cells[column])) is not None
        ]
        if not figures:
            continue
        good = sum(f >= promise.bound if promise.at_least else f <= promise.bound for f in figures)
        sign = ">=" if promise.at_least else "<="
        yield (
            f"| {promise.what} | {sign} {promise.bound:g} | {promise.reach} | "
            f"{min(figures):g} to {max(figures):g} | {good} of {len(figures)} |"
        )
    yield UNMEASURED
    yield "\nA GPU was not at hand; its kernels are interpreted and compiled in the tests."


def main() -> None:
    page = Path(sys.argv[1])
    lines = page.read_text("utf-8").splitlines()
    kept = lines[: next((at for at, line in enumerate(lines) if line.startswith(HEADING)), None)]
    while kept and not kept[-1]:
        kept.pop()
    page.write_text("\n".join([*kept, "", *section(kept)]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
