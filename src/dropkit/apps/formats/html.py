"""For a browser: one page that works offline, in the look of the report of a fit."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from dropkit.apps.formats import pages, reading
from dropkit.apps.formats.grouping import groups
from dropkit.apps.formats.look import Look
from dropkit.inspection.showing import HEADINGS, printable, rows, title
from dropkit.records import Report
from dropkit.rules.base import SECTIONS, Rule

MOST_GROUPS, MOST_ROWS, MOST_LINES = 300, 400, 100
"""Limits, so that no input makes a huge page; the page says what it omits."""


def write(report: Report, look: Look) -> str:
    """The whole page, without scripts, the same bytes for the same report."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(printable=printable, marked=pages.marked)
    here = files(__package__)
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    shared = (files("dropkit.apps.report") / "page.css").read_text(encoding="utf-8")
    style = Markup(shared + (here / "page.css").read_text(encoding="utf-8"))
    return template.render(style=style, **_context(report, look)) + "\n"


def _context(report: Report, look: Look) -> dict[str, Any]:
    every, table = groups(report, look), rows(report.sites)
    return {
        "report": report,
        "command": look.command,
        "summary": reading.summary(report, look.command),
        "cards": _cards(report),
        "groups": every[:MOST_GROUPS],
        "more_groups": max(0, len(every) - MOST_GROUPS),
        "headings": HEADINGS,
        "map_title": title(report.target, report.sites),
        "rows": table[:MOST_ROWS],
        "more_rows": max(0, len(table) - MOST_ROWS),
        "reasons": reading.reasons(report),
        "unseen": report.unseen[:MOST_LINES],
        "more_unseen": max(0, len(report.unseen) - MOST_LINES),
        "allowed": report.allowed[:MOST_LINES],
        "more_allowed": max(0, len(report.allowed) - MOST_LINES),
        "rules": [_page(rule) for rule in _rules(report)],
        "advice": reading.advice,
        "position": lambda finding: _position(finding, look),
        "linked": {rule.name for rule in _rules(report)},
    }


def _cards(report: Report) -> list[tuple[str, int, str]]:
    counts = reading.counts(report.findings)
    counted = [(f"{severity}s", number, severity) for severity, number in counts.items()]
    sites = [("sites", len(report.sites), "")] if report.sites else []
    return [*counted, *sites, ("rules that judged", len(report.judged), "")]


def _rules(report: Report) -> list[Rule]:
    names = dict.fromkeys(finding.rule for finding in report.findings)
    return [rule for name in names if (rule := reading.rule_of(name))]


def _page(rule: Rule) -> dict[str, Any]:
    parts = [(name, list(pages.blocks(rule.section(name)))) for name in ("", *SECTIONS)]
    return {"rule": rule, "parts": [(name, blocks) for name, blocks in parts if blocks]}


def _position(finding: Any, look: Look) -> str:
    place = finding.line
    return f"{reading.shown_file(place.file, look.root)}:{place.line}" if place else ""
