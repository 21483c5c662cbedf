"""Findings by the place that they are about, the worst place first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropkit.apps.formats.look import Look
from dropkit.apps.formats.reading import is_of_source, shown_file, worst
from dropkit.inspection.showing import KINDS, merged, pattern, printable
from dropkit.records import Finding, Report, Site


@dataclass(frozen=True, slots=True)
class Item:
    """Findings of one rule that differ in nothing but the number of their layer."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The one that is shown for all."""
        return self.findings[0]

    @property
    def path(self) -> str:
        """All their paths in one."""
        return merged(finding.module for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Group:
    """What there is to say of one place: a module and its likes in other layers, or a file."""

    title: str
    about: str
    """What stands there, in words; empty for a file."""
    items: tuple[Item, ...]

    @property
    def order(self) -> int:
        """That of its worst finding."""
        return min(worst(item.findings) for item in self.items)

    def where(self, item: Item) -> str:
        """The item's path, where the title does not say it."""
        return "" if is_of_source(item.first) or item.path == self.title else item.path


def groups(report: Report, look: Look) -> list[Group]:
    """Groups, the worst first, else in the order of the report."""
    found: dict[tuple[str, str], dict[tuple[str, ...], list[Finding]]] = {}
    for number, finding in enumerate(report.findings):
        place, path = finding.line, finding.module
        if place is not None and is_of_source(finding):
            title, key = ("file", place.file), (str(number),)
        else:
            title, key = ("path", path if look.each else pattern(path)), (finding.rule,)
        found.setdefault(title, {}).setdefault((*key, finding.severity), []).append(finding)
    made = [_group(title, list(items.values()), look) for title, items in found.items()]
    return sorted(made, key=lambda group: group.order)


def _group(title: tuple[str, str], alike: list[list[Finding]], look: Look) -> Group:
    items = tuple(Item(tuple(findings)) for findings in alike)
    if title[0] == "file":
        return Group(printable(shown_file(title[1], look.root)), "", items)
    every = [finding for findings in alike for finding in findings]
    path = merged(finding.module for finding in every)
    return Group(path or "(the model itself)", _about(every, look), items)


def _about(findings: Sequence[Finding], look: Look) -> str:
    """What all that is found there has in common."""
    sites = {_described(finding.site) for finding in findings if finding.site}
    places = {place for finding in findings if (place := finding.line)}
    lines = {f"{shown_file(place.file, look.root)}:{place.line}" for place in places}
    return ", ".join(next(iter(said)) for said in (sites, lines) if len(said) == 1)


def _described(site: Site) -> str:
    rate = "" if site.rate is None else f" p={site.rate:.4g}"
    return f"{KINDS.get(site.kind, site.kind)}{rate}, role {site.role}, in {site.owner}"
