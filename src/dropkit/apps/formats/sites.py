"""A map of sites for a terminal, as a table and as a tree, and as JSON that can be read back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dropkit import __version__
from dropkit.apps import codec
from dropkit.errors import InputError
from dropkit.inspection.showing import Row, plain, printable, rows, title
from dropkit.records import Site

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text
    from rich.tree import Tree

VERSION = 1

WIDE = 100
"""Columns from which a table has room for the lines of source."""

_STYLES = {"good": "green", "bad": "bold red", "quiet": "dim"}


class Map(Protocol):
    """What `dropkit.sites` gives."""

    @property
    def model(self) -> str:
        """What it is a map of."""

    @property
    def sites(self) -> Sequence[Site]:
        """In the order in which they ran."""

    @property
    def unseen(self) -> Sequence[str]:
        """What could not be looked at."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A map as it was read from JSON."""

    model: str
    sites: tuple[Site, ...]
    unseen: tuple[str, ...] = ()


def text(found: Map, *, tree: bool = False, width: int = 88, color: bool = False) -> str:
    """The map as a table, or as a tree of modules; in plain columns where there are no colours."""
    if not color and not tree:
        return plain(found.model, found.sites, found.unseen) + "\n"
    shown: list[RenderableType] = [_tree(found) if tree else _table(rows(found.sites), width)]
    if not tree:
        shown.insert(0, _words(title(found.model, found.sites), "bold"))
    shown += [_words(f"Not seen: {printable(what)}", "yellow") for what in found.unseen]
    return _drawn(shown, width, color)


def _drawn(parts: Iterable[RenderableType], width: int, color: bool) -> str:
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as caught:
        for part in parts:
            console.print(part)
    lines = caught.get().splitlines()
    return "\n".join(line if color else line.rstrip() for line in lines) + "\n"


def _table(table: Sequence[Row], width: int) -> RenderableType:
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    drawn.add_column("where", overflow="fold", min_width=16)
    for heading in ("what", "role", "rate", "acts"):
        drawn.add_column(heading, justify="right" if heading == "rate" else "left", no_wrap=True)
    if width >= WIDE:
        drawn.add_column("source", no_wrap=True)
    for row in table:
        where, what, role, rate, acts, source = row.cells
        cells = [(where, ""), (what, ""), (role, ""), (rate, "bold"), (acts, _STYLES[row.tone])]
        cells += [(source, "dim")] if width >= WIDE else []
        drawn.add_row(*(_words(*cell) for cell in cells))
    return drawn


@dataclass
class _Branch:
    """A module on the map, with what stands in it."""

    rows: list[Row]
    parts: dict[str, _Branch]


def _tree(found: Map) -> Tree:
    """Modules as branches, each with its site; a row of modules with one part each is one."""
    from rich.tree import Tree

    top = _Branch([], {})
    for row in rows(found.sites):
        branch = top
        for part in row.path.split(".") if row.path else ():
            branch = branch.parts.setdefault(part, _Branch([], {}))
        branch.rows.append(row)
    root = Tree(_words(title(found.model, found.sites), "bold"), guide_style="dim")
    for row in top.rows:
        root.add(_leaf("(itself)", row))
    _grow(root, top)
    return root


def _grow(tree: Tree, branch: _Branch) -> None:
    for name, part in branch.parts.items():
        while not part.rows and len(part.parts) == 1:
            ((below, part),) = part.parts.items()
            name = f"{name}.{below}"
        if len(part.rows) == 1:
            _grow(tree.add(_leaf(name, part.rows[0])), part)
            continue
        grown = tree.add(_words(name, ""))
        for row in part.rows:
            grown.add(_leaf("", row))
        _grow(grown, part)


def _leaf(name: str, row: Row) -> Text:
    from rich.text import Text

    return Text.assemble(
        f"{name}  " if name else "", (row.what, "cyan"), (f" p={row.rate}", "bold"),
        f", {row.role}, ", (row.acts, _STYLES[row.tone]),
    )  # fmt: skip


def _words(said: str, style: str) -> Text:
    from rich.text import Text

    return Text(said, style=style)


def to_json(found: Map) -> str:
    """The map as JSON in ASCII; `from_json` gives it back."""
    content = {
        "format": "dropkit-sites",
        "version": VERSION,
        "dropkit": __version__,
        "model": found.model,
        "unseen": list(found.unseen),
        "sites": [codec.encode(site) for site in found.sites],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def from_json(written: str) -> Kept:
    """The map that `to_json` wrote.

    Raises:
        InputError: it is no such JSON, or of a later version.
    """
    try:
        content: Any = json.loads(written)
        if not isinstance(content, dict) or content.get("format") != "dropkit-sites":
            raise ValueError("it does not say that it is one")
        if content["version"] != VERSION:
            raise ValueError(f"it has version {content['version']!r}; this dropkit reads {VERSION}")
        kept = {name: content[name] for name in ("model", "sites", "unseen")}
        return codec.decode(Kept, kept)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"expected a map as `dropkit sites --format json` writes it; {printable(why)}"
        ) from error
