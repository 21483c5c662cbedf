"""The table of sites: does each tool draw what training draws, and leave the model as it was?"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from benchmarks.sampling.laws import Verdict, compared
from benchmarks.sampling.models import KINDS, Kind, truth
from benchmarks.sampling.states import changes, state
from benchmarks.sampling.tools import Tool
from torch import Tensor

DRAWS, RIGHT = 4000, 40_000
HEADING = "## Which sites are sampled"
LEFT = "What is left of it in the model"
AT_ONCE = 500
"""Draws of one call: a tool that folds makes a batch of them."""
STILL = Verdict(0.0, math.inf)
"""Of a tool whose draws of one call are all the same."""
OWN = frozenset(("generator",))
"""What any tool that draws by torch's own generator changes."""


@dataclass(frozen=True)
class Cell:
    """What came of one tool and one kind of site."""

    verdict: Verdict | None
    left: tuple[str, ...] = ()
    error: str = ""
    warned: bool = False
    """Whether something was said of layers or of dropout."""

    @property
    def is_silent(self) -> bool:
        """Whether there is no uncertainty, and no word of it."""
        return self.verdict is not None and self.verdict.spread == 0 and not self.warned

    @property
    def word(self) -> str:
        """For the table of laws."""
        if self.verdict is None:
            return "refused"
        if self.verdict.spread == 0:
            return "no spread, warned" if self.warned else "**no spread**"
        if self.verdict.is_right:
            return "yes"
        return f"**another law** ({self.verdict.spread:.2f} of the spread)"

    @property
    def trace(self) -> str:
        """For the table of what is left."""
        if self.verdict is None and not self.left:
            return "-"
        return ", ".join(self.left) or "nothing"


def cell(tool: Tool, kind: Kind, right: Tensor, draws: int) -> Cell:
    """One tool, at a model of its own."""
    model, x = kind.made()
    torch.manual_seed(2)
    before, error, verdict = state(model), "", None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            each = min(AT_ONCE, draws)
            calls = [tool.sample(model, x, each) for _ in range(draws // each)]
            still = all(torch.equal(call, call[:1].expand_as(call)) for call in calls)
            verdict = STILL if still else compared(torch.cat(calls), right)
        except Exception as problem:  # a tool may fail as it likes: it is a row of the table
            error = _short(problem)
    warned = any(re.search("dropout|layer", str(one.message), re.IGNORECASE) for one in said)
    return Cell(verdict, tuple(changes(before, state(model))), error, warned)


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).replace("|", "/").strip("('\",)")


def kinds() -> Iterator[Kind]:
    """Those whose packages are there."""
    for kind in KINDS:
        if not kind.needs or find_spec(kind.needs):
            yield kind


def table(tools: Sequence[Tool], quick: bool = False) -> Iterator[str]:
    """Both tables."""
    tools = [tool for tool in tools if not tool.missing]
    draws, right = (1000, 10_000) if quick else (DRAWS, RIGHT)
    rows: dict[str, list[Cell]] = {}
    yield f"{HEADING}\n"
    yield (
        f"{draws} draws of each tool are held against {right} of torch's own dropout in training "
        "mode, with the normalization in evaluation mode: single values, sums over the batch and "
        "draws that follow each other. A cell says whether all of it has one law; one in a million "
        "of right cells is called wrong.\n"
    )
    head = " | ".join(tool.name for tool in tools)
    yield f"| site | {head} |"
    yield "|---" * (len(tools) + 1) + "|"
    for kind in kinds():
        drawn = truth(kind, right)
        rows[kind.name] = [cell(tool, kind, drawn, draws) for tool in tools]
        yield f"| {kind.name} | {' | '.join(one.word for one in rows[kind.name])} |"
    yield from refusals(tools, rows)
    yield f"\n### {LEFT}\n"
    yield (
        "Parameters, buffers, modes, modules, hooks and attributes are compared bit by bit and by "
        "identity, and so is the state of torch's generator, which a tool that draws by it has to "
        "move. Tools with a way back have taken it; the others are followed by `model.eval()`.\n"
    )
    yield f"| site | {head} |"
    yield "|---" * (len(tools) + 1) + "|"
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(one.trace for one in cells)} |"
    yield "\n" + counted(tools, rows)


def refusals(tools: Sequence[Tool], rows: dict[str, list[Cell]]) -> Iterator[str]:
    """What tools said that refused, each saying once."""
    for at, tool in enumerate(tools):
        said = dict.fromkeys(row[at].error for row in rows.values() if row[at].error)
        if said:
            yield f"\n{tool.name} refused: {'; '.join(said)}"


def counted(tools: Sequence[Tool], rows: dict[str, list[Cell]]) -> str:
    """In how many rows a tool draws the right law, and in how many it leaves nothing but draws."""
    said = []
    for at, tool in enumerate(tools):
        cells = [row[at] for row in rows.values()]
        right = sum(one.verdict is not None and one.verdict.is_right for one in cells)
        silent = sum(one.is_silent for one in cells)
        clean = sum(one.verdict is not None and set(one.left) <= OWN for one in cells)
        said.append(
            f"| {tool.name} | {right} of {len(cells)} | {silent} | {clean} of {len(cells)} | "
            f"{sum(not one.left and one.verdict is not None for one in cells)} of {len(cells)} |"
        )
    head = (
        "| tool | right law | no spread, and no word of it | model as it was | and the generator |"
        "\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(said)
