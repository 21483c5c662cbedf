"""A dropout is scaled twice, so that training sees activations that are too large.

PyTorch's dropout is inverted: it divides what it keeps by `1 - p` itself. Who divides once more, or
multiplies a mask that is scaled already, makes activations in training larger by `1 / (1 - p)`. The
rule looks at the factors of masks that somebody wrote, and at the numbers by which a dropout's
input and output are multiplied in training mode alone. It looks for the opposite as well: what
training divides by `1 - p`, and evaluation multiplies by it, as is right only for masks that are
not scaled. The same division in both modes keeps them in step; where it is by exactly `1 - p` it is
a warning.

Why it matters:
Evaluation sees activations that are smaller than those of training by `1 - p`, at a rate of 0.5 by
half. The loss in evaluation is worse than it should be, for no reason that a learning curve shows.

How to fix:
Take the second scaling out. `nn.Dropout` and `F.dropout` need none.

When to allow:
Where another factor happens to be the same number, and is meant.

References:
- [torch.nn.Dropout](https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html): "the
  outputs are scaled by a factor of 1/(1-p) during training"
- Srivastava et al., 2014, [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), section 10, on
  scaling in training instead of in evaluation
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding, Severity
from dropkit.rules.base import Rule

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.scales import Scaled

_COMMON = (0.25, 0.5, 0.75)
"""1 - p whose inverse is a factor that stands in models for other reasons."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts whose keep probability is divided by more than once."""
    from dropkit.inspection.scales import scaled

    for one in scaled(evidence):
        severity = _severity(one)
        if severity is None:
            continue
        keep = one.keep
        where = "in both modes" if one.in_both and not one.in_training else "in training"
        often = f"{one.times} times {where}"
        if one.in_evaluation:
            often = f"in training, and evaluation multiplies by {keep:.4g} as well"
        yield RULE.finding(
            f"what is kept is multiplied by 1 / {keep:.4g} {often}: once keeps the mean",
            evidence="; ".join(one.seen),
            severity=severity,
            site=one.site,
            path=one.site.path,
            place=one.site.place,
        )


def _severity(one: Scaled) -> Severity | None:
    if one.itself + one.in_training + one.in_evaluation >= 2:
        return "error"
    is_odd = all(abs(one.keep - common) > 1e-6 for common in _COMMON)
    return "warning" if one.times >= 2 and is_odd else None


RULE = Rule(
    name="dropout-scaled-twice",
    code="DK402",
    severity="error",
    page=__doc__,
    needs=("run", "values"),
    on_model=on_model,
    wrong=(
        """
import torch.nn.functional as F
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        x = self.first(x).relu()
        if self.training:
            x = F.dropout(x, 0.5) / (1 - 0.5)
        return self.last(x)

model, inputs = Net(), (ones(2, 8),)
""",
        """
import torch
from torch import nn

class Mask(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        mask = torch.bernoulli(torch.full_like(x, 0.8)) / 0.8
        return x * mask / 0.8

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Mask(), nn.Linear(64, 1))
inputs = (torch.ones(4, 8),)
""",
        """
import torch.nn.functional as F
from torch import nn, ones

class Old(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.3, True) if self.training else x * (1 - 0.3)

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Old(), nn.Linear(64, 1))
inputs = (ones(4, 8),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Old(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) >= 0.3) if self.training else x * (1 - 0.3)

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Old(), nn.Linear(64, 1))
inputs = (torch.ones(4, 8),)
""",
        """
import torch.nn.functional as F
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(F.dropout(self.first(x).relu(), 0.5, self.training) * 2)

model, inputs = Net(), (ones(2, 8),)
""",
        """
import torch
from torch import nn

class Mask(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        return (x / 0.8) * torch.bernoulli(torch.full_like(x, 0.8))

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Mask(), nn.Linear(64, 1))
inputs = (torch.ones(4, 8),)
""",
    ),
)
