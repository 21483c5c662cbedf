"""What a file must say to be worth parsing, and the lines on which it says so.

A tree of source is mostly files without dropout. Looking for words is a hundred times quicker than
parsing, and a parsed file is only walked where a word stands. Words are plain, as Python finds
plain text several times faster than a pattern.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

_WORDS = (
    "ropout",
    "scaled_dot_product_attention",
    "flash_attn",
    "memory_efficient_attention",
    "multi_head_attention_forward",
    "LSTM(",
    "GRU(",
    "nn.RNN(",
    "rand(",
    "rand_like(",
    "def eval(",
    "def train(",
)
_ESSENTIAL = tuple(word.encode() for word in _WORDS)
_HOT = (*_WORDS, "import ")


def worth_parsing(data: bytes) -> bool:
    """Whether any rule could find anything in these bytes of a file."""
    return b"torch" in data and any(word in data for word in _ESSENTIAL)


class HotLines:
    """The lines of a text on which something stands that rules ask for."""

    def __init__(self, text: str, starts: list[int]) -> None:
        self._text, self._starts = text, starts
        self._lines = sorted({bisect_right(starts, at) for at in _positions(text, _HOT)})

    def add(self, names: set[str]) -> None:
        """Take in the lines with these names: what a file calls by a name of its own."""
        words = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b")
        more = {bisect_right(self._starts, m.start()) for m in words.finditer(self._text)}
        self._lines = sorted({*self._lines, *more})

    def within(self, first: int, last: int) -> bool:
        """Whether there is one from the first to the last line."""
        at = bisect_left(self._lines, first)
        return at < len(self._lines) and self._lines[at] <= last


def _positions(text: str, words: Iterable[str]) -> Iterable[int]:
    for word in words:
        at = text.find(word)
        while at >= 0:
            yield at
            at = text.find(word, at + len(word))
