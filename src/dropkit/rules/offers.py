"""What would mend a model: edits that several rules offer."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from dropkit.records import Edit, Site

if TYPE_CHECKING:
    from torch import nn

    from dropkit.inspection.evidence import Evidence

TORCH = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
"""Layers that do nothing but drop."""


def layer(evidence: Evidence, site: Site) -> nn.Module | None:
    """The layer of a site, where it is one that does nothing else and serves no other site."""
    if site.owner not in TORCH or not site.path:
        return None
    return evidence.module(site.path) if evidence.once(_places)[site.path] == 1 else None


def _places(evidence: Evidence) -> Counter[str]:
    """How many sites each module has."""
    return Counter(site.path for site in evidence.sites)


def _ran(evidence: Evidence) -> set[str]:
    return {site.path for site in evidence.sites if site.ran}


def follower(evidence: Evidence, site: Site) -> tuple[str, nn.Module] | None:
    """What stands right behind a site's layer in a Sequential: its path, and the module."""
    outer, _, name = site.path.rpartition(".")
    around = evidence.module(outer)
    if type(around).__name__ != "Sequential" or around is None:
        return None
    for (one, _), (two, module) in pairwise(around.named_children()):
        if one == name:
            return (f"{outer}.{two}" if outer else two), module
    return None


def knob(evidence: Evidence, site: Site) -> str:
    """The path of the attribute that holds the rate of a site; empty where it is only a guess.

    The rate of a layer that drops elsewhere, and has the same by chance, is none.
    """
    module = site.holder.rpartition(".")[0]
    if module == site.path or module not in evidence.once(_ran):
        return site.holder
    return ""


def set_rate(evidence: Evidence, site: Site, rate: float, *, safe: bool = False) -> Edit | None:
    """Another rate, where it is known which attribute holds it."""
    holder = knob(evidence, site)
    if not holder:
        return None
    sure = layer(evidence, site) is not None and holder == f"{site.path}.p"
    return Edit("set", holder, f"{rate:.6g}", safe=safe and sure, says=f"a rate of {rate:.6g}")


def replace(evidence: Evidence, site: Site, name: str) -> Edit | None:
    """The same rate in a layer of another law, one of dropkit's."""
    if layer(evidence, site) is None or site.rate is None:
        return None
    arguments = {"p": site.rate}
    says = f"{name} with the same rate"
    return Edit("replace", site.path, f"dropkit.nn.{name}", arguments, says=says)
