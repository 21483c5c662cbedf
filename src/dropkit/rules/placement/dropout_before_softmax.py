"""Scores of attention are dropped before the softmax, where 0 does not mean nothing.

The rule reports a dropout of scores that come to a softmax, over no more than a mask and a scale,
whose result then weighs values in a product. It is silent on masks that set scores to minus
infinity, which do take a position out.

Why it matters:
A dropped score is 0, which is no small score: to the softmax it means "as good as one that is 0",
and where scores are negative a dropped position gets the most weight of all. What is kept is scaled
up, so that attention is sharper in training than in evaluation.

How to fix:
Drop the weights, behind the softmax: `dropout(scores.softmax(-1))`, or `dropout_p` of
`scaled_dot_product_attention`.

When to allow:
Hardly ever; to take positions out at random, set their scores to minus infinity.

References:
- Vaswani et al., 2017, [Attention is all you need](https://arxiv.org/abs/1706.03762)
- [torch.nn.functional.scaled_dot_product_attention](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html),
  with its equivalent in Python: the softmax comes first, and then the dropout
- Li et al., 2023, [DropKey](https://arxiv.org/abs/2208.02646), which sets
  scores to minus infinity
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run, Way

_MASKS = ("masked_fill", "masked_fill_", "where", "clamp", "clamp_min")


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts of scores, before the softmax that makes weights of them."""
    for run in evidence.runs:
        if not run.acts or run.site.kind not in ("dropout", "mask", "alpha_dropout"):
            continue
        met = run.events[0].met
        if met is not None and not met.node.name.startswith("mul"):
            continue
        ways = ((one, way) for one in run.each() for way in _scores(one) if _weighs(way))
        for one, way in islice(ways, 1):
            yield RULE.finding(
                f"{named(run.site)} sets scores of attention to 0 before the softmax, to which 0 "
                "is a score like any other",
                evidence=f"what was dropped, {one.shape}, came to {way.node.name} in "
                f"{way.node.path or 'the model'}, and that to a product with values",
                site=run.site,
            )


def _scores(run: Run) -> Iterator[Way]:
    """Ways to a softmax over nothing but masks and scales."""
    for way in run.onward("add", "multiply", "other"):
        passed = zip(way.between, way.steps, strict=True)
        if way.step == "softmax" and all(
            node.name in _MASKS or (step != "other" and node.shape == run.shape)
            for node, step in passed
        ):
            yield way


def _weighs(way: Way) -> bool:
    """Whether what a softmax gave weighs values."""
    users = [user for user in way.node.users if user.name not in ("detach", "detach_")]
    for _ in range(3):
        if any(user.name in ("bmm", "mm", "matmul", "baddbmm") for user in users):
            return True
        users = [after for user in users for after in user.users]
    return False


RULE = Rule(
    name="dropout-before-softmax",
    code="DK207",
    severity="error",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.drop, self.out = nn.Dropout(0.1), nn.Linear(16, 16)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 4
        return self.out(self.drop(scores).softmax(-1) @ self.v(x))

model = Attention()
inputs = (torch.randn(2, 7, 16),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.score, self.head = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x):
        scores = F.dropout(self.score(torch.tanh(x)).squeeze(-1), 0.1, self.training)
        scores = scores.masked_fill(x[..., 0] > 3, float("-inf"))
        weights = scores.softmax(-1).unsqueeze(1)
        return self.head(torch.bmm(weights, x).squeeze(1))

model = Pooling()
inputs = (torch.randn(2, 7, 16),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.drop, self.out = nn.Dropout(0.1), nn.Linear(16, 16)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 4
        return self.out(self.drop(scores.softmax(-1)) @ self.v(x))

model = Attention()
inputs = (torch.randn(2, 7, 16),)
""",
        """
import torch
from torch import nn

# Positions are taken out: minus infinity, and not 0.
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.out = nn.Linear(16, 16)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2) / 4
        if self.training:
            scores = scores.masked_fill(torch.rand_like(scores) < 0.1, -1e9)
        return self.out(scores.softmax(-1) @ self.v(x))

model = Attention()
inputs = (torch.randn(2, 7, 16),)
""",
        """
import torch
from torch import nn

model = nn.MultiheadAttention(16, 4, dropout=0.1, batch_first=True)
inputs = (torch.randn(2, 7, 16),) * 3
""",
    ),
)
