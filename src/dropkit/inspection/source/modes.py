"""Whether a call is held back by the mode: the forms in which a dropout is rightly gated.

What is not certain counts as held back, so that a rule which asks here errs towards silence.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Literal

from dropkit.inspection.source.calls import number
from dropkit.inspection.source.stores import binding, value_of
from dropkit.inspection.source.trails import Trail
from dropkit.inspection.source.wording import speaks_of_mode

if TYPE_CHECKING:
    from dropkit.inspection.source.file import SourceFile

Verdict = Literal["zero", "constant", "gated", "unknown"]

_SETS_UP = re.compile(r"_*(init|build|setup|reset|configure|create|make|post_init)")
_ENTRIES = re.compile(
    r"forward|__call__$|message|update$|aggregate$|edge_update|infer|predict|generate|extract_feat|"
    r"(en|de)code|embed|logits"
)
"""Methods that torch or PyTorch Geometric calls, and those that others call to predict."""
_SETTINGS = r"(self|args|cfg|config|conf|opts?|hparams|hp|params)"
"""Names of the module itself, and of what holds its settings when it is made."""
_PLAIN_CALLS = {"float", "min", "max", "abs", "int"}
_DEPTH = 6
"""How many variables are followed from one to the next."""


def gated(file: SourceFile, trail: Trail) -> bool:
    """Whether something in the function that a node stands in asks for the mode before it."""
    for step in trail.ways():
        up = step.up
        if up is None or isinstance(up.node, ast.ClassDef):
            return False
        node = up.node
        if isinstance(node, ast.If | ast.IfExp | ast.While) and step.field != "test":
            if _switch(file, node.test, up):
                return True
        elif isinstance(node, ast.BoolOp):
            before = node.values[: node.values.index(step.node)]  # type: ignore[arg-type]
            if any(_switch(file, value, up) for value in before):
                return True
        if isinstance(step.node, ast.stmt) and _left_before(file, up, step):
            return True
    return False


def _left_before(file: SourceFile, up: Trail, step: Trail) -> bool:
    """Whether a statement before this leaves the block by a question of the mode."""
    block = getattr(up.node, step.field, None)
    if not isinstance(block, list):
        return False
    for statement in block[: block.index(step.node)]:
        if isinstance(statement, ast.Assert) and speaks_of_mode(statement.test):
            return True
        if not isinstance(statement, ast.If):
            continue
        leaves = _leaves(statement.body) or _leaves(statement.orelse)
        if leaves and _switch(file, statement.test, Trail(statement, up, step.field), False):
            return True
    return False


def _leaves(body: list[ast.stmt]) -> bool:
    last = body[-1] if body else None
    return isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break)


def _switch(file: SourceFile, test: ast.expr, trail: Trail, any_flag: bool = True) -> bool:
    """Whether a condition may hang on the mode, or (with any_flag) is left to a caller."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) and not any_flag:
        return all(_switch(file, value, trail, any_flag) for value in test.values)
    if speaks_of_mode(test):
        return True
    if isinstance(test, ast.BoolOp):
        return any(_switch(file, value, trail, any_flag) for value in test.values)
    if isinstance(test, ast.UnaryOp):
        return _switch(file, test.operand, trail, any_flag)
    if isinstance(test, ast.Compare):
        if any(isinstance(operator, ast.Is | ast.IsNot) for operator in test.ops):
            return False
        return any(_switch(file, side, trail, any_flag) for side in (test.left, *test.comparators))
    if isinstance(test, ast.Name):
        return _flag(file, test.id, trail, any_flag)
    if isinstance(test, ast.Attribute):
        root = _chain(test)[1]
        if isinstance(root, ast.Name) and root.id != "self":
            return _flag(file, root.id, trail, any_flag)
        return any_flag and rate(file, test, trail) in ("gated", "unknown")
    return False


def _flag(file: SourceFile, name: str, trail: Trail, any_flag: bool) -> bool:
    """Whether a name in a condition is a parameter, or made from a switch; a counter is neither."""
    stores = binding(trail, name)
    if stores is None:
        return any_flag or "drop" in name
    return any(
        gated(file, store)
        or (
            value is not None
            and _names_apart(value, name)
            and _switch(file, value, store, any_flag)
        )
        for store, value in [(store, value_of(store)) for store in stores]
    )


