"""`dropkit explain`: the page of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dropkit.apps.commands.delivering import deliver, is_colored, width

if TYPE_CHECKING:
    from dropkit.apps.formats.text import Pen
    from dropkit.rules import Rule

_EYE = 88
"""Columns of running text."""


@click.command(short_help="Show the page of a rule.")
@click.argument("rule")
def explain(rule: str) -> None:
    """Say what a RULE looks for, why it matters, how to fix what it finds, and when to allow it.

    RULE is a name, such as always-on-dropout, or a code, such as DK101.
    """
    from dropkit.apps.formats.text import Pen
    from dropkit.rules import named

    found = named(rule)
    pen = Pen(min(_EYE, width()), is_colored("auto", None))
    deliver("\n".join(_page(found, pen)) + "\n", None)


def _page(rule: Rule, pen: Pen) -> Iterator[str]:
    from dropkit.apps.formats.pages import blocks, spoken
    from dropkit.rules.base import SECTIONS

    severity = pen.ink(rule.severity, rule.severity)
    yield f"{pen.ink(rule.name, 'bold')} {rule.code}, {rule.group}, {severity}"
    for title in ("", *SECTIONS):
        found = list(blocks(rule.section(title)))
        if title and found:
            yield ""
            yield pen.ink(title, "bold")
        before = ""
        for block in found:
            if not title or (before and not before == block.kind == "entry"):
                yield ""
            before = block.kind
            if block.kind == "code":
                yield from (f"    {line}" for line in block.text.splitlines())
            elif block.kind == "entry":
                yield from pen.filled(spoken(block.text), "  - ", rest="    ")
            else:
                yield from pen.filled(spoken(block.text), "")
