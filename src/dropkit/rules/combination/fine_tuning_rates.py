"""A transformer is fine-tuned with as much dropout in its pretrained layers as in its head.

The rule asks whether the model is pretrained, and how many rows it is fine-tuned on. On up to
100,000 rows, or where their number is not said, it reports pretrained layers of a transformer that
drop more than 0.05, and no less than the head does.

Why it matters:
Pretrained layers know much that a small data set would not teach them again; noise in them slows
down training and lets it underfit. The head is new, and is what overfits.

How to fix:
Set the rates of the lower layers to 0.05 or 0, and keep the one before the head.

When to allow:
Many rows, or a recipe that was tuned so: BERT was fine-tuned with 0.1 throughout.

References:
- Devlin et al., 2019, [BERT](https://arxiv.org/abs/1810.04805), appendix A.3: "the dropout
  probability was always kept at 0.1"
- Lee, Cho and Kang, 2020, [Mixout](https://arxiv.org/abs/1909.11299), on regularizing pretrained
  layers by what they knew, in place of 0
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.ranges import BACKBONE, FEW, in_transformer
from dropkit.records import Finding
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.seen import counted

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_LOWER = ("embedding", "attention", "residual", "hidden")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Pretrained layers that drop as much as the head."""
    if not evidence.pretrained:
        raise NotApplicable("the model is not fine-tuned")
    if not in_transformer(evidence):
        raise NotApplicable("the model is no transformer")
    if evidence.rows is not None and evidence.rows > FEW:
        return
    acting = [run.site for run in evidence.runs if run.acts and run.site.rate is not None]
    head = max((site.rate or 0.0 for site in acting if site.role == "head"), default=0.0)
    lower = [site for site in acting if site.role in _LOWER and (site.rate or 0.0) > BACKBONE]
    lower = [site for site in lower if (site.rate or 0.0) >= head]
    if not lower:
        return
    highest = max(lower, key=lambda site: site.rate or 0.0)
    rows = "a number of rows not said" if evidence.rows is None else f"{evidence.rows:,} rows"
    yield RULE.finding(
        f"{counted(len(lower), 'dropout')} in pretrained layers drop up to {highest.rate:.4g}, and "
        f"the head {head:.4g}: usual on small data are {BACKBONE:g} or none below the head",
        evidence=f"fine-tuned on {rows}; the highest rate acts at "
        f"{highest.path or highest.place or 'the model'}, as {highest.role}",
        site=highest,
    )


RULE = Rule(
    name="fine-tuning-rates",
    code="DK506",
    severity="note",
    page=__doc__,
    needs=("run", "pretrained"),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, lower, head):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, lower, batch_first=True)
        self.blocks, self.drop = nn.TransformerEncoder(layer, 2), nn.Dropout(head)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.drop(self.blocks(x)[:, 0]))

model = Net(lower=0.1, head=0.1)
inputs = (torch.randn(2, 7, 32),)
settings = {"pretrained": True, "rows": 2_000}
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True), 2),
    nn.Linear(32, 2),
)
inputs = (torch.randn(2, 7, 32),)
settings = {"pretrained": True}
""",
    ),
    right=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, lower, head):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, lower, batch_first=True)
        self.blocks, self.drop = nn.TransformerEncoder(layer, 2), nn.Dropout(head)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.drop(self.blocks(x)[:, 0]))

model = Net(lower=0.05, head=0.3)
inputs = (torch.randn(2, 7, 32),)
settings = {"pretrained": True, "rows": 2_000}
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True), 2),
    nn.Linear(32, 2),
)
inputs = (torch.randn(2, 7, 32),)
settings = {"pretrained": True, "rows": 5_000_000}
""",
    ),
)
