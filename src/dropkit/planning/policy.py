"""Which rate, where: the policy, as data. Each row says its numbers, its reason and its source.

A row's reason quotes the rule and its threshold. The ranges are those of `inspection.ranges`, by
which the rules judge, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dropkit.inspection.ranges import (
    BACKBONE,
    CHANNELS,
    CONVOLUTION,
    FEW,
    HIDDEN,
    INPUT,
    LORA,
    MASSIVE,
    MASSIVE_HIGH,
    PATH,
    RECURRENT,
    SMALL,
    TRANSFORMER,
    Range,
)

Group = Literal[
    "input", "embedding", "hidden", "head", "conv", "conv beside batch norm", "recurrent",
    "between recurrent layers", "transformer", "path", "lora", "output",
]  # fmt: skip
"""What a place is to the policy: its role, and what lies around it."""

GUIDE = 'the guide "Dropout regularization explained"'
LARGE = 1_000_000
"""Rows from which on the low end of a range is enough; between SMALL and these the rate falls with
the logarithm of the rows. The guide gives the two ends and no number."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for a group."""

    range: Range
    start: float
    """Where nothing is known of the data."""
    reason: str
    source: str
    by_rows: bool = True
    """Whether it hangs on how many rows there are, and not on the size of the network."""


USUAL: Mapping[Group, Usual] = {
    "input": Usual(
        INPUT, 0.1, 'light noise on inputs, "preserve input signal": 0.1 to 0.2',
        f"{GUIDE}; Srivastava et al. 2014, appendix A.4: 0.2",
    ),
    "embedding": Usual(
        INPUT, 0.1, "light noise on embeddings: 0.1 to 0.2, 0.3 at most",
        f"{GUIDE}; Devlin et al. 2019, BERT: 0.1",
    ),
    "hidden": Usual(
        HIDDEN, 0.5, 'hidden layers start at 0.5, the "classic default", within 0.3 to 0.5',
        f"{GUIDE}; Srivastava et al. 2014",
    ),
    "head": Usual(
        HIDDEN, 0.5, "heads on vision and tables are tried as hidden layers are, 0.3 to 0.5",
        GUIDE,
    ),
    "conv": Usual(
        CHANNELS, 0.2, "whole maps are dropped, since near pixels are alike: 0.1 to 0.25",
        f"{GUIDE}; Tompson et al. 2015; Srivastava et al. 2014, appendix B.2",
    ),
    "conv beside batch norm": Usual(
        CONVOLUTION, 0.1, 'batch norm adds noise of its own: "light dropout (0.2) or none"',
        f"{GUIDE}; Li et al. 2019",
    ),
    "recurrent": Usual(
        RECURRENT, 0.25, "recurrent layers take one mask for all time steps, at 0.2 to 0.5",
        f"{GUIDE}; Gal & Ghahramani 2016",
    ),
    "between recurrent layers": Usual(
        RECURRENT, 0.25, "between recurrent layers torch draws anew at each step, 0.2 to 0.5; one "
        "mask for all steps is what dropkit.nn.VariationalLSTM and VariationalGRU have",
        f"Zaremba et al. 2014, who drop 0.5 there; {GUIDE}, which is against masks for each step",
    ),
    "transformer": Usual(
        TRANSFORMER, 0.1, '0.1 in transformer blocks, since "large models over-regularize easily"',
        f"{GUIDE}; Devlin et al. 2019, BERT: 0.1",
    ),
    "path": Usual(
        PATH, 0.1, "stochastic depth grows from 0 to 0.1 at the last block, more in large networks",
        "Huang et al. 2016; Touvron et al. 2021, DeiT; Liu et al. 2022, ConvNeXt", by_rows=False,
    ),
    "lora": Usual(
        LORA, 0.05, "adapters of low rank drop 0.05 to 0.1 of what comes in",
        "Dettmers et al. 2023, QLoRA", by_rows=False,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A situation that goes before what is usual."""

    name: str
    low: float
    high: float
    rate: float
    reason: str
    source: str


OUTPUT = Row(
    "output", 0.0, 0.0, 0.0,
    "nothing is dropped on the output: it corrupts what the softmax, or the loss, is given",
    GUIDE,
)  # fmt: skip
PRETRAINING = Row(
    "massive pretraining", 0.0, MASSIVE_HIGH, 0.0,
    f"trained on {MASSIVE:,} rows or tokens and more, data regularize by themselves: "
    '"rely on scale and weight decay"',
    f"{GUIDE}; Lan et al. 2020, ALBERT; Touvron et al. 2023, LLaMA",
)  # fmt: skip
LOWER = Row(
    "fine-tuning, lower layers", 0.0, BACKBONE, 0.0,
    f'fine-tuned on up to {FEW:,} rows: "disable dropout on lower layers", which know already what '
    "so few rows cannot teach",
    GUIDE,
)  # fmt: skip
UPPER = Row(
    "fine-tuning, upper layers", 0.0, 2 * BACKBONE, BACKBONE,
    f"fine-tuned on up to {FEW:,} rows: 0.1 on all layers may train too slowly, "
    f'"try {BACKBONE:g}"',
    GUIDE,
)  # fmt: skip
TUNED_HEAD = Row(
    "fine-tuning, head", 0.1, 0.3, 0.2,
    f'fine-tuned on up to {FEW:,} rows: "moderate dropout on head; low on backbone"; the head is '
    "new",
    f"{GUIDE}; Devlin et al. 2019, BERT: 0.1",
)  # fmt: skip

AMOUNTS: Mapping[str, str] = {
    "small": f"up to {SMALL:,} rows are few: the high end of the range",
    "between": f"{SMALL:,} to {LARGE:,} rows: between the ends of the range",
    "large": f"from {LARGE:,} rows on the low end of the range is enough",
    "underfits": "it underfits, with high loss in training and validation: half the rate, or none",
    "overfits": "it overfits, with low loss in training and high in validation: the high end",
}

NOTES: tuple[str, ...] = (
    "Choose rates on validation rows, apart from the learning rate: these are beginnings.",
    "Use weight decay beside dropout: they address different failures.",
    "Call model.eval() before predictions; dropkit.guard raises where something drops.",
)
"""The guide's checklist, as far as it is not in the rates and places themselves."""
