"""A fused path of torch leaves out dropouts in evaluation mode, even where they are switched on.

In evaluation mode `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` hand their work to one
fused operator that has no dropout in it. That is right for predictions, and a trap for Monte Carlo
dropout: to switch the dropouts alone to training mode changes nothing. The rule reports layers of
which the fused path was seen to do the work, as a note; as a warning where a dropout in them is
switched on and will not act.

Why it matters:
Whoever samples predictions by switching on `nn.Dropout` modules gets the same answer each time from
such a model: a variance of exactly 0, which reads as certainty.

How to fix:
For sampled predictions, call `torch.backends.mha.set_fastpath_enabled(False)` first, or put the
layers themselves in training mode, and not their dropouts alone.

When to allow:
Where predictions are never sampled: then the fused path is what you want.

References:
- [torch.nn.TransformerEncoderLayer](https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoderLayer.html):
  the conditions of its fast path
- Gal and Ghahramani, 2016, [Dropout as a Bayesian approximation](https://arxiv.org/abs/1506.02142)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.seen import counted, evaluated, listed, within

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Layers whose fused path leaves dropouts out."""
    modes = evidence.passes.modes
    fused = list(dict.fromkeys(where.path for where in evidence.passes.evaluation.fused))
    found = False
    for path in fused:
        left_out = [
            site.path
            for site in evidence.sites
            if site.bypassed and site.fired_in_train and within(site.path, path)
        ]
        if not left_out:
            continue
        found = True
        drops = list(dict.fromkeys(left_out))
        is_on = not modes.get(path, True) and any(modes.get(drop) for drop in drops)
        many = counted(len(left_out), "dropout")
        message = f"{many} in it cannot be switched on in evaluation mode: a fused path skips them"
        if is_on:
            message = f"dropouts are switched on, and do nothing: a fused path skips all {many} "
            message += "while the layer is in evaluation mode, so that samples do not differ"
        yield RULE.finding(
            message,
            evidence=f"fired in the training pass: {listed(drops)}; in the evaluation pass one "
            f"fused operator did the work of {path or 'the model'}",
            severity="warning" if is_on else "note",
            path=path,
        )
    if not found:
        evaluated(evidence)


RULE = Rule(
    name="bypassed-dropout",
    code="DK106",
    severity="warning",
    page=__doc__,
    needs=("modules", "run"),
    on_model=on_model,
    wrong=(
        """
from torch import nn, ones

layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
model = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 1)).eval()
for module in model.modules():
    if isinstance(module, nn.Dropout):
        module.train()
inputs = (ones(2, 3, 4),)
""",
        """
from torch import nn, ones

layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="gelu", batch_first=True)
encoder = nn.TransformerEncoder(layer, num_layers=2).eval()
for layer in encoder.layers:
    layer.dropout.train()
model, inputs = nn.Sequential(nn.Linear(4, 8), encoder).eval(), (ones(2, 3, 4),)
for layer in encoder.layers:
    layer.dropout.train()
""",
    ),
    right=(
        """
from torch import nn, ones

layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
model, inputs = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 1)), (ones(2, 3, 4),)
""",
        """
from torch import nn, ones

layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=False)
model, inputs = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 1)), (ones(2, 3, 4),)
""",
    ),
)
