"""For GitHub: workflow commands that put each finding beside its line in a pull request."""

from __future__ import annotations

from dropkit.apps.formats.look import Look
from dropkit.apps.formats.reading import advice, relative, summary
from dropkit.inspection.showing import printable
from dropkit.records import Finding, Report

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


def write(report: Report, look: Look) -> str:
    """A command for each finding, and a line for the log."""
    lines = [_command(finding, look) for finding in report.findings]
    lines += [f"::warning title=dropkit did not see this::{_data(what)}" for what in report.unseen]
    lines.append(f"dropkit: {printable(report.target)}: {summary(report, look.command)}")
    return "\n".join(lines) + "\n"


def _command(finding: Finding, look: Look) -> str:
    place, path = finding.line, finding.module
    properties = {"title": f"{finding.code} {finding.rule}"}
    if place is not None:
        position = {"line": str(max(1, place.line))}
        position |= {"col": str(place.column)} if place.column else {}
        properties = {"file": relative(place.file, look.root), **position, **properties}
    where = f"{printable(path)}: " if path else ""
    parts = (f"{where}{printable(finding.message, 1000)}", printable(finding.evidence, 1000))
    text = "\n".join(part for part in (*parts, advice(finding)) if part)
    said = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{_LEVELS[finding.severity]} {said}::{_escaped(text)}"


def _data(text: str) -> str:
    return _escaped(printable(text, 1000))


def _property(text: str) -> str:
    return _escaped(printable(text)).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
