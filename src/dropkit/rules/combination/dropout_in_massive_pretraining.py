"""A model drops much in pretraining on so much data that it hardly repeats.

The rule asks on how many rows (or tokens) the model is trained. From a billion on, where it is not
fine-tuned, it reports rates above 0.1.

Why it matters:
What is seen once cannot be learned by heart: the data regularize. Dropout then only takes away
capacity and slows training down, at a cost that is paid on every token.

How to fix:
Set the rates to 0, or to 0.1 at most, and rely on weight decay; bring dropout back for fine-tuning.

When to allow:
Where the same data are seen many times.

References:
- Touvron et al., 2023, [LLaMA](https://arxiv.org/abs/2302.13971), pretrained with a weight
  decay of 0.1; of dropout it says nothing
- Lan et al., 2020, [ALBERT](https://arxiv.org/abs/1909.11942), where pretraining on more data
  does better without dropout
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.ranges import MASSIVE, MASSIVE_HIGH
from dropkit.records import Finding
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.seen import counted

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "attention", "recurrent")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Rates above 0.1 on a billion rows."""
    rows = evidence.rows or 0
    if rows < MASSIVE:
        raise NotApplicable(f"massive pretraining begins at {MASSIVE:,} rows; got {rows:,}")
    if evidence.pretrained:
        raise NotApplicable("the model is fine-tuned")
    acting = [run.site for run in evidence.runs if run.acts and run.site.kind in _KINDS]
    high = [site for site in acting if (site.rate or 0.0) > MASSIVE_HIGH]
    if high:
        highest = max(high, key=lambda site: site.rate or 0.0)
        yield RULE.finding(
            f"{counted(len(high), 'dropout')} drop up to {highest.rate:.4g} in training on "
            f"{rows:,} rows: on so much data usual are 0 to {MASSIVE_HIGH:g}",
            evidence=f"of {counted(len(acting), 'dropout')} that acted, {len(high)} had more than "
            f"{MASSIVE_HIGH:g}; the highest is at {highest.path or highest.place or 'the model'}",
            site=highest,
        )


RULE = Rule(
    name="dropout-in-massive-pretraining",
    code="DK507",
    severity="note",
    page=__doc__,
    needs=("run", "rows"),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

layer = nn.TransformerEncoderLayer(32, 4, 64, 0.2, batch_first=True)
model = nn.Sequential(nn.Embedding(50, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 50))
inputs = (torch.randint(0, 50, (2, 7)),)
settings = {"rows": 300_000_000_000}
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
settings = {"rows": 2_000_000_000, "pretrained": False}
""",
    ),
    right=(
        """
import torch
from torch import nn

layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
model = nn.Sequential(nn.Embedding(50, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 50))
inputs = (torch.randint(0, 50, (2, 7)),)
settings = {"rows": 3_000_000_000}
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
settings = {"rows": 60_000}
""",
    ),
)
