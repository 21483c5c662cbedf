"""The checks as tests, for pytest or unittest: a new layer inherits every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar
from unittest import SkipTest

from dropkit.errors import ConformanceError
from dropkit.testing.effort import Effort
from dropkit.testing.subject import Subject
from dropkit.testing.suite import CHECKS, check


class DropoutContract:
    """One test for each check; a subclass says what is tested.

    In a test module these three lines are all there is to write::

        class TestMine(DropoutContract):
            subject = Subject(make=Mine, shape=(8, 16))

    A check that does not concern the subject is skipped, and says why.

    >>> import torch
    >>> class TestDropout(DropoutContract):
    ...     subject = Subject(make=torch.nn.Dropout, shape=(8, 16))
    >>> TestDropout().test_eval_mode()
    """

    subject: ClassVar[Subject]
    effort: ClassVar[Effort] = "usual"


def _test(name: str) -> Callable[[DropoutContract], None]:
    def test(self: DropoutContract) -> None:
        (found,) = check(self.subject, only=[name], effort=self.effort).checks
        if found.verdict == "not applicable":
            raise SkipTest(found.evidence)
        if found.verdict == "fail":
            raise ConformanceError(f"{self.subject.name}: {name}: {found.evidence}")

    test.__name__ = f"test_{name}"
    test.__doc__ = CHECKS[name].__doc__
    return test


for _name in CHECKS:
    setattr(DropoutContract, f"test_{_name}", _test(_name))
