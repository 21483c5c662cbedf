"""Judges a model by how it behaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dropkit.inspection.evidence import Evidence, look
from dropkit.inspection.passes import said
from dropkit.records import SEVERITIES, Finding, Report
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.choosing import chosen

if TYPE_CHECKING:
    import torch
    from torch import nn


def audit(
    model: nn.Module | torch.export.ExportedProgram,
    *args: Any,
    optimizer: torch.optim.Optimizer | None = None,
    loss: nn.Module | None = None,
    rows: int | None = None,
    pretrained: bool | None = None,
    purpose: str | None = None,
    device: str = "auto",
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Report:
    """Run a model in training and in evaluation mode, and judge every place where it drops.

    The model is afterwards what it was before, as with `dropkit.sites`. What a rule needs and was
    not given makes it "not applicable", which is no pass.

    Args:
        model: any module, compiled or not; or an exported program, which is read and does not run.
        args: what it is called with.
        optimizer: that trains it, for rules on weight decay.
        loss: that trains it, for rules on losses.
        rows: examples (or tokens) that it is trained on.
        pretrained: whether it is fine-tuned.
        purpose: "train" or "inference", what it is about to do in the mode that it is in.
        device: "meta": run a copy without values; "real": with made-up values, where it has none.
        select: names or codes of rules, or beginnings of codes (DK1): only these.
        ignore: the same: not these.
        example_kwargs: what the model is called with by names that are taken here.
        kwargs: what it is called with, by name.

    Returns:
        The findings, the worst first; which rules judged, and which could not; what was not seen.

    Raises:
        SettingError: an unknown rule, or a model that cannot be called with these inputs.

    >>> import torch, dropkit
    >>> class Net(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.nn.functional.dropout(x, 0.5)
    >>> report = dropkit.audit(Net(), torch.ones(2, 4), select=["always-on-dropout"])
    >>> [finding.rule for finding in report.findings]
    ['always-on-dropout']
    """
    rules = chosen(select, ignore)
    told: dict[str, Any] = {"optimizer": optimizer, "loss": loss, "rows": rows}
    told["pretrained"] = pretrained
    given = {**kwargs, **(example_kwargs or {})}
    return judge(look(model, args, given, device=device, purpose=purpose, **told), rules)


def judge(evidence: Evidence, rules: Iterable[Rule]) -> Report:
    """What rules say of what was seen."""
    findings: list[Finding] = []
    judged: list[str] = []
    not_applicable: list[tuple[str, str]] = []
    unseen = list(evidence.unseen)
    for rule in rules:
        if rule.on_model is None:
            continue
        lacking = [need for need in rule.needs if need not in evidence.has]
        try:
            if lacking:
                raise NotApplicable(f"needs {_worded(lacking)}")
            findings += rule.on_model(evidence)
            judged.append(rule.name)
        except NotApplicable as why:
            not_applicable.append((rule.name, str(why)))
        except Exception as error:  # a rule that breaks hides nothing of the others
            unseen.append(f"what {rule.name} judges: it broke with {said(error)}")
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), f.code, f.path))
    return Report(
        target=evidence.name,
        findings=tuple(findings),
        judged=tuple(judged),
        not_applicable=tuple(not_applicable),
        unseen=tuple(unseen),
        sites=evidence.sites,
    )


_NEEDED = {
    "modules": "modules with modes, which an exported program has not",
    "run": "both passes to their end",
    "values": "a model with values, not on the meta device",
    "optimizer": "optimizer=",
    "loss": "loss=",
    "rows": "rows=",
    "pretrained": "pretrained=",
    "purpose": "purpose=",
    "export": "an exported program",
}


def _worded(needs: Iterable[str]) -> str:
    return " and ".join(_NEEDED.get(need, need) for need in needs)
