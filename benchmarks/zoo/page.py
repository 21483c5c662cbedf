"""The census as a page."""

from __future__ import annotations

import importlib.metadata
from collections import Counter, defaultdict
from typing import Any

Row = dict[str, Any]

HEAD = """# Census

`dropkit audit` on models that nobody here wrote: which places drop, and what the rules say of them.
Architectures come from their own configs in small, with random weights, and are called with tokens
(Transformers) or zeros (timm, on the meta device, with its dropouts switched on). After each audit
the model, its hooks and the random state are compared with what they were.

`make zoo` writes this page; `make zoo-timm` adds timm.
"""


def page(rows: list[Row]) -> str:
    """All of it, as Markdown."""
    looked = [row for row in rows if "sites" in row]
    parts = [HEAD, _totals(rows, looked), _sites(looked), _findings(looked), _left_out(rows)]
    return "\n".join(part for part in parts if part)


def _totals(rows: list[Row], looked: list[Row]) -> str:
    lines = ["| library | version | models | audited | left out | crashed | changed | sites |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for library in dict.fromkeys(row["library"] for row in rows):
        mine = [row for row in rows if row["library"] == library]
        seen = [row for row in looked if row["library"] == library]
        cells = [
            library,
            _version(library),
            len(mine),
            len(seen),
            sum("left_out" in row for row in mine),
            sum("crash" in row for row in mine),
            sum(not row["unchanged"] for row in seen),
            sum(len(row["sites"]) for row in seen),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _sites(looked: list[Row]) -> str:
    kinds: Counter[tuple[str, str]] = Counter()
    models: dict[tuple[str, str], set[str]] = defaultdict(set)
    evaluated: Counter[tuple[str, str]] = Counter()
    for row in looked:
        for _, kind, role, _, _, in_eval, *_ in row["sites"]:
            kinds[kind, role] += 1
            models[kind, role].add(row["name"])
            evaluated[kind, role] += in_eval
    lines = ["## Sites", "", "| kind | role | sites | models | act in evaluation |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {kind} | {role} | {count} | {len(models[kind, role])} | {evaluated[kind, role] or ''} |"
        for (kind, role), count in kinds.most_common()
    ]
    return "\n".join(lines) + "\n"


def _findings(looked: list[Row]) -> str:
    found: dict[str, list[tuple[str, list[Any]]]] = defaultdict(list)
    for row in looked:
        for finding in row["findings"]:
            found[finding[0]].append((row["name"], finding))
    lines = ["## Findings", ""]
    lines += ["| rule | severity | findings | models | for example |", "|---|---|---|---|---|"]
    for rule, all_of_it in sorted(found.items(), key=lambda item: -len(item[1])):
        model, finding = all_of_it[0]
        names = {name for name, _ in all_of_it}
        where = f"{model}: `{finding[2]}`" if finding[2] else model
        message = finding[3].replace("|", "\\|")
        lines.append(
            f"| `{rule}` | {finding[1]} | {len(all_of_it)} | {len(names)} | {where}: {message} |"
        )
    return "\n".join(lines) + "\n"


def _left_out(rows: list[Row]) -> str:
    why: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if "left_out" in row:
            why[row["left_out"].partition(":")[0]].append(row["name"])
    lines = ["## Left out", ""]
    for reason, names in sorted(why.items(), key=lambda item: -len(item[1])):
        lines.append(f"- {reason}: {len(names)}")
    return "\n".join(lines) + "\n" if why else ""
