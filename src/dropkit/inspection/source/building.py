"""Modules that are built where they are called."""

from __future__ import annotations

import ast

from dropkit.inspection.source.names import Names
from dropkit.inspection.source.trails import Trail, walk_from

_SWITCHES = {"train", "eval", "training", "p"}


def called_here(trail: Trail, names: Names) -> bool:
    """Whether the module that a call builds is called in the function in which it is built."""
    up = trail.up
    if up is None:
        return False
    if isinstance(up.node, ast.Call):
        if up.node.func is trail.node:
            return True
        return names.of(up.node.func) == "torch.nn.Sequential" and called_here(up, names)
    if not isinstance(up.node, ast.Assign) or len(up.node.targets) != 1:
        return False
    target = up.node.targets[0]
    if isinstance(target, ast.Attribute) and any(isinstance(t.node, ast.If) for t in up.ways()):
        return False  # it may be built once, and kept
    return _used(trail, ast.dump(target).replace("Store()", "Load()"))


def _used(trail: Trail, name: str) -> bool:
    """Whether the function calls what has this name, and leaves its mode alone."""
    around = trail.function
    if around is None or name.startswith(("Tuple", "List", "Subscript")):
        return False
    called = False
    for inner in walk_from(around):
        node = inner.node
        if isinstance(node, ast.Call) and ast.dump(node.func) == name:
            called = True
        switch = isinstance(node, ast.Attribute) and node.attr in _SWITCHES
        if switch and ast.dump(node.value) == name:  # type: ignore[attr-defined]
            return False
    return called
