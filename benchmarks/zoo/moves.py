"""Moves every rate of models that nobody here wrote, each to another, and counts what is dropped.

    python -m benchmarks.zoo.moves [LIBRARY ...] [--only NAME ...] [--out FILE] [--write PAGE]

A row of JSON for each model goes to a file as soon as it is known; models that are in it already
are not run again. With --write a page is made of the whole file (docs/moves.md is one).
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.zoo.__main__ import command, line, state, unchanged
from benchmarks.zoo.page import version
from benchmarks.zoo.subjects import NotATextModel, Subject
from torch import nn

import dropkit
from dropkit.planning.showing import labelled

Row = dict[str, Any]
MOVES = Path("build/moves.jsonl")
RATES = (0.12, 0.33, 0.21, 0.44, 0.27, 0.38)
"""Neighbours get different ones, and none is what models are built with."""

HEAD = """# Moved rates

`dropkit.rates` on models that nobody here wrote: built from their own configs in small, with random
weights. Every site whose rate anything moves is asked for another one than its neighbours, the plan
is applied, and what each drops is counted, 65,536 draws at each call (masks that a model makes by
hand: as it uses them; recurrent layers: what they were called with). Afterwards the model is given
back, and compared with what it was.

`make zoo-moves` writes this page.
"""


def examined(subject: Subject) -> Row:
    row: Row = {"library": subject.library, "name": subject.name}
    try:
        model, args, kwargs = subject.build()
    except NotATextModel as why:
        return row | {"left_out": str(why)}
    except Exception as error:  # of the library: not what is looked at here
        return row | {"left_out": f"cannot be built from its config: {line(error)}"}
    before, began = state(model), time.perf_counter()
    try:
        plan = dropkit.rates(model, *args, **kwargs)
    except dropkit.SettingError as error:
        return row | {"left_out": f"does not run on tokens alone: {line(error)}"}
    movable = list(dict.fromkeys(name for name, site in named(plan) if site.moves))
    plan.update(dict(zip(movable, cycle(RATES))))
    try:
        done = plan.apply()
        row["failed"] = []
        row["touched"] = len(done.touched)
    except dropkit.PlanError as error:
        row["failed"] = [line(error)]
    plan.restore()
    row["seconds"] = round(time.perf_counter() - began, 2)
    row["unchanged"] = unchanged(before, state(model))
    row["sites"] = [[name, site.site.role, way(site)] for name, site in named(plan)]
    row["fixed"] = [[site.name, str(site.site.place)] for site in plan.fixed]
    return row


def named(plan: Any) -> list[tuple[str, Any]]:

    return list(labelled(plan.levers))


def way(site: Any) -> str:
    if site.number is None:
        return "at each call" if site.at_call else "nothing"
    inside = not isinstance(site.number.owner, nn.Module)
    return "a configuration" if inside else "an attribute"


def page(found: list[Row]) -> str:
    looked = [row for row in found if "sites" in row]
    lines = ["| library | version | models | moved | left out | crashed | changed |", "|---|" * 7]
    lines[1] = "|---|---|---|---|---|---|---|"
    for library in dict.fromkeys(row["library"] for row in found):
        mine = [row for row in found if row["library"] == library]
        seen = [row for row in looked if row["library"] == library]
        whole = sum(not row["failed"] for row in seen)
        out, crashed = (sum(what in row for row in mine) for what in ("left_out", "crash"))
        changed = sum(not row["unchanged"] for row in seen)
        cells = (library, version(library), len(mine), whole, out, crashed, changed)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    ways = Counter((role, by) for row in looked for _, role, by in row["sites"])
    kinds = ("an attribute", "a configuration", "at each call", "nothing")
    lines += ["", f"| role | {' | '.join(kinds)} |", "|---|---|---|---|---|"]
    for role in sorted({role for role, _ in ways}):
        lines.append(f"| {role} | {' | '.join(str(ways[role, kind]) for kind in kinds)} |")
    lines += ["", "## Sites that nothing moves, and rates that did not arrive", ""]
    for row in looked:
        lines += [f"- {row['name']}: {site}, at {_short(at)}" for site, at in row["fixed"]]
        lines += [f"- {row['name']}: {why}" for why in row["failed"]]
    lines += ["", "## Left out", ""]
    lines += [f"- {row['name']}: {row['left_out']}" for row in found if "left_out" in row]
    lines += [f"- {row['name']}: {row['crash']}" for row in found if "crash" in row]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def _short(place: str) -> str:
    return place.rpartition("site-packages/")[2]


if __name__ == "__main__":
    command(__doc__, MOVES, examined, page)
