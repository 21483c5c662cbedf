"""Dropout acts between a softmax and the loss that takes its result.

The rule looks at the loss that is given. It reports a dropout whose result is what the model gives,
and which acts on what a softmax, log-softmax or sigmoid gave, where the loss is one on logits or
probabilities.

Why it matters:
A dropped probability of 0 for the right class is an infinite loss, and a dropped logarithm of 0 is
a certain prediction and no loss at all. What is kept is no longer a distribution: it sums to
something else for each sample. `CrossEntropyLoss` takes logits and makes a softmax of its own, so
that it squashes what was squashed before.

How to fix:
Give the loss the logits, with neither softmax nor dropout between: drop what comes into the last
layer.

When to allow:
Never.

References:
- [torch.nn.CrossEntropyLoss](https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html),
  whose input is "expected to contain the unnormalized logits"
- Srivastava et al., 2014, [Dropout](https://jmlr.org/papers/v15/srivastava14a.html)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.predictions import softmax_before_loss
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts of probabilities that go to a loss."""
    for run in evidence.runs:
        way = softmax_before_loss(evidence, run)
        if way is None:
            continue
        name = way.node.name.lstrip("_")
        yield RULE.finding(
            f"{named(run.site)} acts on what {name} gave, right before "
            f"{type(evidence.loss).__name__}",
            evidence=f"{name} in {way.node.path or 'the model'} gave what was dropped, and the "
            "result is the output of the model",
            site=run.site,
            edit=set_rate(evidence, run.site, 0.0, safe=True),
        )


RULE = Rule(
    name="dropout-between-softmax-and-loss",
    code="DK503",
    severity="error",
    page=__doc__,
    needs=("run", "loss"),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 10), nn.Softmax(-1), nn.Dropout(0.2))
inputs = (torch.randn(8, 16),)
settings = {"loss": nn.CrossEntropyLoss()}
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(16, 64), nn.Linear(64, 5)

    def forward(self, x):
        x = F.log_softmax(self.head(torch.relu(self.first(x))), -1)
        return F.dropout(x, 0.1, self.training)

model = Net()
inputs = (torch.randn(8, 16),)
settings = {"loss": nn.NLLLoss()}
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
inputs = (torch.randn(8, 16),)
settings = {"loss": nn.CrossEntropyLoss()}
""",
        """
import torch
from torch import nn

# A softmax that weighs values, behind which weights are dropped.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.score, self.drop, self.head = nn.Linear(16, 1), nn.Dropout(0.1), nn.Linear(16, 3)

    def forward(self, x):
        weights = self.drop(self.score(x).softmax(1))
        return self.head((weights.transpose(1, 2) @ x).squeeze(1))

model = Net()
inputs = (torch.randn(2, 7, 16),)
settings = {"loss": nn.CrossEntropyLoss()}
""",
    ),
)
