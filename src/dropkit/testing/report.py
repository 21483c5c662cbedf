"""What a run of the checks found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dropkit.errors import ConformanceError

Verdict = Literal["pass", "fail", "not applicable"]


class Violation(Exception):
    """A check is not passed; the message is the evidence."""


class Inapplicable(Exception):
    """A check does not concern the subject; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check's verdict on one subject."""

    name: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts on one subject; printed, a small table.

    >>> print(Report("mine", (Check("rate", "fail", "dropped 21 of 100"),)))
    mine: 0 passed, 1 failed, 0 not applicable
      FAIL rate  dropped 21 of 100
    """

    subject: str
    checks: tuple[Check, ...]

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check named {name!r}; there are {[c.name for c in self.checks]}")

    def counted(self, verdict: Verdict) -> tuple[Check, ...]:
        """The checks that ended so."""
        return tuple(check for check in self.checks if check.verdict == verdict)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return self.counted("fail")

    def raise_for_failures(self) -> None:
        """Raise a `ConformanceError`, an AssertionError, if any check failed."""
        if self.failures:
            raise ConformanceError(str(self))

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        passed, out = len(self.counted("pass")), len(self.counted("not applicable"))
        mark = {"pass": "ok  ", "fail": "FAIL", "not applicable": "-   "}
        title = f"{passed} passed, {len(self.failures)} failed, {out} not applicable"
        return "\n".join(
            [f"{self.subject}: {title}"]
            + [f"  {mark[c.verdict]} {c.name:<{width}}  {c.evidence}" for c in self.checks]
        )


def require(condition: bool, evidence: str) -> None:
    """Raise the evidence as a `Violation` unless the condition holds."""
    if not condition:
        raise Violation(evidence)


def concerns(condition: bool, reason: str) -> None:
    """Raise the reason as `Inapplicable` unless the condition holds."""
    if not condition:
        raise Inapplicable(reason)
