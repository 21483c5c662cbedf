"""Mends a model in memory, and proves by a second audit that it is mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from dropkit.errors import SettingError
from dropkit.intercept import uncompiled
from dropkit.planning.apply import Applied, applied
from dropkit.records import Edit, Finding, Repair, Report
from dropkit.rules.auditing import audit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def fix(
    model: nn.Module,
    findings: Report | Iterable[Finding],
    *args: Any,
    unsafe: bool = False,
    **kwargs: Any,
) -> Repair:
    """Apply the edits of findings to a model, in place.

    The keys of its state dictionary stay what they are. With the arguments of the audit each edit
    is proven: its finding is gone in a second audit, and no error or warning has come. What cannot
    be applied or proven is refused, with the reason, and leaves nothing behind. If anything raises,
    the model is what it was.

    Args:
        model: any module; it is changed.
        findings: a report of `dropkit.audit`, or some of its findings.
        args: what the model is called with; without, and without `kwargs`, nothing is proven.
        unsafe: also apply edits that may change more than what their finding is about.
        kwargs: what else the audit was given.

    Returns:
        What was applied, what was refused and why, and the report of the second audit.

    Raises:
        SettingError: what it is given are no findings.

    >>> import torch, dropkit
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.BatchNorm1d(8), nn.Linear(8, 2))
    >>> x = torch.ones(16, 4)
    >>> repair = dropkit.fix(net, dropkit.audit(net, x, select=["DK201"]), x)
    >>> [finding.edit.says for finding in repair.applied]
    ['put the dropout behind the batch norm']
    >>> list(net.state_dict())[:4] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    True
    """
    wanted, refused = _candidates(_listed(findings), unsafe)
    inner = uncompiled(model)
    if not (args or kwargs):
        done = applied(inner, _edits(wanted))
        kept = [finding for finding in wanted if finding.edit in done.edits]
        return Repair(tuple(kept), (*refused, *_reasons(wanted, done)), None)
    look = partial(audit, model, *args, **kwargs)
    kept, more, report = _proven(inner, wanted, look)
    return Repair(tuple(kept), (*refused, *more), report)


def _listed(findings: Report | Iterable[Finding]) -> list[Finding]:
    found = list(findings.findings if isinstance(findings, Report) else findings)
    for finding in found:
        if not isinstance(finding, Finding):
            raise SettingError(
                f"findings: expected a report of dropkit.audit, or its findings; got {finding!r}"
            )
    return found


def _candidates(
    findings: list[Finding], unsafe: bool
) -> tuple[list[Finding], list[tuple[Finding, str]]]:
    """What can be tried, and why the rest cannot."""
    wanted, refused = [], []
    for finding in findings:
        if not isinstance(finding.edit, Edit):
            refused.append((finding, "it has no edit of a model in memory: mend its source"))
        elif not (finding.edit.safe or unsafe):
            refused.append((finding, "its edit may change more; unsafe=True applies it"))
        else:
            wanted.append(finding)
    return wanted, refused


def _edits(findings: Sequence[Finding]) -> list[Edit]:
    """Each edit once, though several findings may have it."""
    edits: list[Edit] = []
    for finding in findings:
        if isinstance(finding.edit, Edit) and finding.edit not in edits:
            edits.append(finding.edit)
    return edits


def _reasons(findings: Sequence[Finding], done: Applied) -> list[tuple[Finding, str]]:
    return [(f, why) for edit, why in done.refused for f in findings if f.edit == edit]


def _proven(
    model: nn.Module, wanted: list[Finding], look: Callable[[], Report]
) -> tuple[list[Finding], list[tuple[Finding, str]], Report]:
    """All at once; where that is not clean, by halves, so that one does not spoil the others."""
    before = look()
    groups = [wanted] if wanted else []
    kept: list[Finding] = []
    refused: list[tuple[Finding, str]] = []
    with ExitStack() as stack:
        while groups:
            group = groups.pop(0)
            done = applied(model, _edits(group))
            undo = ExitStack()
            undo.callback(done.undo)
            stack.push(undo)  # whatever is raised from here on
            refused += _reasons(group, done)
            group = [finding for finding in group if finding.edit in done.edits]
            after, why = _looked(look, before, group)
            if not why:
                before = after
                kept += group
                continue
            undo.close()
            edits = _edits(group)
            if len(edits) == 1:
                refused += [(finding, why) for finding in group]
            else:
                parts = edits[: len(edits) // 2], edits[len(edits) // 2 :]
                groups = [[f for f in group if f.edit in part] for part in parts] + groups
        stack.pop_all()
    return kept, refused, before


def _looked(look: Callable[[], Report], before: Report, group: list[Finding]) -> tuple[Report, str]:
    """A second audit, and why the change before it is no repair."""
    if not group:
        return before, ""
    try:
        after = look()
    except SettingError as error:
        return before, f"the model cannot be called any more: {error}"
    return after, _objection(before, after, group)


def _objection(before: Report, after: Report, group: list[Finding]) -> str:
    """Why a change is no repair; empty: it is."""
    was, now = (Counter(map(_place, report.findings)) for report in (before, after))
    for place, many in Counter(map(_place, group)).items():
        if not was[place]:
            return f"{place[0]} is found no more"
        if now[place] > was[place] - many:
            return _still(place, before, after)
    new = [finding for finding in after.findings if now[_place(finding)] > was[_place(finding)]]
    for finding in new:
        if finding.severity != "note" and _is_more(finding.rule, before, after, group):
            return f"it would bring {finding.rule}: {finding.message}"
    lost = [what for what in after.unseen if what not in before.unseen]
    return f"the second audit did not see {lost[0]}" if lost else ""


def _place(finding: Finding) -> tuple[str, str, object]:
    """What makes it the same finding in two audits: its rule, and where it is."""
    return finding.rule, finding.module, finding.line


def _still(place: tuple[str, str, object], before: Report, after: Report) -> str:
    """What is said where a change was to mend it."""
    said = {finding.message for finding in before.findings if _place(finding) == place}
    left = [finding.message for finding in after.findings if _place(finding) == place]
    other = next((message for message in left if message not in said), None)
    return f"{place[0]} is found as before" if other is None else f"{place[0]} is found: {other}"


def _is_more(rule: str, before: Report, after: Report, group: list[Finding]) -> bool:
    """Whether a rule finds more than what it should; else what it finds has another place now."""
    was, now, mended = (
        sum(finding.rule == rule for finding in findings)
        for findings in (before.findings, after.findings, group)
    )
    return now > was - mended
