"""What a name in a file means: `F.dropout` is `torch.nn.functional.dropout`."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from dropkit.inspection.source.trails import SCOPES

_STARS = {"torch.nn": "torch.nn", "torch.nn.functional": "torch.nn.functional", "torch": "torch"}
_KNOWN_BY_STAR = {"nn": "torch.nn", "F": "torch.nn.functional", "torch": "torch"}
"""What fastai and courses put into scope with a star."""


class Names:
    """The imports of a file."""

    def __init__(self) -> None:
        self.full: dict[str, str] = {}
        self._stars: list[str] = []

    def take(self, node: ast.Import | ast.ImportFrom) -> None:
        """Read an import; a name that is imported as two things means neither."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                self._bind(alias.asname or top, alias.name if alias.asname else top)
            return
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name == "*":
                self._stars.append(module)
            else:
                self._bind(alias.asname or alias.name, f"{module}.{alias.name}")

    def _bind(self, name: str, meaning: str) -> None:
        known = self.full.setdefault(name, meaning)
        if known != meaning and _told_apart(known, meaning):
            self.full[name] = "?"

    def of(self, node: ast.AST) -> str:
        """The full name of a name or a dotted name; empty where it is neither.

        What is not imported keeps its own name, with a dot before it.
        """
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self._top(node.id), *reversed(parts)])

    def _top(self, name: str) -> str:
        if name in self.full:
            return self.full[name]
        for star in self._stars:
            if star in _STARS and name[:1].isupper() == (star == "torch.nn"):
                return f"{star}.{name}"
            if star.startswith(("fastai", "fastbook")) and name in _KNOWN_BY_STAR:
                return _KNOWN_BY_STAR[name]
        return f".{name}"

    def own_words_for(self, wanted: Iterable[str]) -> set[str]:
        """The names under which the file knows any of these."""
        asked = set(wanted)
        return {name for name, meaning in self.full.items() if meaning in asked}


def _told_apart(one: str, other: str) -> bool:
    """Whether it matters that a name has two meanings: torch's, and another."""
    return one.startswith("torch.") or other.startswith("torch.")


def locals_of(function: ast.AST) -> frozenset[str]:
    """The parameters and variables of a function, and of those in it."""
    stored = {
        inner.id
        for inner in ast.walk(function)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
    }
    own = parameters(function) if isinstance(function, SCOPES) else set()
    return frozenset(stored | own)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """The names of all that a function takes."""
    args = function.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return {arg.arg for arg in named if arg is not None}
