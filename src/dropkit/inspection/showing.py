"""A map in words, as strings: what `print`, a notebook and the command show of sites.

Names come from models that anyone wrote, so what is shown cannot steer a terminal or a browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from dropkit.records import Site

Tone = Literal["good", "bad", "quiet"]

KINDS = {
    "feature_dropout": "channel dropout",
    "alpha_dropout": "alpha dropout",
    "attention": "attention dropout",
    "recurrent": "dropout between layers",
    "path": "stochastic depth",
    "weights": "weight dropout",
    "mask": "own mask",
    "random": "random draw",
}
"""In words, where the kind is not a word of its own."""

HEADINGS = ("where", "what", "role", "rate", "acts", "source")


@dataclass(frozen=True, slots=True)
class Row:
    """Sites that differ in nothing but the number of their layer."""

    path: str
    what: str
    role: str
    rate: str
    acts: str
    tone: Tone
    source: str

    @property
    def cells(self) -> tuple[str, ...]:
        """As they stand below `HEADINGS`."""
        return (self.path or "(itself)", self.what, self.role, self.rate, self.acts, self.source)


def printable(text: object, most: int = 400) -> str:
    r"""One line, cut to `most` characters, whose marks all print; others are escaped.

    >>> printable("a\n\x1b[31mb")
    'a \\x1b[31mb'
    """
    line = " ".join(str(text)[: 4 * most].split())
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return safe if len(safe) <= most else safe[: most - 3] + "..."


def pattern(path: str) -> str:
    """A path with its numbers left open.

    >>> pattern("h.3.attn")
    'h.*.attn'
    """
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def merged(paths: Iterable[str]) -> str:
    """One path for several of one pattern.

    >>> merged(["h.0.attn", "h.1.attn", "h.2.attn"])
    'h.[0-2].attn'
    """
    parts = zip(*(path.split(".") for path in paths), strict=True)
    return ".".join(_span(part) for part in parts)


def _span(part: Sequence[str]) -> str:
    different = set(part)
    if len(different) == 1:
        return part[0]
    numbers = sorted(int(number) for number in different)
    gaps = len(numbers) != numbers[-1] - numbers[0] + 1
    return f"[{numbers[0]}{'..' if gaps else '-'}{numbers[-1]}]"


def acts(site: Site) -> tuple[str, Tone]:
    """When it drops, as it was seen, and whether that is as it should be."""
    if not site.ran:
        return "never ran", "quiet"
    if site.fired_in_eval:
        when = "train and eval" if site.fired_in_train else "eval only"
        return when, "quiet" if site.kind == "random" else "bad"
    if site.bypassed:
        return "bypassed in eval", "quiet"
    if site.fired_in_train:
        return "train", "good"
    return ("never: rate 0" if site.rate == 0 else "never"), "quiet"


def rows(sites: Iterable[Site]) -> list[Row]:
    """A row for each family of sites, in the order of the map."""
    families: dict[tuple[object, ...], list[Site]] = {}
    for site in sites:
        key = (
            pattern(site.path), site.owner, site.kind, site.role, site.rate, site.operation,
            acts(site), site.source,
        )  # fmt: skip
        families.setdefault(key, []).append(site)
    return [_row(family) for family in families.values()]


def _row(family: Sequence[Site]) -> Row:
    site, count = family[0], len(family)
    when, tone = acts(site)
    return Row(
        path=printable(merged(member.path for member in family), 120),
        what=KINDS.get(site.kind, site.kind) + (f" x{count}" if count > 1 else ""),
        role=site.role,
        rate="?" if site.rate is None else f"{site.rate:.4g}",
        acts=when,
        tone=tone,
        source="" if site.place is None else printable(_short(str(site.place)), 60),
    )


def _short(file: str) -> str:
    return re.split(r"[/\\]", file)[-1]


def title(model: str, sites: Sequence[Site]) -> str:
    """What a map is of, and how much is on it."""
    found = [site for site in sites if site.kind != "random"]
    kinds = len({site.kind for site in found})
    places = f"{len(found)} {'site' if len(found) == 1 else 'sites'}"
    of = f" of {kinds} kinds" if kinds > 1 else ""
    draws = len(sites) - len(found)
    rest = f", {draws} random {'draw' if draws == 1 else 'draws'}" if draws else ""
    return f"{printable(model, 240)}: {places}{of}{rest}"


def plain(model: str, sites: Sequence[Site], unseen: Sequence[str] = ()) -> str:
    """The map as text in columns."""
    lines = [title(model, sites)]
    table = [HEADINGS, *(row.cells for row in rows(sites))]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADINGS))]
    if sites:
        lines.append("")
        lines += ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    lines += [f"Not seen: {printable(what)}" for what in unseen]
    return "\n".join(lines)


_TONES = {"good": "#0a63b0", "bad": "#b4500f", "quiet": "inherit"}
"""Of the report's page; readable on white and on a notebook's dark theme."""


def fragment(model: str, sites: Sequence[Site], unseen: Sequence[str] = ()) -> str:
    """The map as HTML for a notebook: a table with its styles in it, everything escaped."""
    cell = 'style="text-align:left;padding:2px 14px 2px 0"'
    head = "".join(f"<th {cell}>{heading}</th>" for heading in HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td {cell}>{_cell(row, text)}</td>" for text in row.cells) + "</tr>"
        for row in rows(sites)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if sites else ""
    notes = "".join(f"<p>Not seen: {escape(printable(what))}</p>" for what in unseen)
    return f"<div><p><b>{escape(title(model, sites))}</b></p>{table}{notes}</div>"


def _cell(row: Row, text: str) -> str:
    if text == row.path:
        return f"<code>{escape(text)}</code>"
    if text == row.acts:
        return f'<span style="color:{_TONES[row.tone]}">{escape(text)}</span>'
    return escape(text)
