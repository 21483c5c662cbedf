"""Modules that a file puts in a row: `nn.Sequential` and the lists that are handed to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from dropkit.inspection.source.calls import MODULES, argument
from dropkit.inspection.source.file import SourceFile
from dropkit.inspection.source.trails import Trail, walk_from

_PASSED_OVER = {"Identity", "Flatten", "Unflatten"}
"""They change no value."""


class Link(NamedTuple):
    """A module in a row."""

    kind: str
    """Its class, such as Dropout; empty where it is not one of torch's."""
    node: ast.expr


def rows(file: SourceFile) -> Iterator[tuple[Trail, list[Link]]]:
    """Each row of modules that is sure to run in the order in which it is written."""
    for spot in file.spots:
        if spot.name in ("torch.nn.Sequential", "torch.nn.modules.container.Sequential"):
            yield spot.trail, _links(file, _parts(file, spot.call))
    for trail in file.trails:
        if isinstance(trail.node, ast.List) and _is_unpacked(file, trail):
            yield trail, _links(file, trail.node.elts)


def _parts(file: SourceFile, call: ast.Call) -> list[ast.expr]:
    """The modules that a Sequential is made of, in order; names in a dictionary are left out."""
    only = call.args[0] if len(call.args) == 1 else None
    if isinstance(only, ast.Starred) and isinstance(only.value, ast.List | ast.Tuple):
        return only.value.elts
    if isinstance(only, ast.Call) and file.names.of(only.func).endswith("OrderedDict"):
        only = only.args[0] if only.args else None
        if isinstance(only, ast.Dict):
            return only.values
        if isinstance(only, ast.List | ast.Tuple):
            return [_second(pair) for pair in only.elts]
    return call.args


def _second(pair: ast.expr) -> ast.expr:
    return pair.elts[1] if isinstance(pair, ast.Tuple) and len(pair.elts) == 2 else pair


def _links(file: SourceFile, parts: list[ast.expr]) -> list[Link]:
    """What changes no value is left out, and so is a dropout of rate 0 or in a condition."""
    found = []
    for part in parts:
        name = file.names.of(part.func) if isinstance(part, ast.Call) else ""
        kind = name.rpartition(".")[2] if name.startswith("torch.nn.") else ""
        if kind not in _PASSED_OVER:
            found.append(Link(kind, part))
    return found


def _is_unpacked(file: SourceFile, trail: Trail) -> bool:
    """Whether a list, or the variable that it is assigned or added to, is given to a Sequential."""
    up = trail.up.node if trail.up else None
    if not isinstance(up, ast.Assign | ast.AugAssign):
        return False
    target = up.targets[0] if isinstance(up, ast.Assign) else up.target
    around = trail.function
    if not isinstance(target, ast.Name) or around is None:
        return False
    return any(
        isinstance(inner.node, ast.Call)
        and file.names.of(inner.node.func) == "torch.nn.Sequential"
        and any(
            isinstance(arg, ast.Starred)
            and isinstance(arg.value, ast.Name)
            and arg.value.id == target.id
            for arg in inner.node.args
        )
        for inner in walk_from(around)
    )


def acts(file: SourceFile, link: Link, trail: Trail) -> bool:
    """Whether a module in a row is a dropout whose rate is not 0, nor left to a condition."""
    takes = MODULES.get(f"torch.nn.{link.kind}")
    if takes is None or not isinstance(link.node, ast.Call):
        return False
    rate = argument(link.node, takes.rate)
    if isinstance(rate, str):
        return rate == "absent"
    return file.rate(rate, trail) not in ("zero", "gated") and not isinstance(rate, ast.IfExp)
