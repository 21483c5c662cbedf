"""What all formats say of a finding and of a report, in the same words."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dropkit.apps.counting import count
from dropkit.errors import SettingError
from dropkit.inspection.showing import printable
from dropkit.records import SEVERITIES, Finding, Report, Severity, SourceEdit
from dropkit.rules import Rule, named


def rule_of(name: str) -> Rule | None:
    """The rule of a finding; None for one that this dropkit does not have."""
    try:
        return named(name)
    except SettingError:
        return None


def advice(finding: Finding) -> str:
    """How to fix it, in a sentence: as its edit says, else as the page of its rule begins to."""
    if finding.edit is not None and finding.edit.says:
        return printable(finding.edit.says)
    rule = rule_of(finding.rule)
    paragraph = rule.section("How to fix").split("\n\n")[0] if rule else ""
    text = " ".join(paragraph.replace("`", "").split())
    return first_sentence(text.removesuffix(":"))


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    end = text.find(". ")
    return printable(text if end < 0 else text[: end + 1])


def is_fixable(finding: Finding) -> bool:
    """Whether the command can mend it by itself."""
    return isinstance(finding.edit, SourceEdit) and finding.edit.safe


def relative(file: str, root: str) -> str:
    """A file as it is named from the root; whole where it lies outside."""
    base = root or os.getcwd()
    path = os.path.normpath(os.path.join(base, file))
    inside = path.startswith(base.rstrip(os.sep) + os.sep)
    return Path(os.path.relpath(path, base) if inside else path).as_posix()


def shown_file(file: str, root: str) -> str:
    """A file as a person knows it: from the root, or from where packages are installed."""
    return relative(file, root).rpartition("/site-packages/")[2]


def counts(findings: Iterable[Finding]) -> dict[Severity, int]:
    """How many of each severity, the worst first."""
    found = Counter(finding.severity for finding in findings)
    return {severity: found[severity] for severity in SEVERITIES}


def tally(findings: Iterable[Finding]) -> str:
    """How many of each severity, in words: "2 errors, 1 note"."""
    return ", ".join(count(number, word) for word, number in counts(findings).items() if number)


def summary(report: Report, command: str) -> str:
    """The whole report in a sentence."""
    judged = f"{count(len(report.judged), 'rule')} judged"
    if command == "audit":
        judged += f" {count(len(report.sites), 'site')}"
    if report.findings:
        return f"{tally(report.findings)}; {judged}."
    if report.judged:
        return f"Nothing found: {judged}."
    return "Nothing was judged: no rule had what it needs."


def is_of_source(finding: Finding) -> bool:
    """Whether it is about a line of source rather than a part of a model."""
    return finding.place is not None and not finding.path and finding.site is None


def reasons(report: Report) -> list[tuple[str, list[str]]]:
    """(why, rules) of those that were not applicable, the most frequent reason first."""
    by_reason: dict[str, list[str]] = {}
    for rule, why in report.not_applicable:
        by_reason.setdefault(printable(why), []).append(rule)
    return sorted(by_reason.items(), key=lambda pair: -len(pair[1]))


def code_of(rule: str) -> str:
    """The short name, where there is one."""
    found = rule_of(rule)
    return found.code if found else printable(rule, 60)


def worst(findings: Sequence[Finding]) -> int:
    """The place of the worst of them in `SEVERITIES`."""
    return min(SEVERITIES.index(finding.severity) for finding in findings)


def reaches(severity: Severity, least: Severity | None) -> bool:
    """Whether a severity is the least that counts, or above it."""
    return least is not None and SEVERITIES.index(severity) <= SEVERITIES.index(least)


def fails(report: Report, least: Severity | None) -> bool:
    """Whether anything was found that reaches the least severity that counts."""
    return any(reaches(finding.severity, least) for finding in report.findings)
