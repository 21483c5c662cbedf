"""Dropout acts on what the model predicts, right before it is returned.

The rule reports a dropout whose result is what the model gives, or is that behind a softmax or a
sigmoid, and which acts on the result of a linear or convolutional layer, or of a softmax or sigmoid
of one: logits, values or probabilities. What is given behind a norm, a residual sum or a recurrence
is a hidden state for another model and no prediction, and so is what has the shape of the input.

Why it matters:
The loss of a dropped logit is that of a prediction of 0 which the network did not make, and what is
kept is scaled up. In a classifier with 10 classes and a rate of 0.5, half of the targets have a
logit of 0. Nothing behind it could learn to do without a missing unit.

How to fix:
Take it out, or set its rate to 0. To regularize the head, drop what comes into its last layer.

When to allow:
Where the model is a part of a larger one, and what it gives is a hidden layer there.

References:
- Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014,
  [Dropout: a simple way to prevent neural networks from overfitting](https://jmlr.org/papers/v15/srivastava14a.html),
  where input and hidden units are dropped
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.predictions import dropped_prediction, softmax_before_loss
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts behind which nothing comes but the output."""
    for run in evidence.runs:
        one = dropped_prediction(evidence, run)
        if one is None or softmax_before_loss(evidence, run) is not None:
            continue
        source = next(one.backward()).node
        once = "" if one.result is run.result else f", one of {len(run.events)} times that it acts"
        yield RULE.finding(
            f"{named(run.site)} acts on the output of the model: predictions themselves are set to "
            "0",
            evidence=f"between {source.name} in {source.path or 'the model itself'}, which gave "
            f"{one.shape}, and the output nothing has weights{once}",
            site=run.site,
            edit=set_rate(evidence, run.site, 0.0, safe=True),
        )


RULE = Rule(
    name="dropout-on-output",
    code="DK202",
    severity="error",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10), nn.Dropout(0.2))
inputs = (torch.randn(8, 16),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 64, 3)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        x = torch.relu(self.features(x)).mean((2, 3))
        x = F.dropout(self.head(x), 0.3, self.training)
        return {"probabilities": x.softmax(-1)}

model = Net()
inputs = (torch.randn(4, 3, 8, 8),)
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
inputs = (torch.randn(8, 16),)
""",
        """
import torch
from torch import nn

# A block of a transformer gives what the next block takes.
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm, self.drop = nn.LayerNorm(32), nn.Dropout(0.1)

    def forward(self, x):
        return self.norm(x + self.drop(self.down(torch.relu(self.up(x)))))

model = Block()
inputs = (torch.randn(2, 5, 32),)
""",
        """
import torch
from torch import nn

# Features: what is dropped here comes into another model's head.
class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        return self.drop(self.lstm(x)[0])

model = Features()
inputs = (torch.randn(2, 5, 8),)
""",
    ),
)