def _names_apart(value: ast.expr, name: str) -> bool:
    """Whether a value does not hang on the name itself, as in a = a or b."""
    return all(not isinstance(n, ast.Name) or n.id != name for n in ast.walk(value))


def rate(file: SourceFile, node: ast.expr, trail: Trail, depth: int = _DEPTH) -> Verdict:
    """What a rate is: 0, a number that the mode does not change, one that it does, or unknown."""
    value = number(node)
    if value is not None:
        return "zero" if value == 0 else "constant"
    if speaks_of_mode(node):
        return "gated"
    if isinstance(node, ast.Name) and depth:
        return _variable(file, node.id, trail, depth)
    if isinstance(node, ast.Attribute) and depth:
        return _attribute(file, node, trail, depth)
    if isinstance(node, ast.IfExp):
        return _together(file, [node.body, node.orelse, node.test], trail, depth)
    if isinstance(node, ast.BinOp):
        return _together(file, [node.left, node.right], trail, depth)
    if isinstance(node, ast.Subscript):
        return rate(file, node.value, trail, depth)
    if isinstance(node, ast.Compare) or (isinstance(node, ast.Constant) and node.value is None):
        return "constant"
    plain = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords
    if plain and node.func.id in _PLAIN_CALLS:  # type: ignore[attr-defined]
        return _together(file, node.args, trail, depth)  # type: ignore[attr-defined]
    return "unknown"


def _together(file: SourceFile, nodes: list[ast.expr], trail: Trail, depth: int) -> Verdict:
    return _worst([rate(file, node, trail, depth) for node in nodes])


def _variable(file: SourceFile, name: str, trail: Trail, depth: int) -> Verdict:
    stores = binding(trail, name)
    if stores is None:
        return "unknown"
    return _assigned(file, stores, depth) if stores else "constant"


def _assigned(file: SourceFile, stores: list[Trail], depth: int) -> Verdict:
    values: list[Verdict] = []
    for store in stores:
        value = value_of(store)
        if value is None:
            return "unknown"
        if gated(file, store):
            return "gated"
        values.append(rate(file, value, store, depth - 1))
    return _worst(values)


def _worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict on what may be any of these."""
    order: tuple[Verdict, ...] = ("gated", "unknown", "constant")
    return next((verdict for verdict in order if verdict in verdicts), "zero")


def _chain(node: ast.expr) -> tuple[list[str], ast.expr]:
    """The attributes of a dotted expression, the last first, and what they are attributes of."""
    names = []
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        node = node.value
    return names, node


def _attribute(file: SourceFile, node: ast.Attribute, trail: Trail, depth: int) -> Verdict:
    chain, root = _chain(node)
    if not isinstance(root, ast.Name):
        return "unknown"
    if root.id != "self":
        return rate(file, root, trail, depth - 1)
    owner = trail.owner
    if owner is None:
        return "unknown"
    facts = file.facts(owner)
    if chain[-1] in facts.properties or chain[-1] in facts.methods:
        return "unknown"
    assigned = [a for name in {chain[-1], chain[0]} for a in facts.assigned.get(name, [])]
    if any(not _SETS_UP.match(a.method) for a in assigned):
        return "unknown"
    if re.search(rf"\b(?!{_SETTINGS}\b)\w+\.{re.escape(chain[0])}\s*=[^=]", file.text):
        return "unknown"  # something else writes it
    values = [number(a.value) for a in assigned if a.value is not None]
    return "zero" if values and all(value == 0 for value in values) else "constant"


def runs_ungated(file: SourceFile, trail: Trail, seen: frozenset[str] = frozenset()) -> bool:
    """Whether the method that a node stands in is run in every mode, as far as its class says.

    True for `forward`, and for what it calls without a question of the mode; a method that nobody
    here calls is left to its callers.
    """
    method, owner = trail.method, trail.owner
    if method is None or owner is None or gated(file, trail):
        return False
    name = getattr(method.node, "name", "")
    if _ENTRIES.match(name):
        return True
    return name not in seen and any(
        runs_ungated(file, call, seen | {name}) for call in file.facts(owner).calls.get(name, ())
    )
