"""A model that is about to be trained, or a part of it, is in evaluation mode.

Models come from `from_pretrained`, and from a validation loop, in evaluation mode. The rule looks
at the mode of every module as the model was handed over. With `purpose="train"` it reports dropouts
that are seen to act in training mode, and will not, since they are in evaluation mode. Without a
purpose it reports only what no purpose explains: a model in training mode of which parts with
dropouts are in evaluation mode. Parts whose parameters are all frozen are left alone: there it is
right.

Why it matters:
The model trains without its dropout, and overfits as if it had none; its configuration and its
report say that it has. Batch norms keep statistics of other data.

How to fix:
Call `model.train()` before each epoch of training, after the validation of the one before, and
after `from_pretrained`; `dropkit.fix` switches the part that was found.

When to allow:
Where a part is trained without dropout on purpose, as in fine-tuning with few steps. A rate of 0
says it better, and stays when somebody calls `train()`.

References:
- [torch.nn.Module.train](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.train)
- Fine-tuned in evaluation mode:
  [pytorch-lightning#19820](https://github.com/Lightning-AI/pytorch-lightning/issues/19820)
- "The model is set in evaluation mode by default":
  [PreTrainedModel.from_pretrained](https://huggingface.co/docs/transformers/main_classes/model)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.records import Edit, Finding
from dropkit.rules.base import NotApplicable, Rule
from dropkit.rules.modes import acting, is_frozen, outermost

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """What is in evaluation mode, and would drop."""
    modes, purpose = evidence.passes.modes, evidence.purpose
    if purpose == "inference":
        raise NotApplicable("the model is about to predict")
    if purpose is None and not modes[""]:
        raise NotApplicable("needs purpose=: a model in evaluation mode may be about to predict")
    parts = acting(evidence)
    for top in outermost(parts.dropouts, modes, training=False):
        inner = parts.within(top)
        off = inner.only(lambda path: not (modes[path] or is_frozen(evidence, path)))
        if not off.dropouts or is_frozen(evidence, top):
            continue
        says = f"call {top + '.' if top else ''}train() before training"
        yield RULE.finding(
            f"{top or 'the model'} is in evaluation mode: {off.words} would not act in training",
            evidence=f"in evaluation mode when it was handed over: {off.names}",
            path=top,
            edit=Edit("switch", top, "train", safe=off == inner, says=says),
        )


RULE = Rule(
    name="trained-in-eval-mode",
    code="DK105",
    severity="warning",
    page=__doc__,
    needs=("modules",),
    on_model=on_model,
    wrong=(
        """
from torch import nn, ones

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
inputs, settings = (ones(2, 8),), {"purpose": "train"}
""",
        """
from torch import nn, ones

body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2)).eval()
model = nn.Sequential()
model.append(body)
model.append(nn.Linear(8, 1))
inputs = (ones(2, 8),)
""",
    ),
    right=(
        """
from torch import nn, ones

body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2)).eval()
body.requires_grad_(False)
model = nn.Sequential()
model.append(body)
model.append(nn.Linear(8, 1))
inputs, settings = (ones(2, 8),), {"purpose": "train"}
""",
        """
from torch import nn, ones

model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
inputs = (ones(2, 8),)
""",
        """
from torch import nn, ones

norm = nn.BatchNorm1d(8).eval()
model = nn.Sequential()
for part in (nn.Linear(8, 8), norm, nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)):
    model.append(part)
inputs, settings = (ones(2, 8),), {"purpose": "train"}
""",
    ),
)
