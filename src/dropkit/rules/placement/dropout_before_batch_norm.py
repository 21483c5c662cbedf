"""Dropout stands before a batch norm, whose statistics it makes wrong for evaluation.

Dropout keeps the mean of what it acts on and raises its variance, in training alone. A batch norm
behind it, directly or through a linear or convolutional layer, learns the raised variance and
divides by it in evaluation too, where nothing is dropped. On a model the rule reports a dropout
whose result comes to a batch norm that keeps running statistics, over linear and convolutional
layers, activations and pooling, and says how much wider it makes the batch norm's input: the
variance with dropout over that without, measured in training on the inputs that were given. It is
silent where nearly no shift is measured, and where other branches are added on the way unless the
shift is plain. Behind other layers a shift below 1.2, one that was not measured, and one to which
other branches were added, is a note. In source it reports the order in a `nn.Sequential`: dropout
and batch norm side by side as a warning, and with one linear or convolutional layer between them as
a note.

Why it matters:
In evaluation every unit is scaled by a factor that it never had in training. At a rate of 0.5 the
variance of centred activations doubles, so that the batch norm's output is too small by a factor of
up to 1.4, and the layers behind it see inputs that they were not trained on.

How to fix:
Put the dropout after the batch norm and its activation; where several blocks follow each other, use
dropout after the last batch norm only.

When to allow:
Where validation shows that it does no harm. Where
statistics are gathered anew without dropout after training.

References:
- Li, Chen, Hu and Yang, 2019,
  [Understanding the disharmony between dropout and batch normalization by variance shift](https://arxiv.org/abs/1801.05134)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from dropkit.inspection.source import SourceFile
from dropkit.inspection.source.sequences import Link, acts, rows
from dropkit.records import Edit, Finding, Severity
from dropkit.records.sites import Step
from dropkit.rules.base import Rule
from dropkit.rules.offers import follower, layer, set_rate
from dropkit.rules.seen import named

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run, Way
    from dropkit.inspection.shifts import Shift

_NORM = re.compile(r"(Sync)?BatchNorm|LazyBatchNorm")
_CARRIES = re.compile(r"(Lazy)?(Linear|Conv)")

_CARRIERS: tuple[Step, ...] = (
    *("linear", "convolution", "activation", "pool", "add", "multiply", "residual_add"),
)

_SLIGHT, _PLAIN, _LARGE = 1.05, 1.1, 1.2
"""Shifts of variance: 5 % moves the output by 2.5 %, less than batches of 1,000 rows differ by
themselves; 10 % is what the smallest usual rate, 0.1, makes right before a batch norm; 20 % moves
the output by 10 %."""


_SHARED = "; other dropout before it may have its part in that"


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Dropouts that widen what comes into a batch norm, in training alone."""
    for run in evidence.runs:
        found = _worst(evidence, run)
        if found is None:
            continue
        way, shift = found
        large = _is_large(way, shift)
        over = f"through {_worded(way)}" if way.between else "directly"
        yield RULE.finding(
            f"{named(run.site)} acts {over} on the batch norm {way.node.path}, whose running "
            "variance will be that of training, with dropout, in evaluation too",
            evidence=_measured(shift) + (_SHARED if way.mixes else ""),
            severity="warning" if large else "note",
            site=run.site,
            edit=_edit(evidence, run, way),
        )


def _worst(evidence: Evidence, run: Run) -> tuple[Way, Shift | None] | None:
    """A batch norm that a site feeds and that counts: the first that is a warning, or the first."""
    if run.site.kind not in ("dropout", "feature_dropout", "mask") or not run.acts:
        return None
    found = []
    for one in run.each():
        way = _way(evidence, one)
        shift = None if way is None else evidence.shift(run, way)
        if way is not None and _counts(way, shift):
            found.append((way, shift))
    plain = (pair for pair in found if _is_large(*pair))
    return next(plain, found[0] if found else None)


def _is_large(way: Way, shift: Shift | None) -> bool:
    return not way.between or (shift is not None and shift.ratio >= _LARGE and not way.mixes)


def _way(evidence: Evidence, run: Run) -> Way | None:
    """The nearest batch norm that a site feeds, and the way to it."""
    norms = (way for way in run.onward(*_CARRIERS) if way.step == "batch_norm")
    return next((way for way in norms if evidence.learns(run, way)), None)


