"""Comments that allow findings: `# dropkit: allow=always-on-dropout`."""

from __future__ import annotations

import io
import re
import tokenize
from typing import NamedTuple

_ALLOWS = re.compile(r"#\s*dropkit:\s*(allow|allow-file)\s*=\s*([\w-]+(?:\s*,\s*[\w-]+)*)")


class Allowance(NamedTuple):
    """One name in a comment."""

    name: str
    line: int
    column: int
    """From 1."""
    whole_file: bool


def allowances(text: str) -> list[Allowance]:
    """All that the comments of a text allow; a string that reads like one is none."""
    if "dropkit:" not in text:
        return []
    found = []
    for line, column, comment in _comments(text):
        for match in _ALLOWS.finditer(comment):
            found += [
                Allowance(name, line, column + match.start() + 1, match.group(1) == "allow-file")
                for name in re.split(r"\s*,\s*", match.group(2))
            ]
    return found


def _comments(text: str) -> list[tuple[int, int, str]]:
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
            if token.type == tokenize.COMMENT:
                found.append((*token.start, token.string))
    except (tokenize.TokenError, SyntaxError):
        pass  # the parser was content, so what was read until here counts
    return found
