"""Sites by name: a role, or a path, of which parts may be left open."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import get_args

from dropkit.records import Role, Site

ROLES: tuple[str, ...] = get_args(Role)
_RANGE = re.compile(r"(\d+)-(\d+)")


def fitting(name: str, sites: Iterable[Site]) -> list[bool]:
    """Of each site, whether a name fits it: its role, its path, that of its rate, or an outer one.

    A role goes before a path. In each part of a path * stands for anything, and 0-5 for the numbers
    from 0 to 5. With @ and a line behind it, a name is that of what stands right there.

    >>> from dropkit.inspection.names import is_within
    >>> is_within("encoder.layer.3.drop", "encoder.layer.0-5"), is_within("encoder.4", "enc*.5")
    (True, False)
    """
    sites = list(sites)
    by_role = [site.role == name for site in sites]
    return by_role if any(by_role) else [is_at(site, name, held=True) for site in sites]


def is_at(site: Site, name: str, *, held: bool = False) -> bool:
    """Whether a name is that of a place, and fits the site; or, if `held`, what holds its rate."""
    path, _, line = name.partition("@")
    places = [site.path, *([site.holder] if held and site.holder else [])]
    if line:
        there = site.place is not None and str(site.place.line) == line
        return there and any(p.count(".") == path.count(".") and is_within(p, path) for p in places)
    return any(is_within(place, path) for place in places)


def is_within(path: str, name: str) -> bool:
    """Whether a path is the one that a name gives, or lies within it; "": the model itself."""
    if not name:
        return not path
    parts, asked = path.split("."), name.split(".")
    return len(parts) >= len(asked) and all(map(_is, parts, asked))


def _is(part: str, asked: str) -> bool:
    between = _RANGE.fullmatch(asked)
    if between is None or part == asked:
        return fnmatchcase(part, asked)
    return part.isdigit() and int(between[1]) <= int(part) <= int(between[2])


def nearest(name: str, sites: Sequence[Site], most: int = 3) -> list[str]:
    """Names that there are, those that are the most like one first."""
    there = list(dict.fromkeys(_names(sites)))
    return difflib.get_close_matches(name, there, most, 0.4) or there[: 2 * most]


def _names(sites: Iterable[Site]) -> Iterable[str]:
    sites = list(sites)
    yield from (site.role for site in sites)
    for site in sites:
        parts = site.path.split(".")
        yield from (".".join(parts[: end + 1]) for end in reversed(range(len(parts))))
