"""A home-made dropout drops another fraction than it is asked to.

`torch.randn` in the place of `torch.rand`, a comparison that points the wrong way, an approximation
that does not hold in small images, numbers that are drawn with 8 bits and compared with a rate
below their steps: the rate in the configuration is not the one that acts. The rule counts what a
mask drops in training passes, and compares it with the one rate that its module holds. The bound is
exact, with a chance of a false alarm below 1e-9, and holds for blocks and other masks whose
elements hang together: there images count, not elements. Where the rate that the code
compares with is the one that is asked for, and where it is not known, only a fraction that is more
than 1.3 times off is reported.

Why it matters:
Every result that names the rate is about another one, and a search over rates searches elsewhere.

How to fix:
Compare `torch.rand(...)`, which is uniform between 0 and 1, with the rate: `>= p` is kept. Draw in
float32 for a model in bfloat16, in which `torch.rand` has 256 values. Use `nn.Dropout`, or
`dropkit.nn.DropBlock2d`, which drops what it is asked to in images of any size.

When to allow:
Where the attribute is something else than a rate, or grows into it on a schedule.

References:
- Ghiasi, Lin and Le, 2018, [DropBlock](https://arxiv.org/abs/1810.12890), equation 1: the rate
  of its seeds, an approximation since blocks overlap
- [torch.rand](https://docs.pytorch.org/docs/stable/generated/torch.rand.html), uniform, and
  [torch.randn](https://docs.pytorch.org/docs/stable/generated/torch.randn.html), normal
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.masks import Mask

_ALARM = 1e-9
_NEAR, _FACTOR = 0.005, 1.3
_SCHEDULED = re.compile(r"step|epoch|iter|sched|warm|anneal|ramp|progress", re.IGNORECASE)


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Masks that drop another fraction than the rate in their module."""
    from dropkit.inspection.masks import chance, masks

    for mask in masks(evidence):
        name = _asked(evidence, mask)
        if name is None:
            continue
        asked = evidence.passes.rates[name]
        if not _differs(mask, asked) or chance(mask.share, mask.units, asked) >= _ALARM:
            continue
        turned = " (it is what is kept)" if abs(mask.share - (1 - asked)) < 0.02 else ""
        yield RULE.finding(
            f"{100 * mask.share:.3g} % are dropped where {name} = {asked:.4g} asks for "
            f"{100 * asked:.4g} %{turned}",
            evidence=f"{mask.words}; at a rate of {asked:.4g} so many, or so few, would come up "
            f"with a chance below {_ALARM:g}",
            site=mask.site,
            path=mask.site.path,
            place=mask.site.place,
        )


def _asked(evidence: Evidence, mask: Mask) -> str | None:
    """The one rate that the module of a mask holds; None where it may mean something else."""
    path = mask.site.path
    held = [name for name in evidence.passes.rates if name.rpartition(".")[0] == path]
    if len(held) != 1 or "keep" in held[0].lower() or mask.site.kind not in _KINDS:
        return None
    module = evidence.module(path)
    if module is None or any(_SCHEDULED.search(name) for name in vars(module)):
        return None
    is_steady = held[0] not in evidence.passes.moved
    return held[0] if is_steady and 0 < evidence.passes.rates[held[0]] < 1 else None


_KINDS = ("mask", "feature_dropout", "path", "weights")


def _differs(mask: Mask, asked: float) -> bool:
    rate = mask.site.rate
    if rate is not None and abs(rate - asked) > _NEAR:
        return True  # the law is known, and only to be confirmed
    return max(mask.share, asked) > _FACTOR * min(mask.share, asked)


RULE = Rule(
    name="wrong-fraction-dropped",
    code="DK403",
    severity="error",
    page=__doc__,
    needs=("run", "values"),
    on_model=on_model,
    wrong=(
        """
import torch
from torch import nn

class Dropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        mask = torch.rand_like(x) < self.p
        return x * mask / self.p

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Dropout(0.2), nn.Linear(64, 1))
inputs = (torch.ones(16, 8),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class DropBlock(nn.Module):
    def __init__(self, drop_prob, size):
        super().__init__()
        self.drop_prob, self.size = drop_prob, size

    def forward(self, x):
        if not self.training:
            return x
        seeds = (torch.rand_like(x) < self.drop_prob / self.size).float()
        block = 1 - F.max_pool2d(seeds, self.size, stride=1, padding=self.size // 2)
        return x * block * (block.numel() / block.sum())

model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), DropBlock(0.1, 5))
model.append(nn.Conv2d(16, 4, 1))
inputs = (torch.ones(16, 3, 12, 12),)
""",
    ),
    right=(
        """
import torch
from torch import nn

class Dropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)

model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), Dropout(0.2), nn.Linear(64, 1))
inputs = (torch.ones(16, 8),)
""",
        """
import torch
import torch.nn.functional as F
from torch import nn

class DropBlock(nn.Module):
    def __init__(self, drop_prob, size):
        super().__init__()
        self.drop_prob, self.size = drop_prob, size

    def forward(self, x):
        if not self.training:
            return x
        seeds = (torch.rand_like(x) < self.drop_prob / self.size**2).float()
        block = 1 - F.max_pool2d(seeds, self.size, stride=1, padding=self.size // 2)
        return x * block * (block.numel() / block.sum())

model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), DropBlock(0.1, 3))
model.append(nn.Conv2d(16, 4, 1))
inputs = (torch.ones(16, 3, 12, 12),)
""",
    ),
)
