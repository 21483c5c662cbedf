"""Labels are smoothed twice, so that they are smoother than anything says.

The rule measures what the loss that is given spreads of a label over all classes, by its gradient
at equal logits, and reports it where that is more than the loss and its parts say, where labels
among the model's inputs are smoothed already, and where a loss within the model smooths as well.

Why it matters:
Smoothing of 0.1 twice is smoothing of 0.19: the right class is to be predicted with 0.81, and a
network that does so is less sure than its data allow. Searching for the best smoothing then
searches for half of it.

How to fix:
Smooth in one place: `nn.CrossEntropyLoss(label_smoothing=0.1)` with plain labels.

When to allow:
Where the sum is what is wanted, as with labels mixed by mixup; then say it with one number.

References:
- Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, 2016,
  [Rethinking the Inception architecture](https://arxiv.org/abs/1512.00567), section 7
- [torch.nn.CrossEntropyLoss](https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import NotApplicable, Rule

if TYPE_CHECKING:
    from torch import nn

    from dropkit.inspection.evidence import Evidence

_NAME = re.compile(r"^_?(label_)?smooth(ing)?(_factor|_eps(ilon)?|_rate)?$")
_SEEN = 1e-3
"""The least smoothing that counts: less is rounding."""


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Smoothing that comes on top of another."""
    measured, loss = evidence.smoothing(), evidence.loss
    if measured is None or loss is None:
        raise NotApplicable("needs a loss= that takes logits and classes, without class weights")
    if measured <= _SEEN:
        return
    said = [share for _, share in _stated(loss)]
    most = max(said, default=0.0)
    joint = 1 - (1 - most) * (1 - (min(said) if len(said) > 1 else most))
    if most > _SEEN and measured > (most + joint) / 2:
        yield RULE.finding(
            f"{type(loss).__name__} spreads {measured:.3g} of a label over all classes, where "
            f"{most:.3g} is the most that it says",
            evidence=f"at equal logits its gradient asks for {1 - measured:.3g} of the label as it "
            f"was; its parts say {', '.join(f'{share:.3g}' for share in said)}",
        )
    share = evidence.smoothed()
    if share is not None:
        yield RULE.finding(
            f"labels come smoothed by {share:.3g}, and {type(loss).__name__} smooths by "
            f"{measured:.3g}: together {1 - (1 - share) * (1 - measured):.3g}",
            evidence="an input of the model has rows that sum to 1, alike in all classes but one",
        )
    ran = set[str]().union(*(trace.ran for trace in evidence.passes.train))
    for path, inner in _stated(evidence.model):
        if path in ran and "loss" in type(evidence.module(path)).__name__.lower():
            yield RULE.finding(
                f"{path} in the model smooths labels by {inner:.3g}, and {type(loss).__name__} by "
                f"{measured:.3g}",
                evidence=f"{path} ran in the training pass, and says {inner:.3g}",
                path=path,
            )


def _stated(module: nn.Module) -> list[tuple[str, float]]:
    """(path, share) of what modules say that they smooth."""
    return [
        (path, float(value))
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if _NAME.match(name) and isinstance(value, float) and _SEEN < value < 1
    ]


RULE = Rule(
    name="label-smoothing-twice",
    code="DK504",
    severity="error",
    page=__doc__,
    needs=("run", "loss"),
    on_model=on_model,
    wrong=(
        """
import torch
import torch.nn.functional as F
from torch import nn

class Smoothed(nn.Module):
    def __init__(self, smoothing=0.1):
        super().__init__()
        self.smoothing = smoothing
        self.inner = nn.CrossEntropyLoss(label_smoothing=smoothing)

    def forward(self, logits, labels):
        soft = F.one_hot(labels, logits.shape[1]) * (1 - self.smoothing)
        return self.inner(logits, soft + self.smoothing / logits.shape[1])

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10))
inputs = (torch.randn(8, 16),)
settings = {"loss": Smoothed()}
""",
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x, labels):
        return self.head(x), labels

model = Net()
labels = torch.eye(4)[torch.arange(8) % 4] * 0.9 + 0.1 / 4
inputs = (torch.randn(8, 16), labels)
settings = {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}
""",
    ),
    right=(
        """
import torch
from torch import nn

# Said in two places, done in one.
class Smoothed(nn.Module):
    def __init__(self, smoothing=0.1):
        super().__init__()
        self.smoothing = smoothing
        self.inner = nn.CrossEntropyLoss(label_smoothing=smoothing)

    def forward(self, logits, labels):
        return self.inner(logits, labels)

model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10))
inputs = (torch.randn(8, 16),)
settings = {"loss": Smoothed()}
""",
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x, labels):
        return self.head(x), labels

model = Net()
labels = torch.eye(4)[torch.arange(8) % 4] * 0.9 + 0.1 / 4
inputs = (torch.randn(8, 16), labels)
settings = {"loss": nn.CrossEntropyLoss()}
""",
    ),
)
