"""A plan in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dropkit.inspection.showing import KINDS, pattern, printable
from dropkit.planning.levers import Lever
from dropkit.records import Site

_HEADINGS = ("role", "where", "model's", "asked", "moved by")


def labelled(levers: Sequence[Lever]) -> Iterator[tuple[str, Lever]]:
    """Each site with a name that fits it, and nothing that can have another rate.

    It is the path of the number that moves it; where none does, or sites of one are asked for
    several rates, that of the module, and the line of the call.
    """
    plain = [_plain(lever) for lever in levers]
    rates: dict[str, set[float]] = {}
    for name, lever in zip(plain, levers, strict=True):
        rates.setdefault(name, set()).add(lever.wanted)
    for name, lever in zip(plain, levers, strict=True):
        yield (_lined(lever) if len(rates[name]) > 1 else name), lever


def _plain(lever: Lever) -> str:
    return lever.site.holder or _lined(lever)


def _lined(lever: Lever) -> str:
    place = lever.site.place
    return lever.path if place is None else f"{lever.path}@{place.line}"


def table(model: str, levers: Sequence[Lever], unread: Iterable[Site] = ()) -> str:
    """Sites that differ in nothing but the number of their layer are one row; and what is none."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, lever in labelled(levers):
        rate, asked = f"{lever.rate:.4g}", f"{lever.wanted:.4g}"
        key = (lever.site.role, pattern(name), rate, asked if asked != rate else "", _by(lever))
        rows.setdefault(key, []).append(name)
    cells = [_HEADINGS, *((k[0], merged(names), *k[2:]) for k, names in rows.items())]
    lines = [f"{model}: {len(levers)} sites, {_moved(levers)}", *_columns(cells)]
    told = dict.fromkeys(f"{KINDS.get(site.kind, site.kind)} at {site.place}" for site in unread)
    lines += [f"not in the plan, since its rate is not seen: {one}" for one in told]
    return "\n".join(lines)


def _by(lever: Lever) -> str:
    if lever.number is None:
        at = f", at {lever.site.place}" if lever.site.place else ""
        return ("each call" if lever.at_call else "nothing") + at
    return "attribute" if lever.sign > 0 else "attribute, what is kept"


def _moved(levers: Iterable[Lever]) -> str:
    count = sum(lever.wanted != lever.rate for lever in levers)
    return f"{count} at another rate than the model's" if count else "all as the model has it"


def merged(names: Sequence[str]) -> str:
    """One name for several of one pattern, which a plan takes.

    >>> merged(["h.0.attn.p", "h.1.attn.p", "h.2.attn.p"])
    'h.0-2.attn.p'
    """
    return ".".join(map(_span, zip(*(name.split(".") for name in names), strict=True)))


def _span(parts: tuple[str, ...]) -> str:
    if len(set(parts)) == 1:
        return parts[0]
    numbers = sorted(set(map(int, parts)))
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if whole else "*"


def _columns(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    safe = [[printable(cell, 60) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    for row in safe:
        yield "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
