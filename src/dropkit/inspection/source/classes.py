"""Which classes are modules of torch, and what they assign and call."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

from dropkit.inspection.source.names import Names
from dropkit.inspection.source.trails import FUNCTIONS, Function, Trail, blocks, walk_from

Certainty = Literal["yes", "likely", "no"]

_MODULE = {"Module", "LightningModule", "ScriptModule"}
_NO_MODULE = {
    "object", "ABC", "Dataset", "IterableDataset", "DataLoader", "Function", "Enum", "Protocol",
    "TestCase", "NamedTuple", "Exception", "dict", "list", "tuple", "Optimizer", "Sampler",
    "Transform", "BaseTransform", "Callback", "Trainer", "Generic", "Distribution", "TypedDict",
    "TorchDispatchMode", "TorchFunctionMode", "Tensor",
}  # fmt: skip
"""Names of classes from elsewhere that are none, though they may have a `forward`."""


class Assigned(NamedTuple):
    """An assignment to an attribute of any object."""

    method: str
    value: ast.expr | None
    """None: it is unpacked, deleted or counted up."""
    trail: Trail


class ClassFacts:
    """What stands in one class."""

    def __init__(self, trail: Trail) -> None:
        assert isinstance(trail.node, ast.ClassDef)
        self.trail, self.node = trail, trail.node

    @cached_property
    def methods(self) -> Mapping[str, Function]:
        """Its functions by name."""
        return {node.name: node for node in self.node.body if isinstance(node, FUNCTIONS)}

    @cached_property
    def trails(self) -> tuple[Trail, ...]:
        """All that stands in it."""
        return tuple(walk_from(self.trail))

    @cached_property
    def assigned(self) -> Mapping[str, list[Assigned]]:
        """By the name of the attribute: `self.p = 1` and `self.drop.p = 1` both assign p."""
        found: dict[str, list[Assigned]] = {}
        for trail in self.trails:
            node = trail.node
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                method = trail.method
                name = getattr(method.node, "name", "") if method else ""
                found.setdefault(node.attr, []).append(Assigned(name, _value(trail), trail))
        return found

    @cached_property
    def calls(self) -> Mapping[str, list[Trail]]:
        """By name, where it calls or mentions its own methods."""
        found: dict[str, list[Trail]] = {}
        for trail in self.trails:
            node = trail.node
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and on_self(node):
                found.setdefault(node.attr, []).append(trail)
        return found

    @cached_property
    def properties(self) -> frozenset[str]:
        """Names of methods that are read as attributes."""
        return frozenset(
            name
            for name, node in self.methods.items()
            if any("property" in ast.unparse(mark) for mark in node.decorator_list)
        )


def on_self(node: ast.Attribute) -> bool:
    """Whether it is `self.name`."""
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def _value(trail: Trail) -> ast.expr | None:
    up = trail.up.node if trail.up else None
    if isinstance(up, ast.Assign | ast.AnnAssign):
        return up.value
    return None


class Classes:
    """The classes of a file, and which of them are modules."""

    def __init__(self, tree: ast.Module, names: Names) -> None:
        self._names = names
        self._nodes: dict[str, ast.ClassDef] = {}
        self._facts: dict[ast.ClassDef, ClassFacts] = {}
        for node in _shallow(tree.body):
            if isinstance(node, ast.ClassDef):
                self._nodes[node.name] = node

    def facts(self, trail: Trail) -> ClassFacts:
        """What stands in a class, gathered once."""
        assert isinstance(trail.node, ast.ClassDef)
        if trail.node not in self._facts:
            self._facts[trail.node] = ClassFacts(trail)
        return self._facts[trail.node]

    def is_module(self, node: ast.ClassDef, seen: frozenset[str] = frozenset()) -> Certainty:
        """Whether a class is a module of torch, as far as this file says."""
        answers = [self._base(base, seen | {node.name}) for base in node.bases]
        if "yes" in answers:
            return "yes"
        runs = any(isinstance(part, FUNCTIONS) and part.name == "forward" for part in node.body)
        return "likely" if "likely" in answers and (runs or seen) else "no"

    def _base(self, base: ast.expr, seen: frozenset[str]) -> Certainty:
        if isinstance(base, ast.Subscript):
            base = base.value
        name = self._names.of(base)
        last = name.rpartition(".")[2]
        if name.startswith(".") and last in self._nodes:
            return "no" if last in seen else self.is_module(self._nodes[last], seen)
        if name.startswith("torch.nn.") or last in _MODULE:
            return "yes"
        return "no" if last in _NO_MODULE or not name else "likely"


def _shallow(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements, and those in an if, a try or a with among them; not those in functions."""
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With):
            found += [inner for block in blocks(node) for inner in _shallow(block)]
    return found
