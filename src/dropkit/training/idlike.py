"""Signs that a column names rows instead of describing them: its name, its cells."""

from __future__ import annotations

import re

import numpy as np

from dropkit.training.cells import Floats, Texts

NEARLY_ALL = 0.9
"""Share of distinct values from which a label names rows rather than groups of rows."""
COUNTED = 10
"""Rows from which consecutive whole numbers are taken for a row count, not for chance."""
SAMPLE = 1000
"""Distinct texts that are looked at to know what a column is made of."""

_IDS = frozenset({"id", "ids", "uuid", "guid", "identifier", "rowid"})
_ROWS = frozenset({"index", "idx", "key", "row", "rownum", "rownumber", "nr", "no"})
_LABELS = frozenset({"code", "zip", "zipcode", "postcode", "plz"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UUID = re.compile(r"\{?[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\}?|[0-9a-f]{32,64}")
_AMOUNT = re.compile(r"[^\w\s]{0,2}\s?[0-9][0-9.,' ]*\s?([^\w\s]|[A-Za-z]{1,3})?")
_LONG, _WORDY = 50, 5
"""Mean length, and mean number of words, above which cells are prose rather than labels."""


def name_says_id(name: str) -> bool:
    """Whether a name claims to number rows or things: id, customer_id, rowId, uuid, index."""
    words = _words(name)
    return bool(_IDS.intersection(words)) or "".join(words) in _ROWS


def name_says_label(name: str) -> bool:
    """Whether a name claims that its numbers are labels, not amounts: store_id, zip_code."""
    return bool((_IDS | _LABELS).intersection(_words(name)))


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def counts_rows(values: Floats) -> bool:
    """Whether whole numbers count the rows, one after the other.

    In any other order they may be ranks, which tell something.
    """
    return len(values) >= COUNTED and bool((np.diff(values) == 1).all())


def are_uuids(texts: Texts) -> bool:
    """Whether texts are universally unique identifiers, or hashes."""
    return all(_UUID.fullmatch(text.strip()) for text in texts[:SAMPLE])


def are_prose(texts: Texts) -> bool:
    """Whether texts are long or of many words."""
    sample = texts[:SAMPLE]
    length = sum(len(text) for text in sample) / len(sample)
    return length > _LONG or sum(len(text.split()) for text in sample) / len(sample) > _WORDY


def look_like_amounts(texts: Texts) -> bool:
    """Whether texts are numbers with signs around them: $1,234 or 12 % or 5 kg."""
    return all(_AMOUNT.fullmatch(text.strip()) for text in texts[:SAMPLE])
