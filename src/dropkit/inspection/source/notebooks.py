"""Code cells of a notebook as one text, so that a cell knows the imports of those before it."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from dropkit.inspection.source.decoding import Unreadable
from dropkit.inspection.source.file import Cell, SourceFile, cell_file, parse

_MAGIC = re.compile(r"^([ \t]*)(?:[%!?].*|[^#\n'\"=]*\?\??[ \t]*)$", re.MULTILINE)
_ASSIGNED_MAGIC = re.compile(r"^([ \t]*[\w, ]+= *)[%!].*$", re.MULTILINE)
_OTHER_LANGUAGES = re.compile(r"\s*%%(?!time|timeit|capture|prun|mprun|memit|debug)\w")


def read_notebook(data: bytes, path: str) -> tuple[SourceFile | Unreadable, list[Unreadable]]:
    """The code of a notebook, and the cells that do not parse; nothing is run."""
    try:
        book = json.loads(data)
        cells = book["cells"] if "cells" in book else book["worksheets"][0]["cells"]
        codes = [(number, _code(cell)) for number, cell in enumerate(cells, 1) if _runs(cell)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        return Unreadable(path, f"it is no notebook that can be read: {error}"), []
    texts: list[str] = []
    places: list[Cell] = []
    broken: list[Unreadable] = []
    line = 1
    for number, code in codes:
        at = cell_file(path, number)
        tame = code if _fault(code, at) is None else _tame(code)
        fault = _fault(tame, at)
        if fault:
            broken.append(fault)
            continue
        height = tame.count("\n") + 1
        places.append(Cell(number, line, line + height - 1))
        texts.append(tame + "\n")
        line += height
    return parse("".join(texts), path, places), broken


def _runs(cell: Any) -> bool:
    return cell.get("cell_type") == "code" and not _OTHER_LANGUAGES.match(_code(cell))


def _code(cell: Any) -> str:
    """The text of a cell, with newlines of one kind."""
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(source)
    return re.sub(r"\r\n?", "\n", text)


def _tame(code: str) -> str:
    """The cell with `pass` for each magic of IPython, line by line."""
    return _ASSIGNED_MAGIC.sub(r"\1None", _MAGIC.sub(r"\1pass", code))


def _fault(code: str, path: str) -> Unreadable | None:
    """What is wrong with a cell; an await at the top is fine in a notebook."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, path, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        return Unreadable(path, f"it does not parse: {error.msg}", error.lineno or 0)
    except (RecursionError, MemoryError, ValueError) as error:
        return Unreadable(path, f"it does not parse: {error}")
    return None
