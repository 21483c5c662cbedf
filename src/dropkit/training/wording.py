"""Words for messages: a cell, a name or a row, short enough to print and safe to print."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

SHOWN = 40
"""Characters of a cell or name that a message quotes; a cell may be megabytes long."""


def shown(value: object) -> str:
    """Quote a cell or a name: escaped, so that it cannot steer a terminal, and cut to `SHOWN`."""
    if not isinstance(value, str):
        return clipped(ascii(value) if isinstance(value, bytes) else str(value))
    return repr(clipped(value))


def clipped(text: str) -> str:
    """Cut text to `SHOWN` characters and mark the cut."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def listed(names: Iterable[object], most: int = 8) -> str:
    """Join quoted names with commas; after `most` of them, say how many more there are."""
    words = [shown(name) for name in names]
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest} more" if rest > 0 else "")


def nearest(name: str, names: Collection[str]) -> str:
    """Say which of `names` are closest to `name`, or list them when none is close."""
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(shown(folded[match]) for match in close) + "?"
    return f"it has {listed(names)}" if names else "it has no columns"
