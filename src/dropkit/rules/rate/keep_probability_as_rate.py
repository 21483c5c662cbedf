"""A probability to keep is given where a rate to drop is expected.

PyTorch's `p` is the fraction that is dropped; papers and old TensorFlow speak of the fraction that
is kept. In source the rule reports a dropout whose `p` is a name such as `keep_prob`. On a model it
reports rates that only make sense as a probability to keep.

Why it matters:
A model that is meant to keep 0.9 of its units drops 0.9 of them. It still trains, badly, and the
learning curve looks like one of a model that is too small.

How to fix:
Pass `1 - keep_prob`, and rename what holds a rate.

When to allow:
Where the name is wrong and the number is right: then rename it. Until then,
`# dropkit: allow=keep-probability-as-rate`.

References:
- [torch.nn.Dropout](https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html): "p -
  probability of an element to be zeroed"
- Srivastava et al., 2014, [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), whose p is the
  probability to keep
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.inspection.source import FUNCTIONAL, MODULES, SourceFile, Trail, argument
from dropkit.inspection.source.trails import walk_from
from dropkit.records import Finding, SourceEdit
from dropkit.rules.base import Rule

_KEEP = re.compile(r"^_?(p_?keep|keep_?(p|prob|probability|rate|ratio)|prob_?keep)$", re.IGNORECASE)


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Dropouts whose rate has the name of what is kept."""
    for spot, takes in (*file.calls_of(MODULES), *file.calls_of(FUNCTIONAL)):
        rate = argument(spot.call, takes.rate)
        name = _name(rate)
        if isinstance(rate, str) or not _KEEP.match(name) or _turned(spot.trail, name):
            continue
        start, end = file.span(rate)
        text = f"1 - {file.text[start:end]}"
        edit = SourceEdit(file.path, ((start, end, text),), False, f"pass {text}")
        yield RULE.finding(
            f"{spot.name.rpartition('.')[2]} drops with the probability {name}, which by its name "
            "is what should be kept",
            evidence=file.line_of(rate),
            place=file.place(spot.trail, rate),
            edit=None if file.cells else edit,
        )


def _name(rate: ast.expr | str) -> str:
    if isinstance(rate, ast.Name):
        return rate.id
    return rate.attr if isinstance(rate, ast.Attribute) else ""


def _turned(trail: Trail, name: str) -> bool:
    """Whether the function gives the name another meaning before."""
    around = trail.function
    return around is not None and any(
        isinstance(inner.node, ast.Name)
        and inner.node.id == name
        and isinstance(inner.node.ctx, ast.Store)
        for inner in walk_from(around)
    )


RULE = Rule(
    name="keep-probability-as-rate",
    code="DK302",
    severity="warning",
    page=__doc__,
    on_source=on_source,
    wrong_source=(
        """
from torch import nn

class Net(nn.Module):
    def __init__(self, keep_prob=0.9):
        super().__init__()
        self.drop = nn.Dropout(keep_prob)
""",
        """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, p=self.keep_prob, training=self.training)
""",
    ),
    right_source=(
        """
from torch import nn

class Net(nn.Module):
    def __init__(self, keep_prob=0.9, drop_prob=0.1):
        super().__init__()
        self.drop = nn.Dropout(1 - keep_prob)
        self.other = nn.Dropout(drop_prob)
""",
    ),
)
