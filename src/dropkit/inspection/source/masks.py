"""Masks that a module draws itself and multiplies on without making up for what they drop."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.inspection.source.file import SourceFile
from dropkit.inspection.source.trails import Trail, walk_from

_DRAWN = {"torch.rand", "torch.rand_like"}
_DROP = re.compile(r"drop", re.IGNORECASE)
_MARKS = re.compile(
    r"word|token|input|modal|view|edge|node|sensor|label|cond|cfg|class|mask_?ed|blank|unk|aug|noise|"
    r"path|layer|feature|position|frame|patch|point|channel|embed|text|image|prompt|null|head",
    re.IGNORECASE,
)
"""What is dropped so that a model sees it missing, or as a branch; not for source to judge."""
_SCALES = re.compile(r"/|\bdiv_?\b|\bdivide\b|1(\.0?)?\s*-|rescale|scale")


def bare_masks(file: SourceFile) -> Iterator[tuple[Trail, str]]:
    """(the drawing, the rate as it is written) of each mask that is surely a dropout, unscaled."""
    for spot in file.spots:
        if spot.name not in _DRAWN or file.is_test or file.module(spot.trail) != "yes":
            continue
        compared = spot.trail.up
        if compared is None or not isinstance(compared.node, ast.Compare):
            continue
        rate = compared.node.comparators[0]
        if compared.node.left is not spot.call or not _by_the_rate(file, rate, spot.trail):
            continue
        if _applied(compared) and not _made_up_for(file, spot.trail):
            yield spot.trail, file.written(rate)


def _by_the_rate(file: SourceFile, rate: ast.expr, trail: Trail) -> bool:
    """Whether names say that it is a dropout, of activations, and it asks for the mode."""
    owner = trail.owner
    if owner is None or not isinstance(rate, ast.Name | ast.Attribute):
        return False
    name = rate.id if isinstance(rate, ast.Name) else rate.attr
    where = f"{trail.name}.{name}"
    if _MARKS.search(where) or not _DROP.search(where):
        return False
    return file.gated(trail)


def _applied(compared: Trail) -> bool:
    """Whether the mask is a factor, at once or by a variable of its function."""
    around = compared.function
    name = ""
    for step in compared.ways():
        if isinstance(step.node, ast.BinOp) and isinstance(step.node.op, ast.Mult):
            return True
        if isinstance(step.node, ast.Assign) and isinstance(step.node.targets[0], ast.Name):
            name = step.node.targets[0].id
        if isinstance(step.node, ast.stmt):
            break
    return (
        around is not None
        and bool(name)
        and any(
            isinstance(inner.node, ast.BinOp)
            and isinstance(inner.node.op, ast.Mult)
            and any(
                isinstance(side, ast.Name) and side.id == name
                for side in (inner.node.left, inner.node.right)
            )
            for inner in walk_from(around)
        )
    )


def _made_up_for(file: SourceFile, trail: Trail) -> bool:
    """Whether anything in the class divides, or speaks of what is kept."""
    owner = trail.owner
    return owner is None or _SCALES.search(file.written(owner.node)) is not None  # type: ignore[arg-type]
