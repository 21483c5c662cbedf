"""Switching to evaluation mode sets a rate to 0, and nothing puts it back.

Some models switch dropout off by hand: their `eval()` sets `drop.p = 0`. After the next `train()`
the rate is still 0, so that training goes on without dropout from the first evaluation to its end.
In source the rule reports an `eval` (or a `train(False)`) of a module that sets a rate to 0 in a
class in which nothing sets it again.

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

from dropkit.inspection.source import SourceFile, Trail, number
from dropkit.inspection.source.classes import ClassFacts
from dropkit.inspection.source.trails import walk_from
from dropkit.records import Finding
from dropkit.rules.base import Rule

_RATE = re.compile(r"^p$|drop", re.IGNORECASE)
_SETS_UP = ("__init__",)


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
            if _zeroes(inner) and not _restored(facts, inner):
                yield RULE.finding(
                    f"{node.name}() sets {_target(inner)} to 0, and nothing sets it again: after the "
                    "first evaluation the model trains without it",
                    evidence=file.line_of(inner.node),
                    place=file.place(inner),
                )


def _target(zero: Trail) -> str:
    return ast.unparse(zero.node.targets[0])  # type: ignore[attr-defined]


def _zeroes(trail: Trail) -> bool:
    node = trail.node
    if not isinstance(node, ast.Assign) or len(node.targets) != 1 or number(node.value) != 0:
        return False
    target = node.targets[0]
    return isinstance(target, ast.Attribute) and _RATE.search(target.attr) is not None


def _restored(facts: ClassFacts, zero: Trail) -> bool:
    """Whether anything in the class, but what sets it up, gives the attribute another value."""
    name = zero.node.targets[0].attr  # type: ignore[attr-defined]
    return any(
        a.method not in _SETS_UP and (a.value is None or number(a.value) != 0)
        for a in facts.assigned.get(name, [])
    )


RULE = Rule(
    name="rate-overwritten-by-eval",
    code="DK107",
    severity="error",
    page=__doc__,
    on_source=on_source,
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
