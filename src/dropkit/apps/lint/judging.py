"""One file: read, judged, and mended where that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dropkit.apps.lint.walking import Found
from dropkit.apps.lint.writing import difference, write
from dropkit.errors import FolderError
from dropkit.inspection.source import Decoded, SourceFile, Unreadable, decode, parse, worth_parsing
from dropkit.inspection.source.notebooks import read_notebook
from dropkit.inspection.source.wording import is_test_file
from dropkit.records import Finding
from dropkit.rules.base import Rule
from dropkit.rules.linting import Linted, judged
from dropkit.rules.mending import mended


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with each file."""

    rules: tuple[Rule, ...]
    fix: bool = False
    """Mend what can be mended safely."""
    write: bool = False
    """Write it; without it, only show what would change."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one file."""

    linted: Linted
    fixed: tuple[Finding, ...] = ()
    patch: str = ""
    data: bytes = b""
    """The mended file; empty where nothing changed."""


def judge_file(found: Found, task: Task, allow: Sequence[str] = ()) -> Outcome | None:
    """Look at a file; None where no rule could find anything in it."""
    try:
        with open(found.path, "rb") as file:
            data = file.read()
    except OSError as error:
        return _unseen(f"{found.path}: cannot be read: {error.strerror}")
    try:
        return judge_bytes(data, found, task, allow)
    except RecursionError:
        return _unseen(f"{found.path}: it is nested too deeply")
    except Exception as error:
        # One file on which a rule breaks must not hide what is wrong in all the others.
        return _unseen(f"{found.path}: dropkit has a bug here, please report it: {error!r}")


def judge_bytes(data: bytes, found: Found, task: Task, allow: Sequence[str] = ()) -> Outcome | None:
    """Look at the bytes of a file."""
    if not worth_parsing(data) and b"dropkit:" not in data:
        return None
    if found.path.endswith(".ipynb"):
        return _notebook(data, found, task, allow)
    decoded = decode(data, found.path)
    if isinstance(decoded, Unreadable):
        return _unseen(str(decoded))
    file = parse(decoded.text, found.path, tests=is_test_file(found.within))
    if isinstance(file, Unreadable):
        return _unseen(str(file))
    if task.fix:
        return _mend(file, decoded, data, task, allow)
    return Outcome(judged(file, task.rules, allow))


def _mend(
    file: SourceFile, decoded: Decoded, data: bytes, task: Task, allow: Sequence[str]
) -> Outcome:
    result = mended(file, task.rules, allow)
    if result.text == file.text:
        return Outcome(result.left)
    try:
        if decoded.encoded(decoded.text) != data:
            raise FolderError(f"{file.path}: cannot be written as it was: {decoded.encoding}")
        fresh = decoded.encoded(result.text)
        if task.write:
            write(Path(file.path), fresh, data)
    except (FolderError, UnicodeError) as error:
        left = judged(file, task.rules, allow)
        return Outcome(replace(left, unseen=(*left.unseen, str(error))))
    patch = difference(file.path, file.text, result.text)
    return Outcome(result.left, result.fixed, patch, fresh)


def _notebook(data: bytes, found: Found, task: Task, allow: Sequence[str]) -> Outcome:
    file, broken = read_notebook(data, found.path)
    unseen = tuple(str(fault) for fault in broken)
    if isinstance(file, Unreadable):
        return _unseen(str(file))
    linted = judged(file, task.rules, allow)
    return Outcome(replace(linted, unseen=(*unseen, *linted.unseen)))


def _unseen(why: str) -> Outcome:
    return Outcome(Linted(unseen=(why,)))
