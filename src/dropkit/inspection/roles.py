"""What a site is for, by what lies around it."""

from __future__ import annotations

from dropkit.records import Neighbour, Role, SiteKind

_WEIGHTED = ("linear", "convolution", "embedding", "recurrence", "attention")
_BACKBONE = ("convolution", "embedding", "recurrence", "attention", "softmax")


def role(
    path: str,
    kind: SiteKind,
    shape: tuple[int, ...],
    fed_by: tuple[Neighbour, ...],
    feeds: tuple[Neighbour, ...],
    in_step: bool,
) -> Role:
    """The role of a site; the first that fits, from the most particular."""
    if "lora" in path.lower():
        return "lora"
    if kind == "path":
        return "path"
    if kind == "attention" or _weighs_attention(fed_by, feeds):
        return "attention"
    if kind == "recurrent" or in_step or _first(fed_by, *_WEIGHTED) == "recurrence":
        return "recurrent"
    later: list[str] = [near.step for near in feeds]
    if "output" in later and not any(step in later for step in (*_WEIGHTED, "residual_add")):
        return "output"
    source = _first(fed_by, *_WEIGHTED)
    if source == "embedding":
        return "embedding"
    if source is None:  # nothing with weights: the input itself, or all too far away to tell
        return "input" if any(near.step == "input" for near in fed_by) else "hidden"
    if source == "convolution" and "pool" not in _until(fed_by, "convolution"):
        dims = next(len(near.shape) for near in fed_by if near.step == "convolution")
        if len(shape) == dims:
            return "conv"
        if len(shape) == 3:  # patches that have become tokens
            return "embedding"
    if _is_head(fed_by, later):
        return "head"
    if _is_added(feeds):
        return "residual"
    return "hidden"


def _first(near: tuple[Neighbour, ...], *steps: str) -> str | None:
    return next((other.step for other in near if other.step in steps), None)


def _until(near: tuple[Neighbour, ...], last: str) -> list[str]:
    steps = [other.step for other in near]
    return list(steps[: steps.index(last)]) if last in steps else list(steps)


def _weighs_attention(fed_by: tuple[Neighbour, ...], feeds: tuple[Neighbour, ...]) -> bool:
    """Whether it drops the weights of attention: after a softmax, before a product with values."""
    return (
        bool(fed_by)
        and fed_by[0].step == "softmax"
        and any(near.step == "matmul" and near.distance <= 2 for near in feeds)
    )


def _is_added(feeds: tuple[Neighbour, ...]) -> bool:
    """Whether all that comes of it is added to the trunk, dropped as a path or scaled before."""
    alone = sum(near.distance == 1 for near in feeds) == 1
    rest = [near.step for near in feeds if near.step not in ("dropout", "multiply")]
    return alone and rest[:1] == ["residual_add"]


def _is_head(fed_by: tuple[Neighbour, ...], later: list[str]) -> bool:
    """Whether one linear map, and the output, is all that comes after a backbone."""
    after = [step for step in later if step in _WEIGHTED]
    backbone = any(near.step in _BACKBONE for near in fed_by)
    return backbone and after == ["linear"] and "output" in later and "residual_add" not in later
