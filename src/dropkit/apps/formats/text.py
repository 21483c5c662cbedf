"""For a person at a terminal: the worst first, what was seen, and how to fix it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from dropkit.apps.counting import count
from dropkit.apps.formats import reading
from dropkit.apps.formats.grouping import Group, Item, groups
from dropkit.apps.formats.look import Look
from dropkit.inspection.showing import printable
from dropkit.records import Report

_INKS = {
    "error": "1;31",
    "warning": "1;33",
    "note": "1;36",
    "bold": "1",
    "quiet": "2",
    "good": "32",
}
"""How terminals colour; by name, so that the terminal's own palette decides."""

_MOST_UNSEEN, _MOST_REASONS, _MOST_RULES = 6, 3, 4
"""Lines and words of what was not looked at; JSON has them all."""


def write(report: Report, look: Look) -> str:
    """The report as text that ends with a newline."""
    pen = Pen(look.width, look.color)
    lines = [pen.ink(printable(report.target, 200), "bold"), ""]
    for group in groups(report, look):
        lines += [*_group(group, pen, look), ""]
    lines += _aside(report, pen)
    lines += _summary(report, pen, look)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Pen:
    """Fills lines, and colours what is filled."""

    width: int
    color: bool

    def ink(self, text: str, ink: str) -> str:
        """Text in a colour, where there are colours."""
        return f"\x1b[{_INKS[ink]}m{text}\x1b[0m" if self.color and ink and text else text

    def filled(self, text: str, indent: str, ink: str = "", rest: str | None = None) -> list[str]:
        """Text in lines, the later ones indented by `rest`."""
        lines = textwrap.wrap(
            text,
            max(40, self.width),
            initial_indent=indent,
            subsequent_indent=indent if rest is None else rest,
            break_on_hyphens=False,
            break_long_words=False,
        )
        return [self.ink(line, ink) for line in lines]

    def labelled(self, label: str, text: str, ink: str, body: str = "") -> list[str]:
        """Text beside a label in a column of its own."""
        lines = self.filled(text, " " * 9)
        first = f"    {self.ink(label.ljust(5), ink)}{self.ink(lines[0][9:], body)}"
        return [first, *(self.ink(line, body) for line in lines[1:])]


def _group(group: Group, pen: Pen, look: Look) -> Iterator[str]:
    yield from pen.filled(printable(group.title, 300), "", "bold")
    if group.about:
        yield from pen.filled(printable(group.about, 300), "  ", "quiet")
    for item in group.items:
        yield from _item(item, group, pen, look)


def _item(item: Item, group: Group, pen: Pen, look: Look) -> Iterator[str]:
    finding = item.first
    times = f" x{len(item.findings)}" if len(item.findings) > 1 else ""
    name = f"{printable(finding.rule, 80)} {printable(finding.code, 20)}{times}"
    severity = pen.ink(finding.severity.ljust(7), finding.severity)
    yield f"  {_position(item)}{severity} {pen.ink(name, 'bold')}"
    where = group.where(item)
    if where:
        yield from pen.filled(f"at {printable(where, 300)}", "    ", "quiet")
    yield from pen.filled(printable(finding.message, 600), "    ")
    if finding.evidence:
        yield from pen.labelled("seen", printable(finding.evidence, 600), "quiet", "quiet")
    advice = reading.advice(finding)
    if advice:
        by = f" (dropkit {look.command} --fix does)" if reading.is_fixable(finding) else ""
        yield from pen.labelled("fix", advice + by, "good")


def _position(item: Item) -> str:
    place = item.first.line
    if place is None or not reading.is_of_source(item.first):
        return ""
    return f"{place.line}:{place.column}".removesuffix(":0").ljust(7) + " "


def _aside(report: Report, pen: Pen) -> Iterator[str]:
    """What was not judged, and what was not seen."""
    said = list(_unjudged(report, pen))
    for what in report.unseen[:_MOST_UNSEEN]:
        said += pen.filled(f"Not seen: {printable(what)}", "", "warning", "  ")
    if len(report.unseen) > _MOST_UNSEEN:
        said.append(f"Not seen either: {len(report.unseen) - _MOST_UNSEEN} more (--format json).")
    if report.allowed:
        rules = sorted({printable(finding.rule, 80) for finding in report.allowed})
        number = count(len(report.allowed), "finding")
        said += pen.filled(f"Allowed: {number} ({', '.join(rules)}).", "", "quiet", "  ")
    yield from said
    if said:
        yield ""


def _unjudged(report: Report, pen: Pen) -> list[str]:
    if not report.not_applicable:
        return []
    reasons = reading.reasons(report)
    words = [f"{why} ({_named(rules)})" for why, rules in reasons[:_MOST_REASONS]]
    more = len(reasons) - _MOST_REASONS
    words += [f"{count(more, 'other reason')} (--format json)"] if more > 0 else []
    number = count(len(report.not_applicable), "rule")
    return pen.filled(f"Not applicable: {number}: {'; '.join(words)}.", "", "quiet", "  ")


def _named(rules: list[str]) -> str:
    codes = [reading.code_of(rule) for rule in rules]
    rest = len(codes) - _MOST_RULES
    return ", ".join(codes[:_MOST_RULES]) + (f" and {rest} more" if rest > 0 else "")


def _summary(report: Report, pen: Pen, look: Look) -> Iterator[str]:
    yield from pen.filled(reading.summary(report, look.command), "", report.worst or "good")
    if report.findings:
        rule = printable(report.findings[0].rule, 80)
        yield from pen.filled(f"What a rule means: dropkit explain {rule}", "", "quiet")
