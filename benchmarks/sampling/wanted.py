"""What was wanted, beside what was measured: read from the other tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.sampling import coverage, speed, zoo

HEADING = "## What was wanted, and what was measured"


def section(lines: Sequence[str]) -> Iterator[str]:
    """The table of promises, from the page that these lines are."""
    yield f"{HEADING}\n"
    yield "| what | wanted | measured | holds |"
    yield "|---|---|---|---|"
    for threads in (1, 2):
        word = f"{threads} thread{'s' * (threads > 1)}"
        for case in speed.CASES:
            cell = _cell(lines, f"### {case.name}, {word}", "dropkit", 2)
            if cell:
                good = float(cell.partition(" ")[0]) >= case.wanted
                yield f"| {case.name}, {word} | >= {case.wanted:g} | {cell} | {_said(good)} |"
        yield from _any_model(lines, word)
    tally = _cell(lines, f"### {coverage.LEFT}", "dropkit", 1)
    if tally:
        yield f"| kinds of site that are sampled by the right law | all | {tally} | {_all(tally)} |"
        clean = _cell(lines, f"### {coverage.LEFT}", "dropkit", 4)
        yield f"| kinds of site after which nothing is changed | all | {clean} | {_all(clean)} |"


def _any_model(lines: Sequence[str], word: str) -> Iterator[str]:
    part = _part(lines, f"#{zoo.HEADING}, {word}")
    rows = [line.split("|")[3].strip() for line in part if line.startswith("| ")][1:]
    if rows:
        medians = [float(cell.partition(" ")[0] or 0) for cell in rows]
        good = sum(median >= zoo.BOUND for median in medians)
        yield (
            f"| the slowest of {len(medians)} models, {word} | >= {zoo.BOUND} | "
            f"{min(medians):.2f} | {good} of {len(medians)} |"
        )


def _part(lines: Sequence[str], heading: str) -> list[str]:
    """What follows a heading, up to the next one."""
    flat = "\n".join(lines).splitlines()
    start = next((at for at, line in enumerate(flat) if line == heading), None)
    if start is None:
        return []
    rest = flat[start + 1 :]
    return rest[: next((at for at, line in enumerate(rest) if line.startswith("#")), None)]


def _cell(lines: Sequence[str], heading: str, row: str, column: int) -> str:
    """A cell of the last row of a name; empty: there is none."""
    rows = [line.strip("|").split("|") for line in _part(lines, heading) if line.startswith("|")]
    found = [cells[column].strip() for cells in rows if cells[0].strip() == row]
    return found[-1] if found else ""


def _said(good: bool) -> str:
    return "yes" if good else "**no**"


def _all(tally: str) -> str:
    some, _, every = tally.partition(" of ")
    return _said(some == every)
