"""One file of source, read and never run: its text, its tree, and what rules ask of it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from dropkit.inspection.source import calls, modes, wording
from dropkit.inspection.source.classes import Certainty, Classes, ClassFacts
from dropkit.inspection.source.decoding import Lines, Unreadable
from dropkit.inspection.source.names import Names, locals_of
from dropkit.inspection.source.trails import SCOPES, Trail, walk
from dropkit.inspection.source.words import HotLines
from dropkit.records import Place

_DROPS = {*calls.FUNCTIONAL, *calls.ATTENTION, *calls.MODULES}


class Spot(NamedTuple):
    """A call whose full name is known, or a part of the file of another kind, with its trail."""

    name: str
    call: ast.Call
    trail: Trail


class Cell(NamedTuple):
    """A cell of a notebook, as a stretch of lines of the text that all cells make."""

    number: int
    first: int
    last: int


def cell_file(path: str, number: int) -> str:
    """How a place in a cell of a notebook names its file."""
    return f"{path}:cell {number}"


class SourceFile:
    """A file that parses."""

    def __init__(
        self,
        path: str,
        text: str,
        tree: ast.Module,
        cells: Sequence[Cell] = (),
        tests: bool = False,
    ) -> None:
        self.path, self.text, self.tree = path, text, tree
        self.cells = tuple(cells)
        self.lines = Lines(text)
        self._locals: dict[ast.AST, frozenset[str]] = {}
        self.names = Names()
        self.is_test = tests or wording.is_test_file(path)

    @cached_property
    def trails(self) -> tuple[Trail, ...]:
        """All nodes that reach over a line with a word that matters."""
        hot = HotLines(self.text, self.lines.starts)
        found = tuple(walk(self.tree, hot))
        for trail in found:
            if isinstance(trail.node, ast.Import | ast.ImportFrom):
                self.names.take(trail.node)
        own = {name for name in self.names.own_words_for(_DROPS) if "ropout" not in name}
        if not own:
            return found
        hot.add(own)
        return tuple(walk(self.tree, hot))

    @cached_property
    def spots(self) -> tuple[Spot, ...]:
        """All calls of torch, flash-attention and xformers."""
        found = []
        for trail in self.trails:
            if isinstance(trail.node, ast.Call):
                name = self.names.of(trail.node.func)
                if _of_torch(name) and not self._shadowed(trail.node.func, trail):
                    found.append(Spot(name, trail.node, trail))
        return tuple(found)

    def calls_of(self, table: Mapping[str, calls.Signature]) -> list[tuple[Spot, calls.Signature]]:
        """The calls of what is in a table."""
        return [(spot, table[spot.name]) for spot in self.spots if spot.name in table]

    def _shadowed(self, function: ast.AST, trail: Trail) -> bool:
        """Whether a name that was imported is another thing here."""
        while isinstance(function, ast.Attribute):
            function = function.value
        if not isinstance(function, ast.Name) or function.id not in self.names.full:
            return False
        around = (step.node for step in trail.ways() if isinstance(step.node, SCOPES))
        return any(function.id in self._locals_of(node) for node in around)

    def _locals_of(self, function: ast.AST) -> frozenset[str]:
        if function not in self._locals:
            self._locals[function] = locals_of(function)
        return self._locals[function]

    @cached_property
    def _classes(self) -> Classes:
        return Classes(self.tree, self.names)

    def facts(self, owner: Trail) -> ClassFacts:
        """What stands in a class."""
        return self._classes.facts(owner)

    def module(self, trail: Trail) -> Certainty:
        """Whether a node stands in a method of a module of torch."""
        owner = trail.owner
        return "no" if owner is None else self._classes.is_module(owner.node)  # type: ignore[arg-type]

    def gated(self, trail: Trail) -> bool:
        """Whether the mode is asked for before a node is reached, or might be."""
        return modes.gated(self, trail)

    def rate(self, node: ast.expr, trail: Trail) -> modes.Verdict:
        """What a rate is: 0, a number that the mode does not change, one that it does, unknown."""
        return modes.rate(self, node, trail)

    def acts_in_eval(self, trail: Trail) -> bool:
        """Whether a node is surely run in evaluation too, and nothing says that it is meant."""
        return (
            not self.is_test
            and self.module(trail) != "no"
            and not self.meant(trail)
            and modes.runs_ungated(self, trail)
        )

    def meant(self, trail: Trail) -> bool:
        """Whether names or a comment say that what stands here is as it should be."""
        method = trail.method
        name = getattr(method.node, "name", "") if method else ""
        if wording.named_on_purpose(trail.name) or wording.named_for_training(name):
            return True
        node = trail.statement or trail.node
        first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", None) or 1
        return wording.said_on_purpose([self.lines[n] for n in range(first - 2, last + 1)])

    def line_of(self, node: ast.AST) -> str:
        """The line on which a node begins, without the blanks around it."""
        return self.lines[getattr(node, "lineno", 1)].strip()

    def place(self, trail: Trail, node: ast.AST | None = None) -> Place:
        """Where a node stands; in a notebook the file is named with the cell."""
        at = node or trail.node
        line = getattr(at, "lineno", 1)
        start = self.lines.offset(line, getattr(at, "col_offset", 0))
        return self.place_at(line, start - self.lines.starts[line - 1] + 1, trail.name)

    def place_at(self, line: int, column: int, function: str = "") -> Place:
        """The place of a line of the text."""
        for cell in self.cells:
            if cell.first <= line <= cell.last:
                inside = line - cell.first + 1
                return Place(cell_file(self.path, cell.number), inside, function, column)
        return Place(self.path, line, function, column)

    def line_at(self, place: Place) -> int:
        """The line of the text that a place is."""
        for cell in self.cells:
            if cell_file(self.path, cell.number) == place.file:
                return cell.first + place.line - 1
        return place.line

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node begins and ends in the text, in characters."""
        last = node.end_lineno or node.lineno
        return (
            self.lines.offset(node.lineno, node.col_offset),
            self.lines.offset(last, node.end_col_offset or 0),
        )

    def written(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node as it stands."""
        start, end = self.span(node)
        return self.text[start:end]


def _of_torch(name: str) -> bool:
    """Whether rules may ask for a call of this name."""
    return name.startswith(("torch.", "flash_attn.", "xformers."))


def parse(
    text: str, path: str, cells: Sequence[Cell] = (), *, tests: bool = False
) -> SourceFile | Unreadable:
    """Read the text of a file; it is never run. `tests`: it is known to be one of tests."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings: the file's own affair
            tree = ast.parse(text)
    except SyntaxError as error:
        return Unreadable(path, f"it does not parse: {error.msg}", error.lineno or 0)
    except (RecursionError, MemoryError):
        return Unreadable(path, "it is nested too deeply for Python's parser")
    except ValueError as error:  # null bytes, lone surrogates
        return Unreadable(path, f"it does not parse: {error}")
    return SourceFile(path, text, tree, cells, tests)
