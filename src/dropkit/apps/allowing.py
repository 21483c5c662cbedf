"""What a person lets pass: rules, everywhere or within a module."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dropkit.records import Finding, Report
from dropkit.rules import named


def allowing(report: Report, words: Iterable[str]) -> Report:
    """The report with some findings set aside: each word is a rule, or RULE=PATH of a module.

    Raises:
        SettingError: there is no such rule.
    """
    parts = [word.partition("=") for word in words]
    allowed = [(named(rule).name, path) for rule, _, path in parts]

    def passes(finding: Finding) -> bool:
        path = f"{finding.module}."
        return any(
            finding.rule == rule and (not within or path.startswith(f"{within}."))
            for rule, within in allowed
        )

    aside = tuple(finding for finding in report.findings if passes(finding))
    kept = tuple(finding for finding in report.findings if not passes(finding))
    return replace(report, findings=kept, allowed=(*report.allowed, *aside))
