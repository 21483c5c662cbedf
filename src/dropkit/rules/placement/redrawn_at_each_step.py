"""A recurrence draws a new mask at each of its steps, so that nothing can be remembered.

The rule reports a dropout that acts within a loop over time on what goes on to the next step. It is
silent on dropout between layers and on outputs of steps, which come back to no later step; on masks
that are drawn once for a sequence; on zoneout, which keeps the old value in place of 0; on dropout
of what is only added to a memory; and on layers of which the weights are used many times in depth.

Why it matters:
A unit of the state survives T steps with the probability (1 - p) to the power of T: with a rate of
0.2, one in 87 lasts for 20 steps. The network cannot learn what takes longer than that.

How to fix:
Draw one mask for a sequence and use it at all steps (`dropkit.nn.VariationalLSTM`,
`dropkit.nn.VariationalGRU`, `dropkit.nn.LockedDropout`), or use zoneout, or drop only what comes in
and goes out.

When to allow:
Where sequences are so short that a state survives them.

References:
- Gal and Ghahramani, 2016,
  [A theoretically grounded application of dropout in recurrent neural networks](https://arxiv.org/abs/1512.05287)
- Zaremba, Sutskever and Vinyals, 2014,
  [Recurrent neural network regularization](https://arxiv.org/abs/1409.2329)
- What is silent here: Krueger et al., 2017, [Zoneout](https://arxiv.org/abs/1606.01305); Semeniuta,
  Severyn and Barth, 2016,
  [Recurrent dropout without memory loss](https://arxiv.org/abs/1603.05118)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run

_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "mask")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts within a loop over time, on what goes round."""
    for run in evidence.runs:
        site = run.site
        if not site.in_step or not run.acts or site.kind not in _KINDS or _is_gentle(run):
            continue
        lasting = "" if site.rate is None else f": of a unit, {_lasting(site.rate, site.calls)}"
        yield RULE.finding(
            f"{named(site)} draws a new mask at each step of a recurrence{lasting}",
            evidence=f"it ran {site.calls} times in one pass, each time on what hung on the result "
            "of the time before, with another mask",
            site=site,
        )


def _lasting(rate: float, steps: int) -> str:
    share = (1 - rate) ** steps
    return f"{share:.2g} of the signal's paths outlast the {steps} steps"


def _is_gentle(run: Run) -> bool:
    """Zoneout, or dropout of what is only added to a memory."""
    if run.site.kind == "mask" and _keeps_old(run):
        return True
    result, x = run.result, run.x
    if result is None or x is None:
        return False
    source = next((way.step for way in run.backward()), None)
    if x.name.startswith("sub") and _is_added(run):
        return True  # old + dropout(new - old)
    for way in run.onward():
        gated = way.step == "multiply" and source == "activation"
        if gated and any(after.name.startswith(("add", "addcmul")) for after in way.node.users):
            return True  # memory + gate * dropout(tanh(...))
    return False


def _is_added(run: Run) -> bool:
    """Whether another value is added to the result, or to that times a number."""
    ways = run.onward("multiply")
    return any(way.step in ("add", "residual_add") and not way.mixes for way in ways)


def _keeps_old(run: Run) -> bool:
    """Whether what is masked away gives room to another value: mask * new + (1 - mask) * old."""
    met = run.events[0].met
    if met is None:
        return False
    draws = {id(draw) for draw in met.noise.draws}
    others = (
        other
        for other in run.trace.applications
        if other is not met and draws & {id(draw) for draw in other.noise.draws}
    )
    values = [source for source in met.node.inputs if not source.is_noise]
    return any(other.value is not met.value for other in others) or len(values) > 1


RULE = Rule(
    name="redrawn-at-each-step",
    code="DK205",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.drop, self.head = nn.GRUCell(8, 32), nn.Dropout(0.2), nn.Linear(32, 2)

    def forward(self, x):
        state = x.new_zeros(len(x), 32)
        for step in x.unbind(1):
            state = self.drop(self.cell(step, state))
        return self.head(state)

model = Net()
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell = nn.Embedding(50, 16), nn.LSTMCell(16, 24)
        self.head = nn.Linear(24, 50)

    def forward(self, words):
        h = c = torch.zeros(len(words), 24)
        given = []
        for at in range(words.shape[1]):
            h, c = self.cell(self.embed(words[:, at]), (h, c))
            h = F.dropout(h, 0.3, self.training)
            given.append(self.head(h))
        return torch.stack(given, 1)

model = Net()
inputs = (torch.randint(0, 50, (4, 9)),)
""",
    ),
    right=(
        """
import torch
from torch import nn

# One mask for all steps.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.drop, self.head = nn.GRUCell(8, 32), nn.Dropout(0.2), nn.Linear(32, 2)

    def forward(self, x):
        state = x.new_zeros(len(x), 32)
        mask = self.drop(torch.ones_like(state))
        for step in x.unbind(1):
            state = self.cell(step, state) * mask
        return self.head(state)

model = Net()
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
from torch import nn

# What is dropped goes out, and not on to the next step.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.drop, self.head = nn.GRUCell(8, 32), nn.Dropout(0.2), nn.Linear(32, 2)

    def forward(self, x):
        state, given = x.new_zeros(len(x), 32), []
        for step in x.unbind(1):
            state = self.cell(step, state)
            given.append(self.head(self.drop(state)))
        return torch.stack(given, 1)

model = Net()
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
from torch import nn

# Zoneout: what is not new stays as it was.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(8, 32), nn.Linear(32, 2)

    def forward(self, x):
        state = x.new_zeros(len(x), 32)
        for step in x.unbind(1):
            new = self.cell(step, state)
            if self.training:
                old = torch.rand_like(new) < 0.1
                state = torch.where(old, state, new)
            else:
                state = 0.1 * state + 0.9 * new
        return self.head(state)

model = Net()
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
from torch import nn

# The same weights used many times in depth, on sequences as long as that.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        for _ in range(4):
            x = self.layer(x)
        return self.head(x.mean(1))

model = Net()
inputs = (torch.randn(2, 4, 16),)
""",
    ),
)
