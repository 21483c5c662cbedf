"""Two dropouts act on the same activations, one right after the other.

Together they are one dropout of a higher rate: rates of 0.5 and 0.5 drop 0.75. In source the rule
reports two dropouts of the same kind side by side in a `nn.Sequential`, and a functional dropout
of a functional dropout.

Why it matters:
The rate that acts is not the one that was written, tuned or reported. Most often the second is a
leftover: one block ends with a dropout and the next begins with one.

How to fix:
Keep one of them. For the same effect its rate is 1 - (1 - p)(1 - q).

When to allow:
Where the two drop different things, whole channels and single elements; the rule is silent there.

References:
- Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014,
  [Dropout: a simple way to prevent neural networks from overfitting](https://jmlr.org/papers/v15/srivastava14a.html)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from dropkit.inspection.source import FUNCTIONAL, SourceFile, argument
from dropkit.inspection.source.sequences import acts, rows
from dropkit.records import Finding
from dropkit.rules.base import Rule

_INPUT = (0, "input")


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Dropouts side by side in a Sequential, and one within another."""
    for trail, links in rows(file):
        for one, two in pairwise(links):
            if one.kind == two.kind and acts(file, one, trail) and acts(file, two, trail):
                yield RULE.finding(
                    f"{two.kind} follows {one.kind}: more is dropped than either says",
                    evidence=file.line_of(two.node),
                    place=file.place(trail, two.node),
                )
    for spot, _ in file.calls_of(FUNCTIONAL):
        inner = argument(spot.call, _INPUT)
        if isinstance(inner, ast.Call) and file.names.of(inner.func) == spot.name:
            yield RULE.finding(
                f"{spot.name.rpartition('.')[2]} of what is dropped already: more is dropped than "
                "either says",
                evidence=file.line_of(spot.call),
                place=file.place(spot.trail),
            )


RULE = Rule(
    name="dropout-twice",
    code="DK208",
    severity="warning",
    page=__doc__,
    on_source=on_source,
    wrong_source=(
        """
from torch import nn

net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.Dropout(0.5), nn.Linear(8, 1))
""",
        """
import torch.nn.functional as F

def twice(x, training):
    return F.dropout(F.dropout(x, 0.2, training), 0.5, training)
""",
    ),
    right_source=(
        """
from torch import nn

net = nn.Sequential(nn.Dropout2d(0.2), nn.Dropout(0.5), nn.Linear(8, 8), nn.Dropout(0.5))
off = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.5))
""",
    ),
)
