"""A model with dropout is trained without any weight decay.

The rule looks at the optimizer that is given: it reports dropout that acts in training where no
group of parameters of this model has a weight decay above 0.

Why it matters:
The two do different things, and most strong baselines use both: dropout keeps units from relying on
each other, and weight decay keeps weights small, which dropout alone lets grow to outweigh its
noise.

How to fix:
Use `torch.optim.AdamW` or SGD with `weight_decay`, on weights and not on norms and biases.

When to allow:
Where the loss has a penalty of its own, or max-norm holds the weights; neither is seen here.

References:
- Srivastava et al., 2014, [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), section 6.5,
  where dropout is combined with L2 and with max-norm
- Loshchilov and Hutter, 2019,
  [Decoupled weight decay regularization](https://arxiv.org/abs/1711.05101)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.parameters import groups
from dropkit.rules.seen import counted

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropout beside an optimizer that decays nothing."""
    acting = [run.site for run in evidence.runs if run.acts and run.site.kind != "random"]
    if not acting:
        raise NotApplicable("nothing drops in training")
    found = groups(evidence)
    if all(not decay for _, decay in found):
        highest = max(acting, key=lambda site: site.rate or 0.0)
        yield RULE.finding(
            f"{counted(len(acting), 'dropout')} and no weight decay: "
            f"{type(evidence.optimizer).__name__} decays no parameter of the model",
            evidence=f"weight_decay is 0 in {counted(len(found), 'group')} of parameters; the "
            f"highest rate is {highest.rate or 0:.4g}, at "
            f"{highest.path or highest.place or 'the model'}",
        )


RULE = Rule(
    name="dropout-without-weight-decay",
    code="DK501",
    severity="note",
    page=__doc__,
    needs=("run", "optimizer"),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
settings = {"optimizer": torch.optim.Adam(model.parameters(), lr=1e-3)}
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
groups = [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 0.01}]
settings = {"optimizer": torch.optim.SGD(groups, lr=0.1, momentum=0.9)}
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
groups = [
    {"params": [p for p in model.parameters() if p.dim() > 1]},
    {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
]
settings = {"optimizer": torch.optim.AdamW(groups, weight_decay=0.01)}
""",
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.0), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
settings = {"optimizer": torch.optim.Adam(model.parameters())}
""",
    ),
)
