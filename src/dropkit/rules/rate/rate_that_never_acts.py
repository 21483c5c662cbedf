"""A rate is given to something that never uses it.

In source the rule reports `dropout=` of an `nn.LSTM`, `nn.GRU` or `nn.RNN` with one layer, which
only drops *between* layers; `F.alpha_dropout` and `F.feature_alpha_dropout` without `training`,
whose default is False, unlike that of `F.dropout`; and, as a note, a functional dropout of rate 0.
On a model it reports every rate above 0 that was seen to drop nothing in training.

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

from dropkit.inspection.source import FUNCTIONAL, RECURRENT, SourceFile, argument, number
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.edits import set_mode

_LAYERS = (2, "num_layers")


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
    on_source=on_source,
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
