"""Dropout acts in evaluation mode, so that predictions are noise around what was learned.

`torch.nn.functional.dropout` is a function: it knows nothing of the module that calls it, and its
`training` is True unless it is told otherwise. After `model.eval()` it goes on dropping. On a model
the rule reports every dropout that was seen to act in evaluation mode: as a note where names say
that it is meant to (a pre-net, Monte Carlo dropout), or where the chance of a mask is computed, as
in sampling; as a warning where chance decides which way the model goes; else as an error. Draws
that drop nothing, as in a variational autoencoder, are no finding, but for noise that multiplies
activations, which is a note. In source it reports calls of functional dropout within `forward` (and
what `forward` calls) whose mode is not given, where nothing before the call asks for the mode and
its rate does not hang on it.

Why it matters:
Two predictions for the same input differ, and both are worse than the one that the network would
give: each is one thinned network where evaluation means all of them at once. Accuracy that is
measured so is too low, a served answer changes from call to call, and nothing raises.

How to fix:
Pass the mode of the module: `F.dropout(x, self.rate, training=self.training)`; `dropkit lint --fix`
writes it where no mode is given. Or build an `nn.Dropout` in `__init__`, which follows `train()`
and `eval()` by itself.

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
from typing import TYPE_CHECKING

from dropkit.inspection.source import FUNCTIONAL, SourceFile, argument, truth
from dropkit.records import Edit, Finding, Severity, Site
from dropkit.rules.base import Rule
from dropkit.rules.edits import set_mode
from dropkit.rules.seen import (
    evaluated,
    is_deliberate,
    named,
    stays_in_training,
    strangers,
    times,
    whereabouts,
)

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_DROPS = ("dropout", "feature_dropout", "alpha_dropout", "recurrent", "path", "weights", "mask")


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


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Sites that were seen to drop in evaluation mode."""
    elsewhere = strangers(evidence)  # of which dropout-built-in-forward speaks
    found = False
    for site in evidence.sites:
        if not site.fired_in_eval or site.path in elsewhere:
            continue
        verdict = _verdict(evidence, site)
        if verdict is None:
            continue
        found = True
        severity, message = verdict
        yield RULE.finding(
            message,
            evidence=times(evidence, site),
            severity=severity,
            site=site,
            path=site.path,
            place=site.place,
            edit=_edit(evidence, site),
        )
    if not found:
        evaluated(evidence)


def _verdict(evidence: Evidence, site: Site) -> tuple[Severity, str] | None:
    """How bad it is that a site acts, and what is said of it; None: nothing."""
    if site.kind == "noise":
        seen = site.measured
        if seen is None or seen.spread <= 0 or abs(seen.mean - 1) >= 0.25:
            return None  # it is added, and no factor
        says = "noise is multiplied on in evaluation mode too; allow it where sampling is the aim"
        return "note", says
    if site.kind not in _DROPS:
        return None
    meant = is_deliberate(site)
    if site.kind == "path" and not site.shape:
        says = "which layers run is left to chance in evaluation mode too"
        return "note" if meant else "warning", says
    acts = f"{named(site)} acts in evaluation mode"
    if meant:
        return "note", f"{acts}, as names around it say that it should"
    if site.rate is None:
        says = "a random mask of computed chances acts in evaluation mode; allow it in sampling"
        return "note", says
    if stays_in_training(evidence, site):
        return "error", f"{acts}: its module stays in training mode"
    return "error", f"{acts}: nothing at {whereabouts(site)} asks for the mode"


def _edit(evidence: Evidence, site: Site) -> Edit | None:
    """A module that is nothing but a dropout of somebody's own can become torch's."""
    module = evidence.module(site.path)
    if not site.path or module is None or site.rate is None or site.kind not in ("dropout", "mask"):
        return None
    is_leaf = not any(True for _ in module.children()) and not module.state_dict()
    if not is_leaf or site.holder.rpartition(".")[0] != site.path or is_deliberate(site):
        return None
    says = f"put torch.nn.Dropout in its place: {site.owner} may do more than drop"
    return Edit("replace", site.path, "torch.nn.Dropout", {"p": site.rate}, False, says)


RULE = Rule(
    name="always-on-dropout",
    code="DK101",
    severity="error",
    page=__doc__,
    needs=("modules",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch.nn.functional as F
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(F.dropout(self.first(x).relu(), 0.5))

model, inputs = Net(), (ones(2, 8),)
""",
        """
from torch import nn, ones

class Dropout(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Dropout(0.25), nn.Linear(8, 1))
inputs = (ones(2, 8),)
""",
        """
import torch
from torch import nn

class Mask(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Mask(0.2), nn.Linear(8, 1))
inputs = (torch.ones(2, 8),)
""",
    ),
    right=(
        """
import torch.nn.functional as F
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.rate = nn.Linear(8, 8), nn.Linear(8, 1), 0.5
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = self.drop(self.first(x).relu())
        x = F.dropout(x, self.rate if self.training else 0.0)
        if self.training:
            x = F.dropout(x, 0.2)
        return self.last(F.dropout(x, 0.2, self.training))

model, inputs = Net(), (ones(2, 8),)
""",
        """
import torch
from torch import nn

class Variational(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(2, 8)

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(z)

model, inputs = Variational(), (torch.ones(2, 8),)
""",
    ),
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
