"""A rate is higher than what is usual for its place.

Usual are 0.1 to 0.3 on inputs and embeddings, 0.3 to 0.5 on hidden layers and heads, 0.05 to 0.15
on attention and in the blocks of a transformer. The rule reports rates more than 0.05 above these:
as a warning where the noise that they add, p / (1 - p), is more than twice that of the highest
usual rate, and else as a note. A low rate is no fault. Recurrent layers, convolutions, networks
over graphs, stochastic depth and LoRA have no such range; of convolutions beside batch norm see
heavy-dropout-beside-batch-norm.

Why it matters:
Too much is dropped for the layer to learn what the data has in it: loss in training stays high, and
a larger network would be needed for the same function.

How to fix:
Lower the rate to the range, and choose it on validation data together with weight decay and the
learning rate.

When to allow:
Where validation chose it: ranges are what most networks do well with, and small data can ask for
more.

References:
- Srivastava et al., 2014,
  [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), appendix A.4: 0.2 on inputs, 0.5 hidden
- Devlin et al., 2019, [BERT](https://arxiv.org/abs/1810.04805), appendix A.2: 0.1 on all layers
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.ranges import CONVOLUTION, NEAR, noise, usual
from dropkit.records import Finding, Severity
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.rate.keep_probability_as_rate import is_like_keep
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_PLAIN = 2
"""Times the noise of the highest usual rate: 0.26 where 0.15 is usual, 0.67 where 0.5 is."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Rates above the usual ones."""
    for run in evidence.runs:
        site = run.site
        if not site.fired_in_train or site.rate is None or is_like_keep(site):
            continue
        range_ = usual(evidence, run)
        if range_ is None or range_ is CONVOLUTION or site.rate <= range_.high + NEAR:
            continue
        times = noise(site.rate) / noise(range_.high)
        severity: Severity = "warning" if times > _PLAIN else "note"
        yield RULE.finding(
            f"{named(site)} is more than the {range_.low:g} to {range_.high:g} that are usual for "
            f"{range_.of}",
            evidence=f"its role is {site.role}; it adds {noise(site.rate):.2f} of the squared "
            f"activations as noise, {times:.1f} times as much as the rate {range_.high:g}",
            severity=severity,
            site=site,
            edit=set_rate(evidence, site, range_.high),
        )


RULE = Rule(
    name="rate-outside-range",
    code="DK301",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, 0.5, batch_first=True), 2),
    nn.Linear(32, 2),
)
inputs = (torch.randn(2, 7, 32),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Dropout(0.5), nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 2)
)
inputs = (torch.randn(8, 32),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(32, 256), nn.ReLU(), nn.Dropout(0.75), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 2)
)
inputs = (torch.randn(8, 32),)
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Dropout(0.2), nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU(),
    nn.Dropout(0.5), nn.Linear(64, 2),
)
inputs = (torch.randn(8, 32),)
""",
        """
import torch
from torch import nn

# A head may drop more than the blocks below it.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.head = nn.Sequential(
            nn.Linear(32, 32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 2)
        )

    def forward(self, x):
        return self.head(self.blocks(x)[:, 0])

model = Net()
inputs = (torch.randn(2, 7, 32),)
""",
        """
import torch
from torch import nn

# Recurrent language models drop much of what comes in.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop = nn.Embedding(50, 64), nn.Dropout(0.65)
        self.lstm, self.head = nn.LSTM(64, 64, 2, dropout=0.3), nn.Linear(64, 50)

    def forward(self, words):
        return self.head(self.lstm(self.drop(self.embed(words)))[0])

model = Net()
inputs = (torch.randint(0, 50, (7, 4)),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

# Networks over graphs drop half of their sparse features.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(100, 32), nn.Linear(32, 4)

    def forward(self, x, edges):
        x = torch.relu(edges @ self.first(F.dropout(x, 0.5, self.training)))
        return edges @ self.head(F.dropout(x, 0.5, self.training))

model = Net()
inputs = (torch.randn(9, 100), torch.rand(9, 9))
""",
    ),
)
