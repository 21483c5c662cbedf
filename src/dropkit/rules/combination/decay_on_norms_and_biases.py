"""Weight decay acts on norms and biases, which it was not made for.

The rule looks at the optimizer that is given: it reports scales and shifts of normalization layers,
and biases, that are in a group with a weight decay above 0. Embeddings are left out, as practice is
divided.

Why it matters:
Decay of weights keeps a function smooth. A bias makes no function less smooth, and the scale of a
norm is pulled to 0, where it says nothing about the weights before it: it only makes the layer
behind it see less. Both are few, so that they cannot overfit much.

How to fix:
Put them in a group of their own with `weight_decay=0`: all parameters with one axis or none.

When to allow:
Convolutional networks trained with SGD are often decayed as a whole, and do well.

References:
- He, Zhang, Zhang, Zhang, Xie and Li, 2019,
  [Bag of tricks for image classification](https://arxiv.org/abs/1812.01187), section 3.1
- Devlin et al., 2019: [the optimizer of BERT](https://github.com/google-research/bert), which
  excludes "LayerNorm", "layer_norm" and "bias"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.parameters import groups, is_bias, norms
from dropkit.rules.seen import counted, listed

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Parameters of norms, and biases, that are decayed."""
    of_norms = norms(evidence)
    for names, decay in groups(evidence):
        scales = [name for name in names if name in of_norms]
        biases = [name for name in names if name not in of_norms and is_bias(name)]
        if not decay or not (scales or biases):
            continue
        what = [counted(len(scales), "parameter") + " of norms"] if scales else []
        what += [counted(len(biases), "bias")] if biases else []
        yield RULE.finding(
            f"weight decay of {decay:g} acts on {' and '.join(what)}",
            evidence=f"in one group of {type(evidence.optimizer).__name__}: "
            f"{listed([*scales, *biases])}",
        )


RULE = Rule(
    name="decay-on-norms-and-biases",
    code="DK502",
    severity="note",
    page=__doc__,
    needs=("run", "optimizer"),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
settings = {"optimizer": torch.optim.AdamW(model.parameters(), weight_decay=0.05)}
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
groups = [{"params": model[0].parameters()}, {"params": [model[3].weight], "weight_decay": 0.1}]
settings = {"optimizer": torch.optim.SGD(groups, lr=0.1, weight_decay=1e-3)}
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
groups = [
    {"params": [p for p in model.parameters() if p.dim() > 1]},
    {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
]
settings = {"optimizer": torch.optim.AdamW(groups, weight_decay=0.05)}
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64, bias=False), nn.ReLU(), nn.Linear(64, 3, bias=False))
inputs = (torch.randn(8, 16),)
settings = {"optimizer": torch.optim.AdamW(model.parameters(), weight_decay=0.05)}
""",
    ),
)
