"""The page of a rule, read as the little Markdown that it is written in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

_BLOCK = re.compile(r"\n\s*\n")
_LINK = re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, an entry of a list, or lines of code."""

    kind: Literal["text", "entry", "code"]
    text: str


def blocks(markdown: str) -> Iterator[Block]:
    """The blocks of a section of a page."""
    for number, part in enumerate(re.split(r"^```\w*\n?", markdown, flags=re.MULTILINE)):
        if number % 2:
            yield Block("code", part.rstrip())
            continue
        for paragraph in filter(str.strip, _BLOCK.split(part)):
            yield from _entries(paragraph)


def _entries(paragraph: str) -> Iterator[Block]:
    lead, *entries = re.split(r"^ *- ", paragraph, flags=re.MULTILINE)
    if lead.strip():
        yield Block("text", " ".join(lead.split()))
    for entry in entries:
        yield Block("entry", " ".join(entry.split()))


def spoken(text: str) -> str:
    """Without marks: a link is its words and, in brackets, its address."""
    return _LINK.sub(r"\1 (\2)", text).replace("`", "")


def marked(text: str) -> Markup:
    """As HTML, with everything but code and links escaped."""
    safe = _LINK.sub(r'<a href="\2">\1</a>', str(escape(text)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))
