"""A dropout of weights writes its zeros into the parameters, and they stay.

Weight drop and DropConnect act on a copy of the weights, drawn anew in each pass. Written in place,
or assigned to `weight.data`, each pass takes some more weights away for good. The rule compares the
parameters before the training passes with those after them and an evaluation pass: it reports
parameters of which elements that were not 0 now are, in models that draw masks in training.

Why it matters:
The network is pruned at random, a little more in each step, while the optimizer tries to grow it
back. Evaluation sees what is left, and a saved checkpoint has it for good.

How to fix:
Compute the dropped weights from the raw ones in each forward, and keep them nowhere:
`F.linear(x, F.dropout(self.weight, self.rate, self.training), self.bias)`. `dropkit.nn.WeightDrop`
does it for any module.

When to allow:
Where weights are pruned on purpose as the model trains.

References:
- Wan et al., 2013,
  [Regularization of neural networks using DropConnect](https://proceedings.mlr.press/v28/wan13.html)
- Merity, Keskar and Socher, 2018,
  [Regularizing and optimizing LSTM language models](https://arxiv.org/abs/1708.02182), whose weight
  drop keeps the raw weights
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding, Site
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.seen import counted, whereabouts, within

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Parameters that have lost elements in the passes."""
    if not evidence.passes.zeroed and not any(True for _ in evidence.model.parameters()):
        raise NotApplicable("the model has no parameters")
    for name, (lost, size) in evidence.passes.zeroed.items():
        owner = name.rpartition(".")[0]
        site = _cause(evidence, owner)
        if site is None:
            continue
        where = whereabouts(site)
        yield RULE.finding(
            f"{lost:,} of {size:,} elements of {name} became 0 in "
            f"{counted(len(evidence.passes.train), 'training pass')}, and stay so",
            evidence=f"{name} before the passes and after them; a mask is drawn at {where}",
            site=site,
            path=owner,
            place=site.place,
        )


def _cause(evidence: Evidence, owner: str) -> Site | None:
    """What draws in the module of a parameter, around it, or in it: of weights first."""
    near = [
        site
        for site in evidence.sites
        if site.fired_in_train and (within(owner, site.path) or within(site.path, owner))
    ]
    return next((site for site in near if site.kind == "weights"), near[0] if near else None)


RULE = Rule(
    name="weights-destroyed-by-dropout",
    code="DK404",
    severity="error",
    page=__doc__,
    needs=("run", "values"),
    on_model=on_model,
    wrong=(
        """
import torch.nn.functional as F
from torch import nn, ones

class WeightDrop(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x):
        weight = self.inner.weight
        weight.data = F.dropout(weight.data, 0.2, self.training)
        return self.inner(x)

model, inputs = nn.Sequential(WeightDrop(), nn.ReLU(), nn.Linear(16, 1)), (ones(2, 16),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Connect(nn.Linear):
    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.weight.mul_(torch.rand_like(self.weight) >= 0.1).div_(0.9)
        return F.linear(x, self.weight, self.bias)

model, inputs = nn.Sequential(Connect(16, 16), nn.ReLU(), nn.Linear(16, 1)), (torch.ones(2, 16),)
""",
    ),
    right=(
        """
import torch.nn.functional as F
from torch import nn, ones

class Connect(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.dropout(self.weight, 0.1, self.training), self.bias)

model, inputs = nn.Sequential(Connect(16, 16), nn.ReLU(), nn.Linear(16, 1)), (ones(2, 16),)
""",
        """
import torch.nn.functional as F
from torch import nn, ones

class WeightDrop(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(16, 16)
        self.raw = nn.Parameter(self.inner.weight_hh_l0.detach().clone())

    def forward(self, x):
        dropped = F.dropout(self.raw.detach(), 0.2, self.training)
        self.inner.weight_hh_l0.data.copy_(dropped)
        return self.inner(x)[0]

model, inputs = nn.Sequential(WeightDrop(), nn.Linear(16, 1)), (ones(5, 2, 16),)
""",
    ),
)
