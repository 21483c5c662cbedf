"""A rate is given to something that never uses it.

In source the rule reports `dropout=` of an `nn.LSTM`, `nn.GRU` or `nn.RNN` with one layer, which
only drops *between* layers; `F.alpha_dropout` and `F.feature_alpha_dropout` without `training`,
whose default is False, unlike that of `F.dropout`; and, as a note, a functional dropout of rate 0.
On a model it reports rates above 0 that dropped nothing in the training passes: of recurrent
networks with one layer, and of functions that were told not to drop in a module that trains. A
dropout that the model holds and that was never called is a note: another input may come to it.

Why it matters:
The model trains without the regularization that its configuration claims. Searching for the best
rate then searches in noise, and a report names a rate that never was.

How to fix:
For a recurrent network with one layer, put an `nn.Dropout` behind it, or use two layers. For alpha
dropout pass `training=self.training`; `dropkit lint --fix` writes it. A dropout of rate 0 can go.

When to allow:
Where a rate of 0 is a placeholder for one to come.

References:
- [torch.nn.LSTM](https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html): dropout is on
  the outputs of each layer "except the last layer"; its users were surprised in
  [pytorch#5985](https://github.com/pytorch/pytorch/issues/5985)
- [torch.nn.functional.alpha_dropout](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.alpha_dropout.html)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.source import FUNCTIONAL, RECURRENT, SourceFile, argument, number
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.edits import set_mode

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.records import Site

_LAYERS = (2, "num_layers")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Rates that dropped nothing in training."""
    for run in evidence.runs:
        rate = run.events[0].rate
        told = run.trained and not any(event.asked for event in run.events)
        if told and rate and all(event.where.training for event in run.events):
            yield RULE.finding(
                f"{run.site.operation} with the rate {rate:.4g} is told not to drop, in training: "
                "the rate never acts",
                evidence="its module was in training mode, and it ran with training=False "
                f"{len(run.events)} times",
                site=run.site,
            )
    for site in evidence.sites:
        if site.operation or not site.rate:
            continue
        if site.kind == "recurrent" and site.ran:
            yield RULE.finding(
                f"{site.owner} drops between its layers and has one: the rate {site.rate:.4g} "
                "never acts",
                evidence="it ran in the training pass, and drew nothing",
                site=site,
            )
        elif not site.ran and not _is_held_for_another(evidence, site):
            yield RULE.finding(
                f"{site.owner} with the rate {site.rate:.4g} was never called",
                evidence="the model holds it, and no training pass with these inputs came to it",
                severity="note",
                site=site,
            )


def _is_held_for_another(evidence: Evidence, site: Site) -> bool:
    """Whether the rate of a dropout that was not called acted right beside it, by a function."""
    outer = site.path.rpartition(".")[0]
    return any(
        other.fired_in_train and other.rate == site.rate and other.path == outer
        for other in evidence.sites
    )


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Rates of recurrent networks with one layer, of alpha dropout without a mode, and zeroes."""
    if file.is_test:
        return
    yield from _recurrent(file)
    for spot, takes in file.calls_of(FUNCTIONAL):
        name = spot.name.rpartition(".")[2]
        rate = argument(spot.call, takes.rate)
        mode = argument(spot.call, takes.mode) if takes.mode else "unknown"
        if mode == "absent" and takes.mode_default is False:
            yield RULE.finding(
                f"{name} is given no mode, and its default is not to train: it never drops",
                evidence=file.line_of(spot.call),
                place=file.place(spot.trail),
                edit=set_mode(file, spot.trail, spot.call, "training"),
            )
        elif number(rate) == 0:
            yield RULE.finding(
                f"{name} of rate 0 drops nothing",
                severity="note",
                evidence=file.line_of(spot.call),
                place=file.place(spot.trail),
            )


def _recurrent(file: SourceFile) -> Iterator[Finding]:
    for spot, takes in file.calls_of(RECURRENT):
        rate, layers = argument(spot.call, takes.rate), argument(spot.call, _LAYERS)
        if isinstance(rate, str | ast.IfExp) or file.rate(rate, spot.trail) == "zero":
            continue
        if layers == "absent" or number(layers) == 1:
            yield RULE.finding(
                f"{spot.name.rpartition('.')[2]} drops between its layers and has one: the rate "
                f"{file.written(rate)} never acts",
                evidence=file.line_of(rate),
                place=file.place(spot.trail, rate),
            )


RULE = Rule(
    name="rate-that-never-acts",
    code="DK304",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

model = Net()
model.lstm.dropout = 0.3
inputs = (torch.randn(4, 7, 8),)
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
        return self.head(F.alpha_dropout(torch.selu(self.first(x)), 0.1))

model = Net()
inputs = (torch.randn(8, 16),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 32, 2, batch_first=True, dropout=0.3)
        self.drop, self.head = nn.Dropout(0.0), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.drop(self.lstm(x)[0][:, -1]))

model = Net()
inputs = (torch.randn(4, 7, 8),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

# The layer is there for its rate, which attention uses.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(16, 48), nn.Linear(16, 3)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        q, k, v = self.mix(x).unsqueeze(1).chunk(3, -1)
        p = self.drop.p if self.training else 0.0
        return self.head(F.scaled_dot_product_attention(q, k, v, dropout_p=p).squeeze(1))

model = Net()
inputs = (torch.randn(2, 7, 16),)
""",
    ),
    wrong_source=(
        """
from torch import nn

encoder = nn.LSTM(8, 16, batch_first=True, dropout=0.3)
""",
        """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return F.alpha_dropout(x, 0.1)
""",
        """
import torch.nn.functional as F

def forward(x, training):
    return F.dropout(x, 0.0, training)
""",
    ),
    right_source=(
        """
import torch.nn.functional as F
from torch import nn

def build(layers, rate):
    nn.LSTM(8, 16, num_layers=2, dropout=0.3)
    nn.GRU(8, 16, layers, dropout=rate)
    return nn.LSTM(8, 16, dropout=0)

def forward(x, training):
    return F.alpha_dropout(x, 0.1, training)
""",
    ),
)
