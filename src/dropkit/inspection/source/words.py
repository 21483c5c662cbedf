"""What a file must say to be worth parsing, and the lines on which it says so.

A tree of source is mostly files without dropout. Looking for words in bytes is a hundred times
quicker than parsing, and a parsed file is only walked where a word stands.
"""

from __future__ import annotations

import re
from bisect import bisect_left

_ESSENTIAL = re.compile(
    rb"ropout|scaled_dot_product_attention|flash_attn|keep_?prob|def eval\(|"
    rb"(?:rand|rand_like|bernoulli_?|uniform_)\("
)
_HOT = re.compile(
    r"ropout|scaled_dot_product_attention|flash_attn|memory_efficient_attention|"
    r"(?:rand|rand_like|bernoulli_?|uniform_)\(|def (?:eval|train)\(|"
    r"^[ \t]*(?:from|import)[ \t]|multi_head_attention_forward",
    re.MULTILINE,
)


def worth_parsing(data: bytes) -> bool:
    """Whether any rule could find anything in these bytes of a file."""
    if b"torch" not in data:
        return False
    return _ESSENTIAL.search(data) is not None


class HotLines:
    """The lines of a text on which something stands that rules ask for."""

    def __init__(self, text: str, starts: list[int]) -> None:
        self._text, self._starts = text, starts
        self._lines = self._of(_HOT)

    def _of(self, words: re.Pattern[str]) -> list[int]:
        found, starts, number = [], self._starts, 0
        for match in words.finditer(self._text):
            at = match.start()
            if number and at < starts[number]:
                continue  # on the line that was noted last
            number = bisect_left(starts, at + 1, number)
            found.append(number)
        return found

    def add(self, names: set[str]) -> None:
        """Take in the lines with these names: what a file calls by a name of its own."""
        more = self._of(re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b"))
        self._lines = sorted({*self._lines, *more})

    def within(self, first: int, last: int) -> bool:
        """Whether there is one from the first to the last line."""
        at = bisect_left(self._lines, first)
        return at < len(self._lines) and self._lines[at] <= last
