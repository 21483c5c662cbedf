"""The sum of a residual block is dropped, and with it the path that was to carry all.

The rule reports a dropout of a residual sum (or of the norm behind it) whose result is what the
next block adds to, so that branch and skip path both get what was dropped. It is silent on dropout
of branches, before they are added; at the start of the trunk, where embeddings are dropped; and at
its end.

Why it matters:
The skip path carries what all blocks before it found, and what is zeroed there stays zero. Through
12 blocks with a rate of 0.1 a unit comes unharmed with a probability of 0.28, and what is kept has
been scaled up 12 times: noise grows with depth, where residual networks owe their depth to a path
on which nothing happens.

How to fix:
Drop the branch: `x + dropout(branch(x))`, and not `dropout(x + branch(x))`.

When to allow:
In networks of two or three blocks it does little harm.

References:
- Vaswani et al., 2017, [Attention is all you need](https://arxiv.org/abs/1706.03762): "we apply
  dropout to the output of each sub-layer, before it is added to the sub-layer input"
- He, Zhang, Ren and Sun, 2016,
  [Identity mappings in deep residual networks](https://arxiv.org/abs/1603.05027), section 3.1,
  where dropout on the shortcut keeps a network from training
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run, Way


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts of residual sums that further blocks add to."""
    found: dict[Run, list[tuple[Way, Way]]] = {}
    for run in evidence.runs:
        if run.site.in_step:
            continue  # the state of a recurrence, of which redrawn-at-each-step speaks
        if run.acts and run.site.kind in ("dropout", "feature_dropout", "mask"):
            found[run] = [pair for each in run.each() if (pair := _on_trunk(each)) is not None]
    if not any(_is_within_trunk(before) for sums in found.values() for before, _ in sums):
        return  # where a trunk starts
    for run, sums in found.items():
        for before, after in sums[:1]:
            yield RULE.finding(
                f"{named(run.site)} acts on the sum of a residual block, and the next block adds "
                "to what is left of it",
                evidence=f"it drops what {before.node.name} in {before.node.path or 'the model'} "
                f"summed, and {after.node.name} in {after.node.path or 'the model'} adds to the "
                "result",
                site=run.site,
            )


def _on_trunk(run: Run) -> tuple[Way, Way] | None:
    """The sum that is dropped, and the one to which the result is the skip path; None: no such."""
    passed = run.backward("norm", "batch_norm", "activation")
    beyond = (way for way in passed if way.step not in ("norm", "batch_norm", "activation"))
    before = next(beyond, None)
    if before is None or before.step != "residual_add":
        return None
    for way in run.onward():
        others = [
            source
            for source in way.node.inputs
            if source is not run.result and run.is_made_of(source)
        ]
        if way.step == "residual_add" and others:
            return before, way
    return None


def _is_within_trunk(way: Way) -> bool:
    """Whether what is summed has sums of other blocks behind it."""
    return way.follows("residual_add")


RULE = Rule(
    name="dropout-on-residual-trunk",
    code="DK209",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(32), nn.Dropout(0.1)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        return self.drop(x + self.down(torch.relu(self.up(self.norm(x)))))

model = nn.Sequential(nn.Linear(8, 32), *[Block() for _ in range(3)], nn.Linear(32, 2))
inputs = (torch.randn(4, 8),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.start, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 2)
        self.blocks = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)])

    def forward(self, x):
        x = self.start(x)
        for block in self.blocks:
            x = F.dropout2d(torch.relu(x + block(x)), 0.1, self.training)
        return self.head(x.mean((2, 3)))

model = Net()
inputs = (torch.randn(4, 3, 8, 8),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(32), nn.Dropout(0.1)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        return x + self.drop(self.down(torch.relu(self.up(self.norm(x)))))

model = nn.Sequential(nn.Linear(8, 32), *[Block() for _ in range(3)], nn.Linear(32, 2))
inputs = (torch.randn(4, 8),)
""",
        """
import torch
from torch import nn

# Embeddings are dropped once, where the trunk starts; the places are found by a convolution.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop = nn.Linear(8, 32), nn.Dropout(0.1)
        self.places = nn.Conv1d(32, 32, 3, padding=1, groups=4)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        x = self.embed(x)
        x = self.drop(x + self.places(x.transpose(1, 2)).transpose(1, 2))
        return self.head(self.layers(x).mean(1))

model = Net()
inputs = (torch.randn(2, 7, 8),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 32),
    nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 3),
    nn.Dropout(0.1),
    nn.Linear(32, 2),
)
inputs = (torch.randn(2, 7, 8),)
""",
    ),
)
