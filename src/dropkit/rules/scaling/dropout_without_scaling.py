"""A home-made dropout does not scale what it keeps.

Dropout that zeroes a fraction `p` and leaves the rest as it is makes activations smaller by `1 - p`
in training, and evaluation, where nothing is dropped, sees them at full size. Inverted dropout, as
PyTorch has it, divides what it keeps by `1 - p`. On a model the rule counts what masks that
somebody wrote drop in training passes, and by what they multiply the rest. It reports those that
change the mean, unless something nearby, or in evaluation mode, makes up for it, or fills in what
is dropped. Where the rate is known it needs no statistics; else a false alarm has a chance below
1e-9. Branches are a warning, inputs and embeddings a note: there it can be meant. In source it
reports a mask, drawn in a method of a module that asks for the mode and by a rate whose name is one
of dropout, that is multiplied on and followed by no scaling in the whole class.

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
from typing import TYPE_CHECKING

from dropkit.inspection.source import SourceFile
from dropkit.inspection.source.masks import bare_masks
from dropkit.records import Finding, Severity, Site
from dropkit.rules.base import Rule

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.masks import Mask

_ALARM = 1e-9
_NEAR = 0.02
"""How far the mean factor may be from 1: eps in a divisor, a rate of several digits."""


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Masks that are multiplied on and never made up for."""
    for trail, rate in bare_masks(file):
        yield RULE.finding(
            f"a mask that drops with the rate {rate} is multiplied on, and nothing is divided by "
            f"1 - {rate}: activations are smaller in training than in evaluation",
            evidence=file.line_of(trail.node),
            place=file.place(trail),
        )


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Masks with a mean factor other than 1, which nothing makes up for."""
    from dropkit.inspection.masks import masks

    for mask in masks(evidence):
        mean = _wrong_mean(mask)
        if mean is None or _is_made_up(evidence, mask, mean):
            continue
        keep = mean / mask.counted.scale
        dropped = f"{100 * (1 - keep):.3g} % and multiplies the rest by {mask.counted.scale:.4g}"
        yield RULE.finding(
            f"a mask drops {dropped}: in training the mean is {mean:.3g} times that of evaluation",
            evidence=f"{mask.words}; 1 / {keep:.3g} = {1 / keep:.4g} would keep the mean",
            severity=_severity(mask.site),
            site=mask.site,
            path=mask.site.path,
            place=mask.site.place,
        )


def _wrong_mean(mask: Mask) -> float | None:
    """The mean factor, where it is surely not 1 nor that of a mask that was scaled twice."""
    from dropkit.inspection.masks import chance

    counted = mask.counted
    if not 0 < counted.zeros < counted.size or counted.spread > 0.01 * counted.scale:
        return None
    rate = mask.site.rate
    if rate is not None and 0 < rate < 1:
        mean = counted.scale * (1 - rate)
        twice = abs(mean * (1 - rate) - 1) <= _NEAR
        return mean if abs(mean - 1) > _NEAR and not twice else None
    if counted.scale <= 1:
        return counted.scale * (1 - mask.share)
    mean = counted.scale * (1 - mask.share)
    surely = chance(mask.share, mask.units, 1 - 1 / counted.scale) < _ALARM
    return mean if surely and abs(mean - 1) > 0.1 else None


def _is_made_up(evidence: Evidence, mask: Mask, mean: float) -> bool:
    """Whether a factor nearby, or one in evaluation mode, brings the two means together."""
    from dropkit.inspection.masks import near, only_in_evaluation

    around = near(evidence, mask.met.node, mask.met.value)
    later = only_in_evaluation(evidence, mask.site)
    if not (around.are_known and later.are_known):
        return True
    tolerance = _NEAR if mask.site.rate is not None else 0.25
    up = any(abs(mean * number - 1) <= tolerance for number in around.numbers)
    return up or any(abs(number / mean - 1) <= tolerance for number in later.numbers)


def _severity(site: Site) -> Severity:
    if site.role in ("input", "embedding"):
        return "note"
    return "warning" if site.kind == "path" else "error"


RULE = Rule(
    name="dropout-without-scaling",
    code="DK401",
    severity="error",
    page=__doc__,
    needs=("run", "values"),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch
from torch import nn

class Mask(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) >= 0.3) if self.training else x

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Mask(), nn.Linear(64, 1))
inputs = (torch.ones(4, 8),)
""",
        """
import torch
from torch import nn

class Channels(nn.Module):
    def forward(self, x):
        if self.training:
            dropped = torch.bernoulli(torch.full(x.shape[:2], 0.2)).bool()
            x = x.masked_fill(dropped[:, :, None, None], 0.0)
        return x

model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), Channels(), nn.Conv2d(16, 4, 3))
inputs = (torch.ones(8, 3, 8, 8),)
""",
        """
import torch
from torch import nn

class Wrong(nn.Module):
    def forward(self, x, p=0.2):
        if not self.training:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - p)
        return x * keep / p

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Wrong(), nn.Linear(64, 1))
inputs = (torch.ones(4, 8),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Inverted(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) >= 0.3) / 0.7 if self.training else x

class Classic(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) >= 0.3) if self.training else x * 0.7

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Inverted(), nn.Linear(64, 64), Classic())
model.append(nn.Linear(64, 1))
inputs = (torch.ones(4, 8),)
""",
        """
import torch
from torch import nn

class Zoneout(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Linear(16, 16)

    def forward(self, h):
        new = self.step(h).tanh()
        if not self.training:
            return 0.1 * h + 0.9 * new
        old = torch.empty_like(h).bernoulli_(0.1)
        return old * h + (1 - old) * new

model = nn.Sequential(nn.Linear(8, 16), Zoneout(), nn.Linear(16, 1))
inputs = (torch.ones(4, 8),)
""",
        """
import torch
from torch import nn

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Linear(8, 16), nn.Parameter(torch.ones(16))

    def forward(self, x):
        x = self.patches(x)
        if self.training:
            x = torch.where(torch.rand(x.shape[:2])[..., None] < 0.5, self.token, x)
        return x

model = nn.Sequential(Masked(), nn.Linear(16, 1))
inputs = (torch.ones(4, 9, 8),)
""",
    ),
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
