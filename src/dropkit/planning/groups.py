"""What a site, or a place for one, is to the policy: its role, and what lies around it."""

from __future__ import annotations

from typing import get_args

from dropkit.planning.policy import Group
from dropkit.records import Site

_BLOCK = 4
"""How near the sum of a residual block is to what is dropped in it, in operations."""


def group_of(site: Site, transformer: bool) -> Group:
    """What a site, or what would be one, is to the policy; `transformer`: the model attends."""
    maps = site.role == "conv" or (site.kind == "feature_dropout" and len(site.shape) > 3)
    if maps and site.role != "input":
        beside = any(near.step == "batch_norm" for near in (*site.fed_by, *site.feeds))
        return "conv beside batch norm" if beside else "conv"
    if site.kind == "recurrent":
        return "between recurrent layers"
    if site.role == "attention":
        return "transformer"
    if transformer and site.role in ("embedding", "residual"):
        return "transformer"
    if site.role in ("hidden", "residual"):
        return "transformer" if transformer and _to_sum(site) <= _BLOCK else "hidden"
    groups: tuple[Group, ...] = get_args(Group)
    return next(group for group in groups if group == site.role)


def _to_sum(site: Site) -> int:
    """How far the sum is that ends its residual branch, in operations."""
    return min((near.distance for near in site.feeds if near.step == "residual_add"), default=99)
