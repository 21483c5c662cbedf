"""What rules say of sites and of source, and what would mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dropkit.records.sites import Place, Site

Severity = Literal["error", "warning", "note"]
"""error: results are wrong; warning: training is worse than it could be; note: worth a look."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first."""

Need = Literal[
    "source",  # a parsed file
    "modules",  # a model as a tree of modules
    "run",  # a training and an evaluation pass of it, seen
    "values",  # that they ran on real tensors, not on the meta device
    "export",  # an exported program or an ONNX file
    "optimizer",  # the optimizer that trains it
    "loss",  # the loss that trains it
    "rows",  # how many examples (or tokens) it is trained on
    "pretrained",  # whether it is fine-tuned
    "purpose",  # whether it is about to be trained or served
]


Action = Literal[
    "set",  # an attribute to a number: `path` is the attribute's (encoder.drop.p), `to` the number
    "replace",  # a module that holds no tensors by one of the class `to`, made with `arguments`
    "exchange",  # two modules of one Sequential, `path` and `to`, whose order in it is turned
    "move",  # a module without tensors out of a Sequential, to after `to`, of it or of another
    "switch",  # the mode of the module at `path` and all within it; `to`: train or eval
    "insert",  # a class `to`, made with `arguments`, before the layer `path`, whose part it becomes
    "hold",  # a plain list or dictionary of modules without tensors; `to`: ModuleList, ModuleDict
]
"""What an edit does. Keys of the state dictionary stay what they are, or it is refused."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a model in memory, as a value."""

    action: Action
    path: str
    """Of the module that changes; for "set" and "hold", of the attribute."""
    to: str
    """What it comes to, by the action: a number, a class such as dropkit.nn.Dropout2d, the path of
    another module, a mode."""
    arguments: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    """replace, insert: what the class is made with."""
    safe: bool = True
    """Whether it can change nothing but what the finding is about."""
    says: str = ""
    """In words, for a person: "put the dropout after the batch norm"."""


@dataclass(frozen=True, slots=True)
class SourceEdit:
    """A change of a file: each part of the text is replaced by another."""

    file: str
    parts: tuple[tuple[int, int, str], ...]
    """(start, end, text): offsets in characters of the whole text, in order, apart."""
    safe: bool = True
    says: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's verdict, with its evidence."""

    rule: str
    """Its name, which reads after "allow": always-on-dropout."""
    code: str
    severity: Severity
    message: str
    """What is wrong here, in one sentence with the values that matter."""
    evidence: str = ""
    """What was seen that says so: a measurement, an operation, a line."""
    site: Site | None = None
    path: str = ""
    """Of a module, where the finding is of a model."""
    place: Place | None = None
    edit: Edit | SourceEdit | None = None

    @property
    def module(self) -> str:
        """The path of the module that it is about: its own, or that of its site."""
        return self.path or (self.site.path if self.site else "")

    @property
    def line(self) -> Place | None:
        """Where the source is that it is about: its own place, or that of its site."""
        return self.place or (self.site.place if self.site else None)


@dataclass(frozen=True, slots=True)
class Report:
    """What rules said of one model, or of a tree of source; `print` shows it."""

    target: str
    """What was judged, in words: a class of a model, a path."""
    findings: tuple[Finding, ...]
    """The worst first; then by path or line."""
    judged: tuple[str, ...]
    """Names of the rules that had what they need."""
    not_applicable: tuple[tuple[str, str], ...]
    """(rule, why) of those that could not judge, which is no pass."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why; words for a person."""
    sites: tuple[Site, ...] = ()
    """The map on which they judged; empty for source."""
    allowed: tuple[Finding, ...] = ()
    """Findings that a comment, a setting or a baseline allows."""

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), None)

    def __str__(self) -> str:
        lines = [f"{self.target}: {len(self.findings)} findings of {len(self.judged)} rules"]
        for found in self.findings:
            parts = (found.severity, found.rule, found.module, str(found.line or ""))
            lines += ["", "  ".join(filter(None, parts)), f"    {found.message}"]
            lines += [f"    seen: {found.evidence}"] if found.evidence else []
        lines += [f"Not applicable: {rule}: {why}" for rule, why in self.not_applicable]
        return "\n".join([*lines, *(f"Not seen: {what}" for what in self.unseen)])


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of the findings that a model was to be mended by."""

    applied: tuple[Finding, ...]
    refused: tuple[tuple[Finding, str], ...]
    """(finding, why); nothing was changed for them."""
    report: Report | None
    """Of the audit after it; None: the model's inputs were not given, so nothing is proven."""
