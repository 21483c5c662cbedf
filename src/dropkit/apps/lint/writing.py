"""Writes a file whole or not at all, and shows what would be written."""

from __future__ import annotations

import difflib
import os
import shutil
from pathlib import Path

from dropkit.apps.saving import sibling_file, write_synced
from dropkit.errors import FolderError


def write(path: Path, data: bytes, expected: bytes | None = None) -> None:
    """Put a file in place of another, with its permissions; links stay links.

    Raises:
        FolderError: it cannot be written, or is no longer what was `expected`.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not os.access(target, os.W_OK):
            raise FolderError(f"{path}: expected a file that may be written; it is read-only")
        with sibling_file(target) as temporary:
            write_synced(temporary, data)
            if target.exists():
                shutil.copymode(target, temporary)
            if expected is not None and target.read_bytes() != expected:
                raise FolderError(f"{path}: it changed while it was looked at; try again")
            os.replace(temporary, target)
    except OSError as error:
        raise FolderError(f"{path}: cannot be written: {error.strerror}") from None


def difference(path: str, before: str, after: str) -> str:
    """What changes, as a patch."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), path, path
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
