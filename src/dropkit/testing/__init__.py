"""A conformance suite for dropouts: PyTorch's, a library's, one's own.

    >>> import torch
    >>> from dropkit.testing import Subject, check
    >>> mine = Subject(make=torch.nn.Dropout2d, shape=(8, 16, 7, 5), shared=(2, 3))
    >>> check(mine, only=["rate", "shared_axes"]).raise_for_failures()

`Subject` says what a dropout claims, `check` compares, a `Report` holds the evidence. A
`DropoutContract` hands the same checks to pytest or unittest. No other part of dropkit needs this
package, and it needs no test runner.
"""

from dropkit.errors import ConformanceError
from dropkit.testing.contract import DropoutContract
from dropkit.testing.laws import Affine, Bernoulli, Block, Gaussian, Law, Subset
from dropkit.testing.report import Check, Report
from dropkit.testing.subject import STANDARD, Claim, Subject
from dropkit.testing.suite import CHECKS, CONCERNS, check

__all__ = [
    "CHECKS",
    "CONCERNS",
    "STANDARD",
    "Affine",
    "Bernoulli",
    "Block",
    "Check",
    "Claim",
    "ConformanceError",
    "DropoutContract",
    "Gaussian",
    "Law",
    "Report",
    "Subject",
    "Subset",
    "check",
]