def _counts(way: Way, shift: Shift | None) -> bool:
    """Whether there is a shift: by its measurement, or where it was not measured by the way."""
    weighted = sum(step in ("linear", "convolution") for step in way.steps)
    sure = weighted <= 1 and not way.mixes
    if shift is None:
        return sure
    if sure:
        return shift.ratio + 2 * shift.doubt >= _SLIGHT
    return shift.ratio - 2 * shift.doubt >= _PLAIN


def _worded(way: Way) -> str:
    carriers = [node for node in way.between if node.path]
    paths = list(dict.fromkeys(node.path for node in carriers))
    return ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "") if paths else "other layers"


def _measured(shift: Shift | None) -> str:
    if shift is None:
        return "the order was seen; the shift of variance was not measured"
    return (
        f"in training its input has {shift.ratio:.2f} +/- {shift.doubt:.2f} times the variance "
        f"that it has with all dropout off (mean of channels, {shift.rows} values each)"
    )


def _edit(evidence: Evidence, run: Run, way: Way) -> Edit | None:
    """The other order, where both stand side by side, and no other batch norm comes behind.

    Where one does, the dropout would widen what comes into that: only without it both are right.
    """
    behind = follower(evidence, run.site)
    if layer(evidence, run.site) is None or behind is None or behind[0] != way.node.path:
        return None
    if any(_counts(later, None) and evidence.learns(run, later) for later in _later(way)):
        return set_rate(evidence, run.site, 0.0)
    return Edit("exchange", run.site.path, behind[0], says="put the dropout behind the batch norm")


def _later(way: Way) -> Iterator[Way]:
    """Batch norms that come behind another, over what dropout is carried through."""
    return (later for later in way.onward(*_CARRIERS, "dropout") if later.step == "batch_norm")


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Dropout and then batch norm in a Sequential."""
    for trail, links in rows(file):
        for drop, norm, between in _pairs(links):
            if not acts(file, drop, trail):
                continue
            severity: Severity = "note" if between else "warning"
            way = f"through {between}" if between else "directly"
            yield RULE.finding(
                f"{drop.kind} acts {way} on {norm.kind}, whose running variance will be that of "
                "training, with dropout, in evaluation too",
                evidence=file.line_of(drop.node),
                severity=severity,
                place=file.place(trail, drop.node),
            )


def _pairs(links: list[Link]) -> Iterator[tuple[Link, Link, str]]:
    for one, two in pairwise(links):
        if _NORM.match(two.kind):
            yield one, two, ""
    for one, two, three in zip(links, links[1:], links[2:], strict=False):
        if _CARRIES.match(two.kind) and _NORM.match(three.kind):
            yield one, three, two.kind


RULE = Rule(
    name="dropout-before-batch-norm",
    code="DK201",
    severity="warning",
    page=__doc__,
    needs=("run",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.Linear(64, 3)
)
inputs = (torch.randn(64, 16),)
""",
        """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.drop = nn.Dropout2d(0.4)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.drop(torch.relu(self.first(x)))
        x = torch.relu(self.norm(self.second(x)))
        return self.head(x.mean((2, 3)))

model = Block()
inputs = (torch.randn(16, 3, 8, 8),)
""",
    ),
    right=(
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3)
)
inputs = (torch.randn(64, 16),)
""",
        """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv1d(4, 32, 3), nn.Dropout1d(0.2), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv1d(32, 32, 3),
    nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 2),
)
inputs = (torch.randn(8, 4, 20),)
""",
        """
import torch
from torch import nn

# Of each batch its own statistics, in evaluation too.
model = nn.Sequential(
    nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(64, track_running_stats=False),
    nn.Linear(64, 3),
)
inputs = (torch.randn(64, 16),)
""",
    ),
    wrong_source=(
        """
from torch import nn

net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8))
""",
        """
from collections import OrderedDict
from torch import nn

def block(rate):
    layers = [nn.Dropout(rate), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers)
""",
    ),
    right_source=(
        """
from torch import nn

net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
tail = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.LayerNorm(8))
none = nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(8))
parts = nn.ModuleList([nn.Dropout(0.5), nn.BatchNorm1d(8)])
""",
    ),
)
