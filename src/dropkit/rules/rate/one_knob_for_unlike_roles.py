"""One rate serves places that want different rates.

The rule reports a dropout layer that is called at several places, or an attribute from which
several dropouts take their rate, where what is usual for these places differs and the rate is too
high for one of them. Ranges are those of rate-outside-range. Where one rate suits all places, as
0.1 does in a transformer, it is silent.

Why it matters:
What is usual for a hidden layer, 0.5, is much for an embedding and far too much for attention. With
one knob the best that a search can find is a compromise that suits none of them.

How to fix:
Give each role a rate of its own: `hidden_dropout`, `attention_dropout`, `embedding_dropout`.

When to allow:
Where one rate for all was found to do as well.

References:
- Devlin et al., 2019, [BERT](https://arxiv.org/abs/1810.04805), whose
  [configuration](https://huggingface.co/docs/transformers/model_doc/bert) has a rate for
  hidden layers, one for attention and one for the classifier
- Merity, Keskar and Socher, 2018,
  [Regularizing and optimizing LSTM language models](https://arxiv.org/abs/1708.02182), with four
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.ranges import Range, usual
from dropkit.records import Finding, Site
from dropkit.rules.base import Rule
from dropkit.rules.offers import knob
from dropkit.rules.seen import whereabouts

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Knobs that serve sites whose usual rates differ."""
    knobs: dict[str, list[tuple[Site, Range]]] = defaultdict(list)
    for run in evidence.runs:
        site, range_ = run.site, usual(evidence, run)
        holder = knob(evidence, site)
        if holder and site.fired_in_train and range_ is not None:
            knobs[holder].append((site, range_))
    for holder, served in knobs.items():
        site, strict = min(served, key=lambda pair: pair[1].high)
        other, loose = max(served, key=lambda pair: pair[1].high)
        if strict == loose or site.rate is None or site.rate <= strict.high:
            continue
        yield RULE.finding(
            f"{holder} = {site.rate:.4g} serves {_role(site)} and {_role(other)}: usual are up to "
            f"{strict.high:g} for {strict.of}, and up to {loose.high:g} for {loose.of}",
            evidence=f"in training it acted at {whereabouts(site)} and at {whereabouts(other)}",
            site=site,
        )


def _role(site: Site) -> str:
    return {"conv": "convolutions", "attention": "attention"}.get(site.role, f"a {site.role} layer")


RULE = Rule(
    name="one-knob-for-unlike-roles",
    code="DK305",
    severity="note",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop = nn.EmbeddingBag(50, 32), nn.Dropout(0.5)
        self.hidden, self.head = nn.Linear(32, 64), nn.Linear(64, 3)

    def forward(self, words):
        x = self.drop(self.embed(words))
        return self.head(self.drop(torch.relu(self.hidden(x))))

model = Net()
inputs = (torch.randint(0, 50, (4, 7)),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, dropout=0.4):
        super().__init__()
        self.dropout = dropout
        self.mix, self.hidden, self.head = nn.Linear(16, 48), nn.Linear(16, 64), nn.Linear(64, 3)

    def forward(self, x):
        rate = self.dropout if self.training else 0.0
        q, k, v = self.mix(x).unsqueeze(1).chunk(3, -1)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=rate).squeeze(1).mean(1)
        return self.head(F.dropout(torch.relu(self.hidden(x)), rate))

model = Net()
inputs = (torch.randn(2, 7, 16),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.light = nn.EmbeddingBag(50, 32), nn.Dropout(0.2)
        self.drop = nn.Dropout(0.5)
        self.hidden, self.head = nn.Linear(32, 64), nn.Linear(64, 3)

    def forward(self, words):
        x = self.light(self.embed(words))
        return self.head(self.drop(torch.relu(self.hidden(x))))

model = Net()
inputs = (torch.randint(0, 50, (4, 7)),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

# 0.1 is usual for attention, and little for a head.
class Net(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        self.dropout = dropout
        self.mix, self.hidden, self.head = nn.Linear(16, 48), nn.Linear(16, 64), nn.Linear(64, 3)

    def forward(self, x):
        rate = self.dropout if self.training else 0.0
        q, k, v = self.mix(x).unsqueeze(1).chunk(3, -1)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=rate).squeeze(1).mean(1)
        return self.head(F.dropout(torch.relu(self.hidden(x)), rate, self.training))

model = Net()
inputs = (torch.randn(2, 7, 16),)
""",
    ),
)
