"""Two dropouts act on the same activations, one right after the other.

Together they are one dropout of a higher rate: rates of 0.5 and 0.5 drop 0.75. On a model the rule
reports a dropout that acts on what another gave, with nothing between but what moves elements, and
says what both drop together. In source it reports two dropouts of the same kind side by side in a
`nn.Sequential`, and a functional dropout of a functional dropout.

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
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from dropkit.inspection.source import FUNCTIONAL, SourceFile, argument
from dropkit.inspection.source.sequences import acts, rows
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.seen import named, whereabouts

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run

_INPUT = (0, "input")


_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "mask")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts of what another dropout gave."""
    acting = [run for run in evidence.runs if run.acts and run.site.kind in _KINDS]
    gave = _gave(acting)
    for two in acting:
        one = next((one for one in _before(two, gave) if _follows(one, two)), None)
        if one is None:
            continue
        p, q = one.site.rate, two.site.rate
        joint = "more" if p is None or q is None else f"{1 - (1 - p) * (1 - q):.4g}"
        yield RULE.finding(
            f"{named(two.site)} acts on what another dropped, with the rate "
            f"{'unknown' if p is None else format(p, '.4g')}: together they drop {joint}",
            evidence=f"what {one.site.operation} at {whereabouts(one.site)} gave came in "
            "here, with nothing between that changes it",
            site=two.site,
            edit=set_rate(evidence, two.site, 0.0),
        )


def _follows(one: Run, two: Run) -> bool:
    """Whether a dropout that acts on what another gave is of the same law, in the same pass."""
    return one is not two and one.trace is two.trace and one.site.shared == two.site.shared


def _gave(runs: Iterable[Run]) -> dict[int, list[Run]]:
    """By what was given, in the order of the runs."""
    gave: dict[int, list[Run]] = {}
    for run in runs:
        for node in run.given():
            gave.setdefault(id(node), []).append(run)
    return gave


def _before(run: Run, gave: dict[int, list[Run]]) -> Iterator[Run]:
    """Those that gave what came in."""
    for event in run.events:
        yield from gave.get(id(event.x), ())


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
    needs=("run",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch
from torch import nn

features = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2))
head = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 3))
model = nn.Sequential(features, head)
inputs = (torch.randn(8, 16),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.maps, self.drop, self.head = nn.Conv1d(4, 8, 3), nn.Dropout(0.2), nn.Linear(64, 3)

    def forward(self, x):
        x = F.dropout(torch.relu(self.maps(x)), 0.2, self.training)
        return self.head(self.drop(x.transpose(1, 2).flatten(1)))

model = Net()
inputs = (torch.randn(8, 4, 10),)
""",
    ),
    right=(
        """
import torch
from torch import nn

# Whole channels, and then single elements.
model = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Dropout(0.5),
    nn.Linear(8 * 36, 3),
)
inputs = (torch.randn(4, 3, 8, 8),)
""",
        """
import torch
from torch import nn

# Weights of attention, and then what they make of the values.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, dropout=0.1, batch_first=True)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(x + self.drop(self.attention(x, x, x)[0]))

model = Net()
inputs = (torch.randn(2, 7, 16),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.0), nn.Dropout(0.5), nn.Linear(64, 3)
)
inputs = (torch.randn(8, 16),)
""",
    ),
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
