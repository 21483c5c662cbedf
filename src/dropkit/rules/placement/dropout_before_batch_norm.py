"""Dropout stands before a batch norm, whose statistics it makes wrong for evaluation.

Dropout keeps the mean of what it acts on and raises its variance, in training alone. A batch norm
behind it, directly or through a linear or convolutional layer, learns the raised variance and
divides by it in evaluation too, where nothing is dropped. On a model the rule measures the shift.
In source it reports the order in a `nn.Sequential`: dropout and batch norm side by side as a
warning, and with one linear or convolutional layer between them as a note.

Why it matters:
In evaluation every unit is scaled by a factor that it never had in training. At a rate of 0.5 the
variance of centred activations doubles, so that the batch norm's output is too small by a factor of
up to 1.4, and the layers behind it see inputs that they were not trained on.

How to fix:
Put the dropout after the batch norm and its activation; where several blocks follow each other, use
dropout after the last batch norm only.

When to allow:
Where validation shows that it does no harm: small rates in wide layers shift little. Where
statistics are gathered anew without dropout after training.

References:
- Li, Chen, Hu and Yang, 2019,
  [Understanding the disharmony between dropout and batch normalization by variance shift](https://arxiv.org/abs/1801.05134)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from dropkit.inspection.source import SourceFile
from dropkit.inspection.source.sequences import Link, acts, rows
from dropkit.records import Finding, Severity
from dropkit.rules.base import Rule

_NORM = re.compile(r"(Sync)?BatchNorm|LazyBatchNorm")
_CARRIES = re.compile(r"(Lazy)?(Linear|Conv)")


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Dropout and then batch norm in a Sequential."""
    for trail, links in rows(file):
        for drop, norm, between in _pairs(links):
            if not acts(file, drop, trail):
                continue
            severity: Severity = "note" if between else "warning"
            way = f"through {between}" if between else "directly"
            yield RULE.finding(
                f"{drop.kind} acts {way} on {norm.kind}, whose running variance will be that of "
                "training, with dropout, in evaluation too",
                evidence=file.line_of(drop.node),
                severity=severity,
                place=file.place(trail, drop.node),
            )


def _pairs(links: list[Link]) -> Iterator[tuple[Link, Link, str]]:
    for one, two in pairwise(links):
        if _NORM.match(two.kind):
            yield one, two, ""
    for one, two, three in zip(links, links[1:], links[2:], strict=False):
        if _CARRIES.match(two.kind) and _NORM.match(three.kind):
            yield one, three, two.kind


RULE = Rule(
    name="dropout-before-batch-norm",
    code="DK201",
    severity="warning",
    page=__doc__,
    on_source=on_source,
    wrong_source=(
        """
from torch import nn

net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8))
""",
        """
from collections import OrderedDict
from torch import nn

def block(rate):
    layers = [nn.Dropout(rate), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers)
""",
    ),
    right_source=(
        """
from torch import nn

net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
tail = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.LayerNorm(8))
none = nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(8))
parts = nn.ModuleList([nn.Dropout(0.5), nn.BatchNorm1d(8)])
""",
    ),
)
