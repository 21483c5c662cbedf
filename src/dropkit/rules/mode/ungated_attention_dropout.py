"""The dropout of an attention call is not switched off in evaluation mode.

`scaled_dot_product_attention` and the calls of flash-attention take a rate and no mode: they drop
whenever the rate is above 0. On a model the rule reports calls that were seen to drop in evaluation
mode. In source it reports a `dropout_p` within `forward` (and what `forward` calls) that is the
same number in both modes, and `multi_head_attention_forward` without its `training`.

Why it matters:
Attention weights are dropped at prediction, so that each answer is noise around the right one.
Nobody notices while the rate is 0, which is the default of many models; it shows when somebody
fine-tunes with a rate above 0 and serves what was trained.

How to fix:
Pass `dropout_p=self.rate if self.training else 0.0`; `dropkit lint --fix` writes it.

When to allow:
Where sampling at prediction is the purpose, with `# dropkit: allow=ungated-attention-dropout`.

References:
- [torch.nn.functional.scaled_dot_product_attention](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html):
  "This function always applies dropout according to the specified dropout_p argument"
- Asked for since 2023: [pytorch#99293](https://github.com/pytorch/pytorch/issues/99293)
- The same mistake in [timm#1978](https://github.com/huggingface/pytorch-image-models/pull/1978),
  [torchtune#1791](https://github.com/meta-pytorch/torchtune/issues/1791),
  [wenet#2699](https://github.com/wenet-e2e/wenet/issues/2699)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropkit.inspection.source import ATTENTION, SourceFile, argument, truth
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.edits import gate, set_mode
from dropkit.rules.seen import evaluated, is_deliberate, stays_in_training, strangers, times

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence


def on_source(file: SourceFile) -> Iterator[Finding]:
    """Attention calls whose rate is the same in both modes."""
    for spot, takes in file.calls_of(ATTENTION):
        rate = argument(spot.call, takes.rate)
        mode = argument(spot.call, takes.mode) if takes.mode else "absent"
        if isinstance(rate, str) or not (mode == "absent" or truth(mode) is True):
            continue
        if file.rate(rate, spot.trail) != "constant" or not file.acts_in_eval(spot.trail):
            continue
        edit = (
            set_mode(file, spot.trail, spot.call, "training")
            if takes.mode
            else gate(file, spot.trail, rate)
        )
        name = spot.name.rpartition(".")[2]
        yield RULE.finding(
            f"{name} drops attention weights in evaluation too: its rate, {file.written(rate)}, "
            "does not depend on the mode",
            evidence=file.line_of(rate),
            place=file.place(spot.trail, rate),
            edit=edit,
        )


def on_model(evidence: Evidence) -> Iterator[Finding]:
    """Attention calls that were seen to drop in evaluation mode."""
    elsewhere = strangers(evidence)
    found = False
    for site in evidence.sites:
        if site.kind != "attention" or not site.fired_in_eval or site.path in elsewhere:
            continue
        found = True
        rate = "" if site.rate is None else f" with the rate {site.rate:.4g}"
        why = "its rate does not hang on the mode"
        if stays_in_training(evidence, site):
            why = "its module stays in training mode"
        yield RULE.finding(
            f"attention weights are dropped{rate} in evaluation mode: {why}",
            evidence=times(evidence, site),
            severity="note" if is_deliberate(site) else None,
            site=site,
            path=site.path,
            place=site.place,
        )
    if not found:
        evaluated(evidence)


RULE = Rule(
    name="ungated-attention-dropout",
    code="DK103",
    severity="error",
    page=__doc__,
    needs=("modules",),
    on_model=on_model,
    on_source=on_source,
    wrong=(
        """
import torch.nn.functional as F
from torch import nn, ones

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate, self.qkv, self.out = 0.1, nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate))

model, inputs = Attention(), (ones(2, 4, 8),)
""",
        """
import torch.nn.functional as F
from torch import nn, ones

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.qkv, self.out = nn.Dropout(0.2), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (y[:, None] for y in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, None, self.drop.p, is_causal=True)
        return self.out(y[:, 0])

model = nn.ModuleList([Attention()]).append(nn.Linear(8, 1))
model = nn.Sequential(*model)
inputs = (ones(2, 4, 8),)
""",
    ),
    right=(
        """
import torch.nn.functional as F
from torch import nn, ones

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate, self.qkv, self.out = 0.1, nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        rate = self.rate if self.training else 0.0
        return self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=rate))

model, inputs = Attention(), (ones(2, 4, 8),)
""",
        """
from torch import nn, ones

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]

model, inputs = Net(), (ones(2, 4, 8),)
""",
    ),
    wrong_source=(
        """
import torch.nn.functional as F
from torch import nn

class Attention(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate)
""",
        """
import torch
from flash_attn import flash_attn_func

class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.1)

    def forward(self, q, k, v):
        return flash_attn_func(q, k, v, self.drop.p, causal=True)
""",
    ),
    right_source=(
        """
import torch.nn.functional as F
from torch import nn

class Attention(nn.Module):
    def forward(self, q, k, v, dropout_p=0.0):
        rate = self.rate
        if not self.training:
            rate = 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        x = F.scaled_dot_product_attention(x, k, v, dropout_p=0.0)
        x = F.scaled_dot_product_attention(x, k, v, dropout_p=self.p if self.training else 0.0)
        return F.scaled_dot_product_attention(x, k, v, None, dropout_p)
""",
    ),
)
