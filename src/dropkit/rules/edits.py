"""Changes of source that several rules make."""

from __future__ import annotations

import ast
import re

from dropkit.inspection.source import SourceFile, Trail
from dropkit.records import SourceEdit

_WEAK = (ast.IfExp, ast.Lambda, ast.NamedExpr, ast.Starred, ast.Yield, ast.YieldFrom)
"""What needs parentheses before an `if`."""


def knows_self(file: SourceFile, trail: Trail) -> bool:
    """Whether `self` is a module of torch where a node stands, so that `self.training` is there."""
    method = trail.method
    if method is None or file.cells or file.module(trail) != "yes":
        return False
    first = [*method.node.args.posonlyargs, *method.node.args.args][:1]  # type: ignore[attr-defined]
    return [arg.arg for arg in first] == ["self"]


def add_argument(file: SourceFile, call: ast.Call, text: str) -> tuple[int, int, str] | None:
    """A last argument for a call, where the last that it has ends."""
    last = max(
        (*call.args, *(word.value for word in call.keywords)),
        key=lambda node: (node.end_lineno, node.end_col_offset),
        default=None,
    )
    if last is None:
        return None
    at = file.span(last)[1]
    closed = _closing(file.text[at : file.span(call)[1]])
    if closed is None:
        return None
    return at + closed, at + closed, f", {text}"


def _closing(rest: str) -> int | None:
    """Where the argument itself ends, in what stands behind it: `)` of its own, and the call's."""
    ends = [m.end() for m in re.finditer(r"#[^\r\n]*|\)", rest) if m.group() == ")"]
    if not ends:
        return None
    return ends[-2] if len(ends) > 1 else 0


def set_mode(file: SourceFile, trail: Trail, call: ast.Call, name: str) -> SourceEdit | None:
    """Lets a call of a functional dropout follow the mode of its module.

    It is safe where the call says nothing of a mode; a True may be meant.
    """
    says = f"pass {name}=self.training"
    given = next((word.value for word in call.keywords if word.arg == name), None)
    if given is None and len(call.args) > 2:
        given = call.args[2]
    if given is not None:
        part: tuple[int, int, str] | None = (*file.span(given), "self.training")
    else:
        part = add_argument(file, call, f"{name}=self.training")
    if part is None or not knows_self(file, trail):
        return None
    return SourceEdit(file.path, (part,), given is None, says)


def gate(file: SourceFile, trail: Trail, rate: ast.expr) -> SourceEdit | None:
    """Makes a rate 0 outside of training."""
    if not knows_self(file, trail) or isinstance(rate, ast.Starred):
        return None
    start, end = file.span(rate)
    text = file.text[start:end]
    text = f"({text})" if isinstance(rate, _WEAK) else text
    says = "pass the rate in training alone: ... if self.training else 0.0"
    return SourceEdit(file.path, ((start, end, f"{text} if self.training else 0.0"),), True, says)


def hoist(file: SourceFile, trail: Trail, call: ast.Call) -> SourceEdit | None:
    """Builds a module at the end of `__init__`, and calls it where it was built.

    Only where nothing can go wrong: its arguments are constants, its class is surely a module and
    has an `__init__` that ends in a plain statement, and the new name stands nowhere in the file.
    """
    owner, up = trail.owner, trail.up
    if owner is None or up is None or not knows_self(file, trail):
        return None
    if isinstance(up.node, ast.Call) and up.node.func is not call:
        return None  # a part of a Sequential
    if isinstance(up.node, ast.Assign) and not isinstance(up.node.targets[0], ast.Name):
        return None
    values = [*call.args, *(word.value for word in call.keywords)]
    if not all(isinstance(value, ast.Constant) for value in values):
        return None
    at = _end_of_init(file, file.facts(owner).methods.get("__init__"))
    if at is None or not _imported_at_top(file, call.func):
        return None
    name = _fresh_name(file)
    place, indent = at
    line = f"{file.lines.newline}{indent}self.{name} = {file.written(call)}"
    parts = sorted([(place, place, line), (*file.span(call), f"self.{name}")])
    return SourceEdit(file.path, tuple(parts), True, "build it in __init__, and call it here")


def _end_of_init(file: SourceFile, init: ast.AST | None) -> tuple[int, str] | None:
    """Where a statement can be added to an `__init__`, and its indentation."""
    if not isinstance(init, ast.FunctionDef) or "super().__init__(" not in file.written(init):
        return None
    last = init.body[-1]
    if isinstance(last, ast.Return | ast.Raise):
        return None
    indent = file.lines[last.lineno][: last.col_offset]
    if indent.strip():
        return None
    end = last.end_lineno or last.lineno
    return file.lines.starts[end - 1] + len(file.lines[end]), indent


def _imported_at_top(file: SourceFile, function: ast.expr) -> bool:
    """Whether the name with which a module is built is known in the whole file."""
    while isinstance(function, ast.Attribute):
        function = function.value
    imports = (node for node in file.tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    bound = {a.asname or a.name.partition(".")[0] for node in imports for a in node.names}
    return isinstance(function, ast.Name) and function.id in bound


def _fresh_name(file: SourceFile) -> str:
    """A name for an attribute that no object in the file has."""
    number, name = 1, "dropout"
    while re.search(rf"\b{name}\b", file.text):
        number += 1
        name = f"dropout_{number}"
    return name
