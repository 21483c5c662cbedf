"""Nodes of a syntax tree with what they stand in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from dropkit.inspection.source.words import HotLines

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda)
"""What has parameters and variables of its own."""


class Trail(NamedTuple):
    """A node, and the way to it from the top of the file."""

    node: ast.AST
    up: Trail | None
    field: str = ""
    """Of the parent in which it stands: body, orelse, test, value."""

    def ways(self) -> Iterator[Trail]:
        """This, its parent, and so on to the top."""
        here: Trail | None = self
        while here is not None:
            yield here
            here = here.up

    @property
    def function(self) -> Trail | None:
        """The innermost function with a name that it stands in."""
        return next((t for t in self.ways() if isinstance(t.node, FUNCTIONS)), None)

    @property
    def method(self) -> Trail | None:
        """The function that stands in a class, and in which this stands, at any depth."""
        for step in self.ways():
            if (
                isinstance(step.node, FUNCTIONS)
                and step.up
                and isinstance(step.up.node, ast.ClassDef)
            ):
                return step
        return None

    @property
    def owner(self) -> Trail | None:
        """The class of its method."""
        method = self.method
        return None if method is None else method.up

    @property
    def name(self) -> str:
        """Where it stands, with dots: Net.forward."""
        kinds = (*FUNCTIONS, ast.ClassDef)
        names = [step.node.name for step in self.ways() if isinstance(step.node, kinds)]
        return ".".join(reversed(names))

    @property
    def statement(self) -> ast.stmt | None:
        """The statement that it is a part of."""
        return next((t.node for t in self.ways() if isinstance(t.node, ast.stmt)), None)


def blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The statements within a statement: bodies, handlers of errors, cases."""
    found = [getattr(statement, field, []) for field in ("body", "orelse", "finalbody")]
    found += [handler.body for handler in getattr(statement, "handlers", [])]
    return [*found, *(case.body for case in getattr(statement, "cases", []))]


def walk(top: ast.AST, hot: HotLines | None = None) -> Iterator[Trail]:
    """All nodes, with their trails; with `hot`, only those that reach over a hot line."""
    return walk_from(Trail(top, None), hot)


def walk_from(start: Trail, hot: HotLines | None = None) -> Iterator[Trail]:
    """The same, from a node whose trail is known."""
    stack = [start]
    while stack:
        here = stack.pop()
        yield here
        fresh = []
        for field in here.node._fields:
            value = getattr(here.node, field, None)
            nodes = value if isinstance(value, list) else (value,)
            fresh += [
                Trail(node, here, field)
                for node in nodes
                if isinstance(node, ast.AST) and (hot is None or _reaches(node, hot))
            ]
        stack += reversed(fresh)


def _reaches(node: ast.AST, hot: HotLines) -> bool:
    first = getattr(node, "lineno", None)
    if first is None:
        return not isinstance(node, ast.expr_context | ast.operator)
    return hot.within(first, getattr(node, "end_lineno", None) or first)
