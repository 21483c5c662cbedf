"""The rates that are usual, by what a dropout is for; and how much data is much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dropkit.inspection.maps import convolution
from dropkit.records import Site

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence
    from dropkit.inspection.runs import Run


@dataclass(frozen=True, slots=True)
class Range:
    """Usual rates."""

    low: float
    high: float
    of: str
    """What they are for, in words."""


# The table of the guide "Dropout regularization explained"; where it has two, the wider.
INPUT = Range(0.1, 0.3, "inputs and embeddings")
"""0.1 to 0.2, "light noise; preserve input signal"; elsewhere 0.2 to 0.3 for input embeddings."""
HIDDEN = Range(0.3, 0.5, "hidden layers and heads")
"""0.3 to 0.5, "classic default 0.5 from original paper"; heads of vision and tables likewise."""
TRANSFORMER = Range(0.05, 0.15, "blocks of a transformer")
"""0.05 to 0.15 for its attention and feed-forward parts: "large models over-regularize easily"."""
CONVOLUTION = Range(0.0, 0.2, "convolutions with batch norm")
""""Light dropout (0.2) or none on conv blocks"."""

# Of these the guide gives no rate; no rule judges by them.
CHANNELS = Range(0.1, 0.25, "convolutions without batch norm")
"""Srivastava et al. 2014, appendix B.2: 0.1 on the input of a convolutional network, 0.25 on the
first of its maps. That whole maps are dropped is Tompson et al. 2015."""
RECURRENT = Range(0.2, 0.5, "recurrent layers, with one mask for all time steps")
"""Gal & Ghahramani 2016, whose code drops 0.2 to 0.25 of embeddings and states, and 0.5 and more
between layers."""
PATH = Range(0.1, 0.5, "stochastic depth, at the last block")
"""Touvron et al. 2021, DeiT: 0.1; Liu et al. 2022, ConvNeXt: 0.1 to 0.5, the larger the more; Huang
et al. 2016: 0.5."""
LORA = Range(0.05, 0.1, "adapters of low rank")
"""Dettmers et al. 2023, QLoRA: 0.1 up to 13 billion parameters, 0.05 for 33 and 65 billion."""

MASSIVE = 1_000_000_000
"""Rows or tokens of pretraining from which on data regularize by themselves. The guide: "billions
of pretraining tokens: dropout optional"."""
MASSIVE_HIGH = 0.1
"""Its "0 or very low"; 0.1 is what BERT and GPT were trained with."""
FEW = 100_000
"""Rows up to which a fine-tuning is one on small data: ten times the guide's example, of 10,000."""
SMALL = 10_000
"""Rows up to which data are small: the guide's example of a "small domain dataset"."""
BACKBONE = 0.05
"""The most of pretrained layers: "dropout 0.1 on all transformer layers may train too slowly; try
0.05 or disable dropout on lower layers"."""

NEAR = 0.05
"""How far above a range is still near it: rates are tried in steps of 0.05 to 0.1."""
_GATHERS = ("scatter_add", "scatter_reduce", "index_add", "index_reduce", "_sparse", "sparse")
_KINDS = ("dropout", "feature_dropout", "alpha_dropout", "attention", "mask")


def usual(evidence: Evidence, run: Run) -> Range | None:
    """The usual rates of a site; None where there is no rule for what it is for."""
    site = run.site
    if site.kind not in _KINDS:
        return None
    before = {near.step for near in site.fed_by}
    after = [near.step for near in site.feeds]
    if convolution(run) is not None:
        return CONVOLUTION if "batch_norm" in (*before, *after) else None
    if site.role in ("input", "embedding"):
        graph = _is_graph(site) and not evidence.once(in_transformer)
        return None if graph or "recurrence" in (*before, *after) else INPUT
    if site.role == "attention":
        return TRANSFORMER if _compares(site) else None
    if site.role in ("hidden", "residual"):
        block = "residual_add" in [near.step for near in site.feeds if near.distance <= 4]
        return TRANSFORMER if block and evidence.once(in_transformer) else HIDDEN
    return HIDDEN if site.role == "head" else None


def in_transformer(evidence: Evidence) -> bool:
    """Whether the model attends."""
    return any(
        (site.role == "attention" and _compares(site))
        or any(near.step == "attention" for near in site.fed_by)
        for site in evidence.sites
    )


def _compares(site: Site) -> bool:
    """Whether scores of attention are products of queries and keys, and not those of a graph."""
    products = (near for near in site.fed_by if near.step == "matmul")
    return site.kind == "attention" or any(near.distance <= 6 for near in products)


def _is_graph(site: Site) -> bool:
    """Whether what is dropped is gathered along the edges of a graph, as sparse features are."""
    near = [other for other in site.feeds if other.distance <= 3]
    return any(other.step == "matmul" or other.name.startswith(_GATHERS) for other in near)


def noise(rate: float) -> float:
    """The variance that a rate adds, as a share of the squared value."""
    return rate / (1 - rate) if rate < 1 else float("inf")
