"""Dropout stands before an activation with which it does not commute.

The rule reports a dropout whose result goes straight into an activation such as sigmoid, tanh, GELU
or SiLU, or into the arithmetic that computes one. It is silent where order does not matter: ReLU,
leaky ReLU and PReLU give the same before a dropout as behind it, as they map 0 to 0 and scale what
is scaled.

Why it matters:
Dropout keeps the mean of what it acts on by scaling up what it keeps. A curved activation does not
keep it: of the scaled value it makes something else, so that what the next layer sees in training
has another mean than in evaluation. And sigmoid makes 0.5 of a dropped unit, which is not dropped.

How to fix:
Put the dropout behind the activation.

When to allow:
Where noise on what comes into the gate is what is wanted, as in some noisy gates.

References:
- Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014,
  [Dropout: a simple way to prevent neural networks from overfitting](https://jmlr.org/papers/v15/srivastava14a.html),
  section 4, where the outputs of a layer are dropped, behind its activation
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Edit, Finding
from dropkit.rules.base import Rule
from dropkit.rules.offers import follower, layer
from dropkit.rules.predictions import dropped_prediction
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run
    from dropkit.intercept.trace import Node

_CURVED = {
    **dict.fromkeys(("sigmoid", "hardsigmoid", "softplus", "log_sigmoid_forward"), "is not 0 at 0"),
    "glu": "is not 0 where its gate is 0",
    **dict.fromkeys(
        ("gelu", "silu", "tanh", "elu", "selu", "celu", "mish", "hardswish", "erf"), "bends"
    ),
}
"""Activations that do not commute with a dropout, and why."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts whose result goes into a curved activation."""
    for run in evidence.runs:
        site = run.site
        if not run.acts or site.kind not in ("dropout", "feature_dropout", "mask"):
            continue
        node = _curved(run)
        if node is None or dropped_prediction(evidence, run) is not None:
            continue
        name = _name(node)
        yield RULE.finding(
            f"{named(site)} stands before {name}, which {_CURVED[name]}: in training its mean is "
            "another than in evaluation",
            evidence=f"what was dropped went into {name} in {node.path or 'the model'}",
            site=site,
            edit=_edit(evidence, run),
        )


def _curved(run: Run) -> Node | None:
    """The first curved activation that it comes to, any time."""
    nodes = (way.node for one in run.each() for way in one.computed())
    return next((node for node in nodes if _name(node) in _CURVED), None)


def _name(node: Node) -> str:
    return node.name.removesuffix("_")


def _edit(evidence: Evidence, run: Run) -> Edit | None:
    """The other order, where both stand side by side."""
    behind = follower(evidence, run.site)
    if layer(evidence, run.site) is None or behind is None or list(behind[1].children()):
        return None
    if not type(behind[1]).__module__.startswith("torch.nn.modules.activation"):
        return None
    return Edit("exchange", run.site.path, behind[0], says="put the dropout behind the activation")


RULE = Rule(
    name="dropout-before-activation",
    code="DK203",
    severity="note",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.3), nn.Sigmoid(), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(16, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(F.gelu(F.dropout(self.first(x), 0.3, self.training)))

model = Net()
inputs = (torch.randn(8, 16),)
""",
    ),
    right=(
        """
import torch
from torch import nn

# ReLU gives the same on both sides of a dropout.
model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.3), nn.ReLU(), nn.Linear(64, 3))
inputs = (torch.randn(8, 16),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(16, 64), nn.Tanh(), nn.Dropout(0.3), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 3)
)
inputs = (torch.randn(8, 16),)
""",
    ),
)
