"""A probability to keep is given where a rate to drop is expected.

PyTorch's `p` is the fraction that is dropped; papers and old TensorFlow speak of the fraction that
is kept. In source the rule reports a dropout whose `p` is a name such as `keep_prob`. On a model it
reports a dropout whose rate is what an attribute with such a name holds, in its module or around
it, and rates from 0.8 on, which are usual as probabilities to keep and hardly ever as rates.

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
from typing import TYPE_CHECKING

from dropkit.inspection.source import FUNCTIONAL, MODULES, SourceFile, Trail, argument
from dropkit.inspection.source.trails import walk_from
from dropkit.records import Finding, Site, SourceEdit
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_KEEP = re.compile(r"^_?(p_?keep|keep_?(p|prob|probability|rate|ratio)|prob_?keep)$", re.IGNORECASE)

_HIGH = 0.8
"""The lowest rate that is reported by itself: 0.75 masks patches in pretraining, 0.8 is the keep
probability of the first papers' inputs."""
_CALLED = ("dropout", "feature_dropout", "alpha_dropout", "attention", "recurrent")
"""What is given its rate by a caller; that of a mask may be a computed chance."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts whose rate is a probability to keep, by its name or by its height."""
    for site in evidence.sites:
        if not site.fired_in_train or site.rate is None or site.kind not in (*_CALLED, "mask"):
            continue
        holder = _kept(evidence, site)
        if not holder and not is_like_keep(site):
            continue
        says = f"{holder} is {site.rate:.4g}" if holder else "no usual rate is as high"
        yield RULE.finding(
            f"{named(site)} keeps {1 - site.rate:.4g}: by its {'name' if holder else 'height'}, it "
            "is a probability to keep",
            evidence=f"{says}; it dropped with the rate {site.rate:.4g} in the training pass, and "
            f"its role is {site.role}",
            site=site,
            edit=set_rate(evidence, site, round(1 - site.rate, 12)),
        )


def is_like_keep(site: Site) -> bool:
    """Whether a rate is so high that it may be a probability to keep."""
    return site.kind in _CALLED and site.rate is not None and _HIGH <= site.rate < 1


def _kept(evidence: Evidence, site: Site) -> str:
    """The attribute that by its name holds what is kept, and has the value of the rate."""
    path = site.path
    while site.rate != 0.5:
        module = evidence.module(path)
        for name, value in vars(module).items() if module is not None else ():
            if _KEEP.match(name) and isinstance(value, float) and value == site.rate:
                return f"{path}.{name}" if path else name
        if not path:
            break
        path = path.rpartition(".")[0]
    return ""


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
    needs=("run",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, keep_prob=0.7):
        super().__init__()
        self.keep_prob = keep_prob
        self.first, self.head = nn.Linear(16, 64), nn.Linear(64, 3)
        self.drop = nn.Dropout(keep_prob)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.first(x))))

model = Net()
inputs = (torch.randn(8, 16),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Dropout(0.9), nn.Linear(256, 3))
inputs = (torch.randn(8, 16),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, keep_prob=0.7):
        super().__init__()
        self.keep_prob = keep_prob
        self.first, self.head = nn.Linear(16, 64), nn.Linear(64, 3)
        self.drop = nn.Dropout(1 - keep_prob)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.first(x))))

model = Net()
inputs = (torch.randn(8, 16),)
""",
        """
import torch
from torch import nn

# Most of what comes in is hidden, and what is missing is learned.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x):
        if self.training:
            x = x * (torch.rand_like(x) > 0.85) / 0.15
        return self.head(torch.relu(self.first(x)))

model = Net()
inputs = (torch.randn(8, 16),)
""",
    ),
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
