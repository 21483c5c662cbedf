"""Dropout1d, 2d or 3d takes another axis for the channels than the layer before it gave.

These layers drop whole slices along axis 1, and take an input with one axis less for a single
sample, whose slices lie along axis 0. The rule looks at where the features of the layer before them
are: a linear, recurrent or embedding layer or a layer norm puts them last, a convolution puts them
at axis 1. It reports a dropout that shares its draw along the features, so that it drops rows of
pixels, steps of a sequence or whole samples. It is silent where sizes are alike, so that axes
cannot be told apart.

Why it matters:
`Dropout1d` on (batch, time, features) does not drop features but all features of single steps; on
(batch, features) it drops whole samples, of which the network then sees nothing but its biases.

How to fix:
Bring the channels to axis 1 and back, or use `dropkit.nn.SpatialDropout`, which is told where they
are; on (batch, features) use `Dropout`.

When to allow:
Where whole steps of a sequence are to be dropped; on embeddings that is reported as a note.

References:
- [torch.nn.Dropout1d](https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout1d.html): "a
  channel is a 1D feature map", and the input is (N, C, L) or (C, L)
- [torch.nn.Dropout2d](https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout2d.html), and
  what it makes of inputs with three axes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding, Severity
from dropkit.rules.base import Rule
from dropkit.rules.offers import layer, replace
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run

_SHARES = ("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_alpha_dropout")
_LAST = ("linear", "embedding", "recurrence")
"""What puts its features last."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts of slices that lie along the features."""
    for run in evidence.runs:
        site = run.site
        if not run.acts or not _drops_slices(run):
            continue
        source, axis = _features(run)
        if axis is None or axis not in site.shared:
            continue
        what = _slices(run)
        severity: Severity = "note" if source == "embedding" and what == "steps" else "error"
        flat = layer(evidence, site) is not None and len(site.shape) == 2
        yield RULE.finding(
            f"{named(site)} by {site.operation} drops whole {what}: of {site.shape} axis {axis} "
            "holds the features",
            evidence=f"the {source} before it gave {site.shape[axis]} features, at axis {axis}; "
            f"one draw is shared along axes {site.shared}",
            severity=severity,
            site=site,
            edit=replace(evidence, site, "Dropout") if flat else None,
        )


def _drops_slices(run: Run) -> bool:
    own = run.site.owner in ("Dropout1d", "Dropout2d", "Dropout3d")
    return bool(run.site.shared) and (run.site.operation in _SHARES or own)


def _slices(run: Run) -> str:
    """What lies along the axis that is dropped."""
    free = next(axis for axis in range(len(run.site.shape)) if axis not in run.site.shared)
    if free == 0 and 1 in run.site.shared:
        return "samples"
    return "steps" if len(run.site.shape) == 3 else "rows of pixels"


def _features(run: Run) -> tuple[str, int | None]:
    """The layer that gave the features, and the axis where they are; None: it cannot be told."""
    shape = run.site.shape
    ways = run.backward(
        "activation", "batch_norm", "pool", "add", "residual_add", "multiply", "dropout"
    )
    for way in ways:
        if not way.node.shape:
            continue
        if way.step in _LAST or way.node.name == "native_layer_norm":
            return ("norm" if way.step == "norm" else way.step), _axis(shape, way.node.shape[-1])
        if way.step == "convolution":
            return way.step, _axis(shape, way.node.shape[1])
    return "", None


def _axis(shape: tuple[int, ...], size: int) -> int | None:
    found = [axis for axis, other in enumerate(shape) if other == size]
    return found[0] if len(found) == 1 else None


RULE = Rule(
    name="channel-dropout-over-wrong-axis",
    code="DK206",
    severity="error",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

# (batch, time, features)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout1d(0.2), nn.Linear(32, 3))
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
from torch import nn

# (batch, features)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout1d(0.2), nn.Linear(32, 3))
inputs = (torch.randn(4, 8),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

# Channels last.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.maps, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.maps(x)).permute(0, 2, 3, 1)
        return self.head(F.dropout2d(x, 0.2, self.training).mean((1, 2)))

model = Net()
inputs = (torch.randn(4, 3, 9, 9),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(8, 32), nn.Linear(32, 3)
        self.drop = nn.Dropout1d(0.2)

    def forward(self, x):
        x = torch.relu(self.first(x)).transpose(1, 2)
        return self.head(self.drop(x).transpose(1, 2))

model = Net()
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(16, 8, 3),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
)
inputs = (torch.randn(4, 3, 9, 9),)
""",
        """
import torch
from torch import nn

# One mask for all steps of a sequence, over (batch, time, features).
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.drop = nn.Embedding(50, 16), nn.Dropout(0.2)
        self.lstm, self.head = nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, words):
        x = self.embed(words)
        x = x * self.drop(torch.ones_like(x[:, :1]))
        return self.head(self.lstm(x)[0][:, -1])

model = Net()
inputs = (torch.randint(0, 50, (4, 7)),)
""",
    ),
)
