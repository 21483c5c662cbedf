"""What a rule is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropkit.records import Edit, Finding, Need, Place, Severity, Site, SourceEdit

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.source import SourceFile

GROUPS = ("mode", "placement", "rate", "scaling", "combination")
"""Rooms of rules, in the order of the first digits of their codes."""

SECTIONS = ("Why it matters", "How to fix", "When to allow", "References")
"""The parts of a page, after what the rule does."""


class NotApplicable(Exception):
    """A rule has nothing to judge here; the message says why, and that is no pass."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, its page and its examples.

    `name` reads after "allow": always-on-dropout. `code` is DK and three digits, of which the first
    is its group: 1 mode, 2 placement, 3 rate, 4 scaling, 5 combination. `page` is the docstring of
    its file: a sentence, what it does, and the sections of `SECTIONS`, each a line "Title:" of its
    own. `wrong` and `right` are sources. For a rule on models each defines `model` and `inputs`
    (a tuple), and it may define `settings`, a dictionary of what else `dropkit.audit` takes; for a
    rule on source alone each is a file. Where a rule has both checks, `wrong_source` and
    `right_source` are the files.
    """

    name: str
    code: str
    severity: Severity
    page: str
    needs: tuple[Need, ...] = ()
    """What the check of a model cannot do without."""
    on_model: Callable[[Evidence], Iterable[Finding]] | None = None
    on_source: Callable[[SourceFile], Iterable[Finding]] | None = None
    wrong: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    wrong_source: tuple[str, ...] = ()
    right_source: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """mode, placement, rate, scaling or combination."""
        return GROUPS[int(self.code[2]) - 1]

    @property
    def summary(self) -> str:
        """The first sentence of its page."""
        return self.page.strip().partition("\n")[0]

    def finding(
        self,
        message: str,
        *,
        evidence: str = "",
        severity: Severity | None = None,
        site: Site | None = None,
        path: str = "",
        place: Place | None = None,
        edit: Edit | SourceEdit | None = None,
    ) -> Finding:
        """What this rule says of one thing; of its own severity unless another is given."""
        named = (self.name, self.code, severity or self.severity)
        return Finding(*named, message, evidence, site, path, place, edit)

    def section(self, title: str) -> str:
        """A part of its page, as Markdown; "" is what stands before the first title."""
        parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", self.page.strip() + "\n", flags=re.M)
        found = dict(zip(["", *parts[1::2]], parts[0::2], strict=True))
        return found.get(title, "").strip()
