"""Maps are dropped heavily where batch norm regularizes them already.

The rule reports dropout of more than 0.25, which is 0.05 above what is usual, on the maps of
convolutions that have a batch norm beside them. It is silent on heads, behind global pooling, and
on stochastic depth.

Why it matters:
Batch norm adds noise of its own, as each sample is normalized with others. Networks with it need
little dropout, and with much of it they fit worse: the same capacity would be better kept.

How to fix:
Lower the rate to 0.2 or less, or take it out and drop before the head alone.

When to allow:
Where validation chose it: wide residual networks were published with 0.3.

References:
- Ioffe and Szegedy, 2015, [Batch normalization](https://arxiv.org/abs/1502.03167), section 3.4
- Zagoruyko and Komodakis, 2016, [Wide residual networks](https://arxiv.org/abs/1605.07146), which
  drop 0.3 within blocks
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.ranges import CONVOLUTION, NEAR, usual
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.offers import set_rate
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Heavy dropout of maps beside a batch norm."""
    for run in evidence.runs:
        site = run.site
        if not run.acts or site.rate is None or usual(evidence, run) is not CONVOLUTION:
            continue
        if site.rate <= CONVOLUTION.high + NEAR:
            continue
        norm = next(near for near in (*site.fed_by, *site.feeds) if near.step == "batch_norm")
        yield RULE.finding(
            f"{named(site)} is much for maps that batch norm regularizes already: usual are up to "
            f"{CONVOLUTION.high:g}",
            evidence=f"it acts on maps of {site.shape}, "
            f"{'next to' if norm.distance == 1 else f'{norm.distance} operations from'} "
            f"{norm.path or norm.name}",
            site=site,
            edit=set_rate(evidence, site, CONVOLUTION.high),
        )


RULE = Rule(
    name="heavy-dropout-beside-batch-norm",
    code="DK505",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(16, 32, 3),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
)
inputs = (torch.randn(4, 3, 9, 9),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.4),
    nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 25, 3),
)
inputs = (torch.randn(4, 3, 16, 16),)
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(16, 32, 3),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 3),
)
inputs = (torch.randn(4, 3, 9, 9),)
""",
        """
import torch
from torch import nn

# No batch norm.
model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Dropout2d(0.4), nn.Conv2d(16, 32, 3), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
)
inputs = (torch.randn(4, 3, 9, 9),)
""",
        """
import torch
from torch import nn

# A table: there are no maps.
model = nn.Sequential(
    nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3)
)
inputs = (torch.randn(32, 16),)
""",
    ),
)
