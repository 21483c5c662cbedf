"""Applies the safe edits of findings to a text, until there are none left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dropkit.inspection.source import SourceFile, Unreadable, parse
from dropkit.records import Finding, SourceEdit
from dropkit.rules.base import Rule
from dropkit.rules.linting import Linted, judged

_PASSES = 100
"""More than any file needs: a pass leaves out only edits that touch another."""


@dataclass(frozen=True, slots=True)
class Mended:
    """A text after its fixes, and what is left to say of it."""

    text: str
    fixed: tuple[Finding, ...]
    left: Linted


def mended(file: SourceFile, rules: Sequence[Rule], allow: Collection[str] = ()) -> Mended:
    """Fix what can be fixed safely; where a fix would break the file, nothing is changed."""
    text, fixed = file.text, []
    linted = judged(file, rules, allow)
    for _ in range(_PASSES):
        taken = apart(linted.findings)
        if not taken:
            break
        changed = applied(text, [finding.edit for finding in taken])
        again = parse(changed, file.path, tests=file.is_test)
        if isinstance(again, Unreadable):
            break
        left = judged(again, rules, allow)
        if len(left.findings) >= len(linted.findings):
            break  # it mends nothing, so it is not written
        text, linted = changed, left
        fixed += taken
    return Mended(text, tuple(fixed), linted)


def apart(findings: Sequence[Finding]) -> list[Finding]:
    """Findings with safe edits of source that touch no other's."""
    taken: list[Finding] = []
    spans: list[tuple[int, int]] = []
    for finding in findings:
        edit = finding.edit
        if not isinstance(edit, SourceEdit) or not edit.safe:
            continue
        own = [(start, end) for start, end, _ in edit.parts]
        if all(end < a or start > b for start, end in own for a, b in spans):
            taken.append(finding)
            spans += own
    return taken


def applied(text: str, edits: Sequence[object]) -> str:
    """A text with its parts replaced; all else stays as it is."""
    parts = [part for edit in edits if isinstance(edit, SourceEdit) for part in edit.parts]
    for start, end, new in sorted(parts, reverse=True):
        text = text[:start] + new + text[end:]
    return text
