"""Dropout acts in evaluation mode, so that predictions are noise around what was learned.

`torch.nn.functional.dropout` is a function: it knows nothing of the module that calls it, and its
`training` is True unless it is told otherwise. After `model.eval()` it goes on dropping. On a model
the rule reports every dropout that was seen to act in evaluation mode. In source it reports calls
of functional dropout within `forward` (and what `forward` calls) whose mode is not given, where
nothing before the call asks for the mode and its rate does not hang on it.

Why it matters:
Two predictions for the same input differ, and both are worse than the one that the network would
give: each is one thinned network where evaluation means all of them at once. Accuracy that is
measured so is too low, a served answer changes from call to call, and nothing raises.

How to fix:
Pass the mode of the module: `F.dropout(x, self.rate, training=self.training)`; `dropkit lint --fix`
writes it. Or build an `nn.Dropout` in `__init__`, which follows `train()` and `eval()` by itself.

When to allow:
Where sampling at prediction is the purpose: Monte Carlo dropout, and the pre-net of Tacotron 2,
whose variety in speech comes from it. Such code is left alone where its names or a comment beside
the call say so; anywhere else, `# dropkit: allow=always-on-dropout` says it.

References:
- [torch.nn.functional.dropout](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html)
- [Behavior of F.dropout in eval mode, pytorch#26338](https://github.com/pytorch/pytorch/issues/26338)
- Repaired after years: [pytorch-fm#21](https://github.com/rixwew/pytorch-fm/issues/21),
  [SimpleNet#2](https://github.com/Coderx7/SimpleNet/issues/2)
- On purpose: Shen et al., 2018, [Natural TTS synthesis](https://arxiv.org/abs/1712.05884); Gal and
  Ghahramani, 2016, [Dropout as a Bayesian approximation](https://arxiv.org/abs/1506.02142)
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.inspection.source import FUNCTIONAL, SourceFile, argument, truth
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.edits import set_mode


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Calls of functional dropout that are told nothing of the mode, or that it is training."""
    for spot, takes in file.calls_of(FUNCTIONAL):
        if takes.mode is None:
            continue
        mode, rate = argument(spot.call, takes.mode), argument(spot.call, takes.rate)
        left_out = mode == "absent" and takes.mode_default is True
        if not left_out and truth(mode) is not True:
            continue
        if rate == "unknown" or not file.acts_in_eval(spot.trail):
            continue
        if rate != "absent" and file.rate(rate, spot.trail) != "constant":
            continue
        name = spot.name.rpartition(".")[2]
        said = "is given no mode, and training is its default" if left_out else "is told to train"
        yield RULE.finding(
            f"{name} {said}: it drops in evaluation too",
            evidence=file.line_of(spot.call),
            place=file.place(spot.trail),
            edit=set_mode(file, spot.trail, spot.call, takes.mode[1]),
        )


RULE = Rule(
    name="always-on-dropout",
    code="DK101",
    severity="error",
    page=__doc__,
    on_source=on_source,
    wrong_source=(
        """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.rate = rate

    def forward(self, x):
        return F.dropout(self.layer(x), self.rate)
""",
        """
import torch

class Base(torch.nn.Module):
    pass

class Net(Base):
    def forward(self, x):
        return self.head(x)

    def head(self, x):
        return torch.dropout(x, 0.5, True)
""",
    ),
    right_source=(
        """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        rate = self.rate if self.training else 0.0
        x = F.dropout(x, rate)
        x = F.dropout(x, 0.5, self.training)
        if self.training:
            x = F.dropout(x, 0.5)
        return x

class Prenet(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)
""",
        """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def forward(self, x, rate=0.5):
        if not self.training:
            return x
        return self.drop(F.dropout(x, 0.3), rate)

    def drop(self, x, rate):
        return F.dropout(x, rate)

def augmented(image):
    return F.dropout(image, 0.1)
""",
    ),
)
