"""Judges source text: a file that parses in, findings out. Nothing is run, and no disk touched."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from dropkit.errors import SettingError
from dropkit.inspection.source import SourceFile, Unreadable, parse
from dropkit.inspection.source.comments import Allowance, allowances
from dropkit.inspection.source.trails import FUNCTIONS, blocks
from dropkit.records import SEVERITIES, Finding, Place, Report
from dropkit.rules.base import Rule
from dropkit.rules.choosing import chosen
from dropkit.rules.registry import named

UNUSED = ("unused-allowance", "DK001")
"""Name and code of the note on a comment that allows nothing; no rule, as it judges no dropout."""


@dataclass(frozen=True, slots=True)
class Linted:
    """What rules said of one file."""

    findings: tuple[Finding, ...] = ()
    allowed: tuple[Finding, ...] = ()
    """Findings that a comment or a setting allows."""
    unused: tuple[Finding, ...] = ()
    """Notes on comments that allow nothing."""
    unseen: tuple[str, ...] = ()
    """Why the file, or a comment in it, could not be understood."""


def lint(text: str, path: str = "<text>", select: Collection[str] = ()) -> Report:
    """Judge the text of one file.

    >>> lint("import torch.nn.functional as F\\nF.alpha_dropout(x, 0.1)\\n").findings[0].code
    'DK304'
    """
    rules = chosen(select)
    file = parse(text, path)
    linted = Linted(unseen=(str(file),)) if isinstance(file, Unreadable) else judged(file, rules)
    return gathered(path, rules, [linted])


def judged(file: SourceFile, rules: Iterable[Rule], allow: Collection[str] = ()) -> Linted:
    """What rules say of a file; those named in `allow` say it as allowed."""
    checks = [(rule, rule.on_source) for rule in rules if rule.on_source is not None]
    found = [finding for _, check in checks for finding in check(file)]
    found.sort(key=lambda finding: _position(finding.place))
    comments = allowances(file.text)
    if not comments and not allow:
        return Linted(tuple(found))
    known, unseen = _understood(comments, file)
    used: set[Allowance] = set()
    findings: list[Finding] = []
    allowed: list[Finding] = []
    for finding in found:
        by = [a for a, name in known if name == finding.rule and _covers(a, finding, file)]
        used.update(by)
        (allowed if by or finding.rule in allow else findings).append(finding)
    judges = {rule.name for rule, _ in checks}
    unused = [_note(a, file) for a, name in known if a not in used and name in judges]
    return Linted(tuple(findings), tuple(allowed), tuple(unused), tuple(unseen))


def gathered(target: str, rules: Sequence[Rule], parts: Iterable[Linted]) -> Report:
    """One report of many files: the worst findings first, each kind by file and line."""
    parts = list(parts)
    findings = [finding for part in parts for finding in part.findings]
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), _position(f.place)))
    return Report(
        target=target,
        findings=tuple(findings),
        judged=tuple(rule.name for rule in rules if rule.on_source is not None),
        not_applicable=tuple(
            (rule.name, "needs a model: dropkit audit") for rule in rules if rule.on_source is None
        ),
        unseen=tuple(reason for part in parts for reason in part.unseen),
        allowed=tuple(finding for part in parts for finding in part.allowed),
    )


def _position(place: Place | None) -> tuple[str, int, int]:
    return ("", 0, 0) if place is None else (place.file, place.line, place.column)


def _understood(
    comments: list[Allowance], file: SourceFile
) -> tuple[list[tuple[Allowance, str]], list[str]]:
    """Comments with the rules that they mean, and complaints of those that mean none."""
    known, unseen = [], []
    for allowance in comments:
        try:
            known.append((allowance, named(allowance.name).name))
        except SettingError as error:
            at = file.place_at(allowance.line, allowance.column)
            unseen.append(f"{at}: a comment allows what is no rule: {error}")
    return known, unseen


def _covers(allowance: Allowance, finding: Finding, file: SourceFile) -> bool:
    """Whether a comment stands where it speaks of a finding."""
    if allowance.whole_file:
        return True
    line = file.line_at(finding.place) if finding.place else 0
    return any(first <= allowance.line <= last for first, last in _reach(file.tree, line))


def _reach(tree: ast.Module, line: int) -> list[tuple[int, int]]:
    """The lines on which a comment speaks of a line: its statement, and heads around it."""
    spans = [(line, line)]
    body: list[ast.stmt] = tree.body
    while body:
        here = next((s for s in body if _first(s) <= line <= (s.end_lineno or s.lineno)), None)
        if here is None:
            break
        inner = [statement for block in blocks(here) for statement in block]
        if not inner:
            spans.append((_first(here), here.end_lineno or here.lineno))
        elif line < _first(inner[0]) or isinstance(here, (*FUNCTIONS, ast.ClassDef)):
            spans.append((_first(here), max(_first(inner[0]) - 1, here.lineno)))
        body = inner
    return spans


def _first(statement: ast.stmt) -> int:
    marks: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(mark.lineno for mark in marks)])


def _note(allowance: Allowance, file: SourceFile) -> Finding:
    rule, code = UNUSED
    return Finding(
        rule,
        code,
        "note",
        f"this allows {allowance.name}, of which nothing is found here: it can go",
        evidence=file.lines[allowance.line].strip(),
        place=file.place_at(allowance.line, allowance.column),
    )
