"""For code scanning: SARIF 2.1.0, as OASIS has it and GitHub takes it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dropkit import __version__
from dropkit.apps.formats.look import Look
from dropkit.apps.formats.reading import advice, relative, rule_of
from dropkit.inspection.showing import printable
from dropkit.records import Finding, Report, SourceEdit
from dropkit.rules.base import SECTIONS, Rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def write(report: Report, look: Look) -> str:
    """The report as SARIF, in ASCII."""
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(report, look)]}
    return json.dumps(log, indent=1, allow_nan=False) + "\n"


def _run(report: Report, look: Look) -> dict[str, Any]:
    names = {finding.rule: finding for finding in (*report.findings, *report.allowed)}
    skipped = {rule for rule, _ in report.not_applicable}
    order = sorted({*names, *report.judged, *skipped})
    rules = [_rule(name, names.get(name)) for name in order]
    places = {name: number for number, name in enumerate(order)}
    marks: Counter[str] = Counter()
    results = [_result(found, places, marks, look) for found in report.findings]
    allowed = [_result(found, places, marks, look) for found in report.allowed]
    for result in allowed:
        result["suppressions"] = [{"kind": "external", "justification": "allowed in dropkit"}]
    driver = {"name": "dropkit", "version": __version__, "rules": rules}
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"dropkit {look.command}/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(report, places)],
        "results": results + allowed,
    }


def _invocation(report: Report, places: dict[str, int]) -> dict[str, Any]:
    """What could not be looked at, and what could not be judged."""
    unseen = [_notification(what, "warning") for what in report.unseen]
    skipped = [
        _notification(why, "note") | {"associatedRule": {"index": places[rule]}}
        for rule, why in report.not_applicable
    ]
    return {
        "executionSuccessful": True,
        "toolExecutionNotifications": unseen,
        "toolConfigurationNotifications": skipped,
    }


def _notification(text: str, level: str) -> dict[str, Any]:
    return {"message": {"text": printable(text, 1000) or "-"}, "level": level}


def _rule(name: str, finding: Finding | None) -> dict[str, Any]:
    rule = rule_of(name)
    if rule is None:
        return {"id": printable(finding.code if finding else name, 100)}
    described: dict[str, Any] = {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": " ".join(rule.section("").split())},
        "help": {"text": rule.page.strip(), "markdown": _markdown(rule)},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": ["dropout", rule.group]},
    }
    return described


def _markdown(rule: Rule) -> str:
    parts = [rule.section("")]
    parts += [f"## {title}\n\n{rule.section(title)}" for title in SECTIONS if rule.section(title)]
    return "\n\n".join(parts)


def _result(
    finding: Finding, places: dict[str, int], marks: Counter[str], look: Look
) -> dict[str, Any]:
    parts = (finding.message, finding.evidence, advice(finding))
    rule = rule_of(finding.rule)
    result: dict[str, Any] = {
        "ruleId": rule.code if rule else printable(finding.code, 100),
        "ruleIndex": places[finding.rule],
        "level": finding.severity,
        "message": {"text": "\n".join(printable(part, 2000) for part in parts if part) or "-"},
        "locations": [_location(finding, look)],
        "partialFingerprints": {"dropkitFinding/v1": _mark(finding, marks, look)},
    }
    if isinstance(finding.edit, SourceEdit):
        result["fixes"] = [_fix(finding.edit, look)]
    return result


def _location(finding: Finding, look: Look) -> dict[str, Any]:
    place, path = finding.line, finding.module
    location: dict[str, Any] = {}
    if place is not None:
        region: dict[str, Any] = {"startLine": max(1, place.line)}
        if place.column:
            region["startColumn"] = place.column
        location["physicalLocation"] = _artifact(place.file, look) | {"region": region}
    elif look.artifact:
        location["physicalLocation"] = _artifact(look.artifact, look)
    if path:
        name = {"fullyQualifiedName": printable(path), "name": printable(path.rpartition(".")[2])}
        location["logicalLocations"] = [name | {"kind": "member"}]
    return location


def _artifact(file: str, look: Look) -> dict[str, Any]:
    path = relative(file, look.root)
    try:
        safe = path.encode("utf-8", "surrogateescape")  # names that are no text: their bytes
    except UnicodeEncodeError:
        safe = path.encode("utf-8", "replace")
    if Path(path).is_absolute():
        return {"artifactLocation": {"uri": "file://" + quote(safe)}}
    return {"artifactLocation": {"uri": quote(safe), "uriBaseId": "%SRCROOT%"}}


def _mark(finding: Finding, marks: Counter[str], look: Look) -> str:
    """A name that outlives other lines and other numbers, and that no other finding has."""
    place = finding.line
    where = (relative(place.file, look.root), place.function) if place else ("", "")
    said = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", finding.message)
    text = "\0".join((finding.rule, finding.module, *where, said))
    marks[text] += 1
    return hashlib.sha256(f"{text}\0{marks[text]}".encode("utf-8", "replace")).hexdigest()[:32]


def _fix(edit: SourceEdit, look: Look) -> dict[str, Any]:
    replacements = [
        {
            "deletedRegion": {"charOffset": start, "charLength": end - start},
            "insertedContent": {"text": text},
        }
        for start, end, text in edit.parts
    ]
    change = _artifact(edit.file, look) | {"replacements": replacements}
    return {"description": {"text": printable(edit.says) or "-"}, "artifactChanges": [change]}
