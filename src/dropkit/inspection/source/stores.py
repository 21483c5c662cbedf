"""Where a function gives a name a value, and what that is."""

from __future__ import annotations

import ast

from dropkit.inspection.source.names import parameters
from dropkit.inspection.source.trails import SCOPES, Trail, walk_from


def stores_of(function: Trail, name: str) -> list[Trail]:
    """All places in a function that give a name a value."""
    return [
        inner
        for inner in walk_from(function)
        if isinstance(inner.node, ast.Name)
        and inner.node.id == name
        and isinstance(inner.node.ctx, ast.Store)
    ]


def binding(trail: Trail, name: str) -> list[Trail] | None:
    """What gives a name its value where a node stands, in the innermost function that has it.

    None: it is a parameter; empty: it is of the file, or imported.
    """
    for step in trail.ways():
        if not isinstance(step.node, SCOPES):
            continue
        if name in parameters(step.node):
            return None
        stores = stores_of(step, name)
        if stores:
            return stores
    return []


def value_of(store: Trail) -> ast.expr | None:
    """What is assigned, or what a loop takes it from; None where that cannot be read."""
    up = store.up
    if up is None:
        return None
    if isinstance(up.node, ast.Assign | ast.AnnAssign):
        return up.node.value
    if isinstance(up.node, ast.For):
        return up.node.iter
    if not isinstance(up.node, ast.Tuple) or up.up is None:
        return None
    index = [part is store.node for part in up.node.elts].index(True)
    around = up.up.node
    if isinstance(around, ast.Assign):
        whole = around.value
        if isinstance(whole, ast.Tuple) and len(whole.elts) == len(up.node.elts):
            return whole.elts[index]
        return whole
    return _one_of(around.iter, index) if isinstance(around, ast.For) else None


def _one_of(iterated: ast.expr, index: int) -> ast.expr | None:
    """What a loop over zip() or enumerate() takes its name from."""
    if not isinstance(iterated, ast.Call) or not isinstance(iterated.func, ast.Name):
        return None
    if iterated.func.id == "zip" and index < len(iterated.args):
        return iterated.args[index]
    if iterated.func.id == "enumerate" and index == 1 and iterated.args:
        return iterated.args[0]
    return None
