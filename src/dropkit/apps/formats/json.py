"""For programs: all that a report holds, in a form that is versioned and described.

`docs/report.schema.json` describes it. Within a version fields are added, and none is
renamed, removed or given another meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dropkit import __version__
from dropkit.apps import codec
from dropkit.apps.formats.look import Look
from dropkit.apps.formats.reading import advice, counts
from dropkit.records import Edit, Finding, Report, Site

VERSION = 1


def write(report: Report, look: Look) -> str:
    """The report as JSON in ASCII, so that no terminal takes it for a command."""
    return json.dumps(content(report), indent=1, allow_nan=False) + "\n"


def content(report: Report) -> dict[str, Any]:
    """The report as plain values; findings name their sites by their number in `sites`."""
    sites = list(report.sites)
    numbers: dict[Site, int] = {}
    for number, site in enumerate(sites):
        numbers.setdefault(site, number)

    def number_of(site: Site) -> int:
        if site not in numbers:
            numbers[site] = len(sites)
            sites.append(site)
        return numbers[site]

    findings = [_finding(finding, number_of) for finding in report.findings]
    allowed = [_finding(finding, number_of) for finding in report.allowed]
    return {
        "format": "dropkit-report",
        "version": VERSION,
        "dropkit": __version__,
        "target": report.target,
        "worst": report.worst,
        "counts": counts(report.findings),
        "findings": findings,
        "allowed": allowed,
        "judged": list(report.judged),
        "not_applicable": [{"rule": rule, "why": why} for rule, why in report.not_applicable],
        "unseen": list(report.unseen),
        "sites": [codec.encode(site) for site in sites],
    }


def _finding(finding: Finding, number_of: Callable[[Site], int]) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "evidence": finding.evidence,
        "advice": advice(finding),
        "path": finding.module,
        "place": codec.encode(finding.line),
        "site": None if finding.site is None else number_of(finding.site),
        "edit": _edit(finding),
    }


def _edit(finding: Finding) -> dict[str, Any] | None:
    if finding.edit is None:
        return None
    of = "model" if isinstance(finding.edit, Edit) else "source"
    return {"of": of, **codec.encode(finding.edit)}
