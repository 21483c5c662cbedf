"""Single pixels of convolutional maps are dropped, which their neighbours give away.

The rule reports a dropout of elements on the maps of a convolutional layer that have more than one
place. It is silent on maps of one place, behind global pooling, where maps are flattened for a
linear layer, on convolutions over sequences that see one step at a time, which are linear, and on
masks of which what was drawn was pooled or made larger before, so that blocks are dropped.

Why it matters:
Neighbouring places of a map say nearly the same. What is dropped in one is still told by those
beside it, so that little is held back and the rate says less than it seems to: the layer is
regularized like by a lower learning rate, and not like by a dropout of that rate.

How to fix:
Drop whole channels (`Dropout2d` in torch and in dropkit) or blocks of places (`DropBlock2d`).

When to allow:
Where single elements are what is wanted: noise for a generator, and layers of which the paper that
they come from drops elements.

References:
- Tompson, Goroshin, Jain, LeCun and Bregler, 2015,
  [Efficient object localization using convolutional networks](https://arxiv.org/abs/1411.4280)
- Ghiasi, Lin and Le, 2018,
  [DropBlock: a regularization method for convolutional networks](https://arxiv.org/abs/1810.12890)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from dropkit.inspection.maps import convolution
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.offers import replace
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run, Way

_SPREADS = re.compile("max_pool|convolution|upsample|repeat")
"""What makes blocks of single draws."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts of elements on maps of more than one place."""
    for run in evidence.runs:
        site = run.site
        if site.kind not in ("dropout", "mask") or site.shared or not run.acts or _is_spread(run):
            continue
        one = next(filter(_on_maps, run.each()), None)
        if one is None:
            continue
        places = prod(one.shape[2:])
        name = f"Dropout{len(one.shape) - 2}d"
        yield RULE.finding(
            f"{named(site)} drops single elements of maps with {places} places, whose neighbours "
            "tell what is missing",
            evidence=f"it acts on {one.shape}: {one.shape[1]} channels of a convolution, each "
            f"with {places} places",
            site=site,
            edit=replace(evidence, site, name),
        )


def _is_spread(run: Run) -> bool:
    """Whether what was drawn was made wider before it became a mask: DropBlock."""
    from dropkit.inspection.flow import before

    met = run.events[0].met
    if met is None:
        return False
    drawn = (node for node in (met.noise, *before(met.noise)) if node.is_noise)
    return any(_SPREADS.search(node.name) for node in drawn)


def _on_maps(run: Run) -> bool:
    """Whether it drops maps of a convolution that sees more than one place."""
    source = convolution(run)
    return source is not None and (len(run.shape) != 3 or _sees_more_than_one(source))


def _sees_more_than_one(way: Way) -> bool:
    """Whether a convolution over sequences has a kernel of more than one step."""
    weights = (node.shape for node in way.node.inputs[1:])
    return any(len(shape) == 3 and shape[-1] > 1 for shape in weights)


RULE = Rule(
    name="elementwise-dropout-on-convolution",
    code="DK204",
    severity="note",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
    nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3),
)
inputs = (torch.randn(4, 3, 16, 16),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 16, 5), nn.Conv1d(16, 32, 5)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = F.dropout(torch.relu(self.first(x)), 0.1, self.training)
        return self.head(torch.relu(self.second(x)).amax(-1))

model = Net()
inputs = (torch.randn(4, 4, 40),)
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.2),
    nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
    nn.Linear(32, 3),
)
inputs = (torch.randn(4, 3, 16, 16),)
""",
        """
import torch
from torch import nn

# Maps as one long vector, for a linear head; and patches that are tokens.
model = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 3)
)
inputs = (torch.randn(4, 3, 8, 8),)
""",
        """
import torch
from torch import nn

class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.cut = nn.Conv2d(3, 32, 4, stride=4)
        self.place = nn.Parameter(torch.zeros(1, 16, 32))
        self.drop = nn.Dropout(0.1)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = self.cut(x).flatten(2).transpose(1, 2)
        return self.head(self.layer(self.drop(x + self.place)).mean(1))

model = Patches()
inputs = (torch.randn(2, 3, 16, 16),)
""",
    ),
)
