"""Switching to evaluation mode sets a rate to 0, and nothing puts it back.

Some models switch dropout off by hand: their `eval()` sets `drop.p = 0`. After the next `train()`
the rate is still 0, so that training goes on without dropout from the first evaluation to its end.
On a model the rule compares the rates that its modules hold before evaluation mode and after it,
back in training mode. In source it reports an `eval` (or a `train(False)`) of a module that sets a
rate to 0 in a class in which nothing sets it again.

Why it matters:
Training loops evaluate once an epoch, so dropout acts in the first epoch alone. Nothing raises; the
model just overfits as if it had no dropout.

How to fix:
Leave the rate alone: `nn.Dropout` does nothing in evaluation mode. Where a function needs the rate,
ask for the mode there: `self.rate if self.training else 0.0`.

When to allow:
Where a model is only ever loaded to predict.

References:
- [torch.nn.Dropout](https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html): "During
  evaluation the module simply computes an identity function"
- [torch.nn.Module.train](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.train)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.source import SourceFile, number
from dropkit.inspection.source.classes import ClassFacts
from dropkit.inspection.source.trails import walk_from
from dropkit.records import Finding
from dropkit.rules.base import NotApplicable, Rule

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_RATE = re.compile(r"^p$|drop", re.IGNORECASE)


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Zeroes that an eval() of a module writes into rates."""
    for trail in file.trails:
        node = trail.node
        if not isinstance(node, ast.FunctionDef) or node.name not in ("eval", "train"):
            continue
        if trail.up is None or not isinstance(trail.up.node, ast.ClassDef):
            continue
        if file.module(trail) == "no" or file.is_test:
            continue
        facts = file.facts(trail.up)
        for inner in walk_from(trail):
            target = _zeroed(inner.node)
            if target is not None and not _restored(facts, target.attr):
                yield RULE.finding(
                    f"{node.name}() sets {ast.unparse(target)} to 0, and nothing sets it again: "
                    "after the first evaluation the model trains without it",
                    evidence=file.line_of(inner.node),
                    place=file.place(inner),
                )


def _zeroed(node: ast.AST) -> ast.Attribute | None:
    """The rate that is set to 0 here, if one is."""
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or number(node.value) != 0:
        return None
    target = node.targets[0]
    if not isinstance(target, ast.Attribute) or not _RATE.search(target.attr):
        return None
    return target


def _restored(facts: ClassFacts, name: str) -> bool:
    """Whether anything in the class, but what sets it up, gives the attribute another value."""
    return any(
        a.method != "__init__" and (a.value is None or number(a.value) != 0)
        for a in facts.assigned.get(name, [])
    )


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Rates that are another after evaluation mode and back."""
    passes = evidence.passes
    if not passes.rates:
        raise NotApplicable("no module holds a rate")
    for name, rate in passes.rates.items():
        later = passes.rates_later.get(name, rate)
        if later == rate or rate == 0:
            continue
        path = name.rpartition(".")[0]
        yield RULE.finding(
            f"{name} is {rate:.4g} before eval(), and {later:.4g} once train() is called again: "
            "after the first evaluation the model trains with another rate",
            evidence=f"{name} in training mode, before and after one evaluation pass: "
            f"{rate:.4g}, {later:.4g}",
            site=next((s for s in evidence.sites if s.holder == name), None),
            path=path,
        )


RULE = Rule(
    name="rate-overwritten-by-eval",
    code="DK107",
    severity="error",
    page=__doc__,
    needs=("modules",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)

    def eval(self):
        self.drop.p = 0.0
        return super().eval()

    def train(self, mode=True):
        if not mode:
            self.drop.p = 0.0
        return super().train(mode)

    def forward(self, x):
        return self.last(self.drop(self.first(x).relu()))

model, inputs = Net(), (ones(2, 8),)
""",
        """
import torch.nn.functional as F
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.dropout = nn.Linear(8, 8), nn.Linear(8, 1), 0.5

    def forward(self, x):
        if not self.training:
            self.dropout = 0.0
        return self.last(F.dropout(self.first(x).relu(), self.dropout))

model, inputs = Net(), (ones(2, 8),)
""",
    ),
    right=(
        """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)

    def train(self, mode=True):
        self.drop.p = 0.5 if mode else 0.0
        return super().train(mode)

    def forward(self, x):
        return self.last(self.drop(self.first(x).relu()))

model, inputs = Net(), (ones(2, 8),)
""",
        """
from torch import nn, ones

class Rising(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1)

    def forward(self, x):
        if self.training:
            self.drop.p = min(0.5, self.drop.p + 0.01)
        return self.last(self.drop(self.first(x).relu()))

model, inputs = Rising(), (ones(2, 8),)
""",
    ),
    wrong_source=(
        """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def eval(self):
        self.drop.p = 0
        return super().eval()
""",
        """
from torch import nn

class Net(nn.Module):
    def train(self, mode=True):
        super().train(mode)
        if not mode:
            for module in self.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        return self
""",
    ),
    right_source=(
        """
from torch import nn

class Net(nn.Module):
    def eval(self):
        self.drop.p = 0
        return super().eval()

    def train(self, mode=True):
        self.drop.p = self.rate if mode else 0
        return super().train(mode)
""",
    ),
)
