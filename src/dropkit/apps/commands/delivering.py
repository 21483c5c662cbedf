"""Where a result goes: to a file, to a terminal, or on through a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dropkit.apps.formats import FORMATS

_ENDINGS = {".json": "json", ".sarif": "sarif", ".xml": "junit", ".html": "html", ".htm": "html"}
"""Of --out: what format is meant where none is said."""

WIDEST = 120
"""Columns beyond which lines are hard to follow with the eye."""

_LEVELS = ("error", "warning", "note", "never")
"""Severities, as in `dropkit.records`: to load those would make each --help a fifth slower."""

to_file = click.option("--out", metavar="FILE", help="Where to write.  [default: standard output]")
in_format = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to report.  [default: text, or as the ending of --out says]",
)
in_color = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Whether to colour text.",
)


def fails_on(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option --fail-on: a severity, or None where nothing fails."""
    return click.option(
        "--fail-on",
        type=click.Choice(_LEVELS),
        callback=lambda _context, _option, word: None if word == "never" else word,
        default=default,
        show_default=True,
        help="The least severity that ends with exit code 1.",
    )


def form_of(form: str | None, out: str | None) -> str:
    """The format of a report: as told, else as the file is called."""
    return form or _ENDINGS.get(Path(out or "").suffix.lower(), "text")


def is_colored(choice: str, out: str | None) -> bool:
    """Whether to colour: as told, else on a terminal that nobody asked to be plain."""
    if choice != "auto":
        return choice == "always"
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return out is None and sys.stdout.isatty() and not plain


def width() -> int:
    """Columns to fill."""
    return min(WIDEST, shutil.get_terminal_size().columns)


def deliver(text: str, out: str | None) -> None:
    """Write a result to a file, all or nothing, or to standard output.

    Raises:
        FolderError: the file cannot be written.
    """
    if out is None or out == "-":
        encoding = sys.stdout.encoding or "utf-8"
        safe = text.encode(encoding, "backslashreplace").decode(encoding)
        click.echo(safe, nl=False, color=True)
        return
    from dropkit.apps.saving import write_file

    write_file(Path(out), text.encode("utf-8"))
