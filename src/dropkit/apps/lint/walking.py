"""Finds the files to lint below what was named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dropkit.apps.lint.patterns import Patterns

SKIPPED = frozenset(
    {
        ".bzr", ".direnv", ".eggs", ".git", ".hg", ".ipynb_checkpoints", ".mypy_cache", ".nox",
        ".pants.d", ".pytest_cache", ".pytype", ".ruff_cache", ".svn", ".tox", ".venv", ".vscode",
        "__pycache__", "__pypackages__", "_build", "buck-out", "build", "dist", "node_modules",
        "site-packages", "venv",
    }
)  # fmt: skip
"""Folders that hold no source of the project's own; one that is named itself is looked at."""

ENDINGS = (".py", ".pyi", ".ipynb")


class Found(NamedTuple):
    """A file to look at."""

    path: str
    within: str
    """Its path from the folder that was named; with what stands above, it may be one of tests."""


class Walk:
    """Walks folders in order of names; keeps count of what it could not enter."""

    def __init__(self, exclude: Iterable[str], root: Path, *, gitignore: bool = True) -> None:
        self._exclude, self._root = Patterns(exclude), os.path.abspath(root)
        self._gitignore = gitignore
        self.unseen: list[str] = []
        self._seen: set[str] = set()

    def files(self, paths: Iterable[Path]) -> Iterator[Found]:
        """Each file once: those that are named, whatever they are called, and those below."""
        for path in paths:
            if self._excluded(os.path.abspath(path)):
                continue
            if path.is_dir():
                yield from self._below(str(path))
            elif path.exists():
                yield from self._once(str(path), path.name)
            else:
                self.unseen.append(f"{path}: there is no such file")

    def _once(self, path: str, within: str) -> Iterator[Found]:
        key = os.path.realpath(path)
        if key not in self._seen:
            self._seen.add(key)
            yield Found(path, within)

    def _below(self, top: str) -> Iterator[Found]:
        stack = [(top, _ignored_above(top) if self._gitignore else [])]
        base = os.path.join(top, "")
        while stack:
            folder, rules = stack.pop()
            entries = self._entries(folder)
            if self._gitignore and any(entry.name == ".gitignore" for entry in entries):
                rules = [*rules, (os.path.abspath(folder), _lines(folder))]
            folders = []
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                if not is_folder and not entry.name.endswith(ENDINGS):
                    continue
                if self._left_out(entry, is_folder, rules):
                    continue
                if is_folder:
                    folders.append((entry.path, rules))
                elif entry.is_file():
                    yield from self._once(entry.path, entry.path.removeprefix(base))
            stack += reversed(folders)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unseen.append(f"{folder}: cannot be entered: {error.strerror}")
            return []

    def _left_out(
        self, entry: os.DirEntry[str], is_folder: bool, rules: list[tuple[str, Patterns]]
    ) -> bool:
        if is_folder and entry.name in SKIPPED:
            return True
        if is_folder and os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            return True  # an environment, whatever its name
        path = os.path.abspath(entry.path)
        if _verdict(self._root, self._exclude, path, is_folder):
            return True
        for base, patterns in reversed(rules):
            verdict = _verdict(base, patterns, path, is_folder)
            if verdict is not None:
                return verdict
        return False

    def _excluded(self, path: str) -> bool:
        """Whether a path that is named itself is excluded, or stands in a folder that is."""
        if _verdict(self._root, self._exclude, path, os.path.isdir(path)):
            return True
        parent = os.path.dirname(path)
        return len(parent) > len(self._root) and self._excluded(parent)


def _verdict(base: str, patterns: Patterns, path: str, is_folder: bool) -> bool | None:
    """What patterns of a folder say of a path below it; None: nothing."""
    base = os.path.join(base, "")
    if not patterns or not path.startswith(base):
        return None
    return patterns.verdict(path.removeprefix(base).replace(os.sep, "/"), is_folder)


def _ignored_above(top: str) -> list[tuple[str, Patterns]]:
    """The .gitignore files from the top of the repository down to above a folder."""
    here, found = os.path.abspath(top), []
    while not os.path.exists(os.path.join(here, ".git")):
        parent = os.path.dirname(here)
        if parent == here:
            return []
        here = parent
        if os.path.exists(os.path.join(here, ".gitignore")):
            found.append((here, _lines(here)))
    return found[::-1]


def _lines(folder: str) -> Patterns:
    try:
        text = Path(folder, ".gitignore").read_text("utf-8", "replace")
    except OSError:
        return Patterns([])
    return Patterns(text.splitlines())
