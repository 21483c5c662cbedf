"""A layer is so narrow for its rate that all of its units can be dropped at once.

Of n units that are dropped independently with the rate p, all are dropped with the probability p to
the power of n. The rule computes it for what a sample has in a layer: units, or channels where
whole channels are dropped. It reports a probability above 1 in 10,000: up to 1 in 100 as a note,
above as a warning, and a rate of 1, which drops all, as an error. It is silent where a residual sum
leads around the layer, on stochastic depth and on weights of attention.

Why it matters:
For such a sample nothing comes through: the network predicts the same as for any other, and its
gradient pulls all biases towards that one target. At 1 in 10,000, that happens about once in 80
batches of 128.

How to fix:
Lower the rate or widen the layer: 0.2 on 8 units does it in 1 of 400,000 cases, and 0.5 on 16 in 1
of 65,000.

When to allow:
Where the layer is narrow on purpose, as a bottleneck, and training is steady.

References:
- Srivastava et al., 2014, [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), appendix A.1:
  a layer with dropout needs n / (1 - p) units for what n units did without
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from dropkit.records import Finding, Severity
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run

_SELDOM = 1e-4
"""Once in 80 batches of 128: less is lost in what batches differ by."""
_OFTEN = 1e-2
"""At least one sample in most batches of 128."""
_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "recurrent", "mask")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Layers of which all units are dropped at once more often than seldom."""
    for run in evidence.runs:
        site = run.site
        if not run.acts or site.kind not in _KINDS or site.role == "attention" or not site.rate:
            continue
        units = _units(run)
        chance = site.rate**units
        if units < 1 or chance <= _SELDOM or run.is_bypassed:
            continue
        what = "channels" if site.shared else "units"
        severity: Severity = "warning" if chance > _OFTEN else "note"
        yield RULE.finding(
            f"{named(site)} drops all {units} {what} of a layer at once with the probability "
            f"{chance:.2g}",
            evidence=f"{site.rate:.4g} to the power of {units}: it acts on {site.shape}, and no "
            "residual sum leads around it",
            severity="error" if site.rate >= 1 else severity,
            site=site,
            edit=set_rate(evidence, site, _rate_for(units)),
        )


def _units(run: Run) -> int:
    """How many draws there are for a sample."""
    shape, shared = run.site.shape, run.site.shared
    sizes = [1 if axis in shared else size for axis, size in enumerate(shape)]
    return prod(sizes[1:]) if len(sizes) > 1 else prod(sizes) if sizes else 0


def _rate_for(units: int) -> float:
    """The highest rate, in steps of 0.05, at which it happens seldom."""
    steps = (step / 20 for step in range(10, 0, -1))
    return next((rate for rate in steps if rate**units <= _SELDOM), 0.0)


RULE = Rule(
    name="rate-that-silences-a-layer",
    code="DK303",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))
inputs = (torch.randn(8, 16),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout2d(0.4), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(8 * 16, 3),
)
inputs = (torch.randn(4, 1, 8, 8),)
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
""",
        """
import torch
from torch import nn

# Around what is dropped leads a residual sum.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up, self.drop = nn.Linear(32, 4), nn.Linear(4, 32), nn.Dropout(0.3)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(x + self.up(self.drop(torch.relu(self.down(x)))))

model = Net()
inputs = (torch.randn(8, 32),)
""",
        """
import torch
from torch import nn

# Few channels, of which single places are dropped, and not whole channels.
model = nn.Sequential(
    nn.Conv1d(1, 3, 5), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(3 * 36, 3)
)
inputs = (torch.randn(4, 1, 40),)
""",
    ),
)
