"""Patterns of paths, as .gitignore has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line."""

    regex: re.Pattern[str]
    excludes: bool
    """False: it takes back what a line before it excludes."""
    folders_only: bool


class Patterns:
    """Lines that hold below one folder; the last that fits decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [made for line in lines if (made := _read(line)) is not None]

    def verdict(self, path: str, is_folder: bool) -> bool | None:
        """Whether a path from the folder, with slashes, is excluded; None: no line speaks of it."""
        for pattern in reversed(self._patterns):
            if (is_folder or not pattern.folders_only) and pattern.regex.fullmatch(path):
                return pattern.excludes
        return None

    def __bool__(self) -> bool:
        return bool(self._patterns)


def _read(line: str) -> Pattern | None:
    line = line.rstrip("\r\n")
    line = re.sub(r"(?<!\\) +$", "", line)
    if not line or line.startswith("#"):
        return None
    excludes = not line.startswith("!")
    line = line if excludes else line[1:]
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    line = line.lstrip("/")
    if not line:
        return None
    try:
        regex = re.compile(("" if anchored else "(?:.*/)?") + _translated(line), re.DOTALL)
    except re.error:
        return None
    return Pattern(regex, excludes, folders_only)


def _translated(glob: str) -> str:
    parts = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?|\[!?\]?[^\]]*\]|\\.)", glob)
    return "".join(_piece(piece, parts) for piece in pieces)


def _piece(piece: str, parts: dict[str, str]) -> str:
    if piece in parts:
        return parts[piece]
    if len(piece) > 2 and piece[0] == "[" and piece[-1] == "]":
        inner = piece[1:-1].replace("\\", "\\\\")
        return f"[{'^' + inner[1:] if inner.startswith('!') else inner}]"
    return re.escape(piece[1:] if piece.startswith("\\") and len(piece) == 2 else piece)
