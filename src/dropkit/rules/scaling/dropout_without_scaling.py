"""A home-made dropout does not scale what it keeps.

Dropout that zeroes a fraction `p` and leaves the rest as it is makes activations smaller by `1 - p`
in training, and evaluation, where nothing is dropped, sees them at full size. Inverted dropout, as
PyTorch has it, divides what it keeps by `1 - p`. On a model the rule measures it, with a stated
rate of false alarms. In source it reports a mask, drawn in a method of a module that asks for the
mode and by a rate whose name is one of dropout, that is multiplied on and followed by no scaling in
the whole class.

Why it matters:
Every layer behind it gets inputs in evaluation that are larger by `1 / (1 - p)` than in training:
twice as large at a rate of 0.5. The loss in evaluation is worse than it should be, for no reason
that a learning curve shows.

How to fix:
Use `nn.Dropout` or `F.dropout`, or divide by `1 - p`. What drops whole words, inputs or branches
needs the same, unless the model is meant to tell that something is missing.

When to allow:
Where the mask marks what is missing and the model is told so: masked inputs, condition dropout.

References:
- Srivastava et al., 2014, [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), section 10, on
  scaling in training instead of in evaluation
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.inspection.source import SourceFile
from dropkit.inspection.source.masks import bare_masks
from dropkit.records import Finding
from dropkit.rules.base import Rule


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Masks that are multiplied on and never made up for."""
    for trail, rate in bare_masks(file):
        yield RULE.finding(
            f"a mask that drops with the rate {rate} is multiplied on, and nothing is divided by "
            f"1 - {rate}: activations are smaller in training than in evaluation",
            evidence=file.line_of(trail.node),
            place=file.place(trail),
        )


RULE = Rule(
    name="dropout-without-scaling",
    code="DK401",
    severity="error",
    page=__doc__,
    on_source=on_source,
    wrong_source=(
        """
import torch
from torch import nn

class MyDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        mask = (torch.rand_like(x) > self.p).float()
        return x * mask
""",
    ),
    right_source=(
        """
import torch
from torch import nn

class MyDropout(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        mask = (torch.rand_like(x) > self.p).float()
        return x * mask / (1 - self.p)

class WordDropout(nn.Module):
    def forward(self, tokens):
        if self.training:
            tokens = tokens * (torch.rand(tokens.shape) > self.drop_prob)
        return tokens

class Old(nn.Module):
    def forward(self, x):
        keep = 1.0 - self.dropout
        if self.training:
            return x * torch.bernoulli(torch.full_like(x, keep))
        return x * keep
""",
    ),
)
