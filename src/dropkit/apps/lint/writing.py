"""Writes a file whole or not at all, and shows what would be written."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
from pathlib import Path

from dropkit.errors import FolderError


def write(path: Path, data: bytes, expected: bytes | None = None) -> None:
    """Put a file in place of another, with its permissions; links stay links.

    Raises:
        FolderError: it cannot be written, or is no longer what was `expected`.
    """
    target = Path(os.path.realpath(path))
    temporary = ""
    try:
        if target.exists() and not os.access(target, os.W_OK):
            raise FolderError(f"{path}: expected a file that may be written; it is read-only")
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        else:
            os.chmod(temporary, 0o666 & ~_mask())
        if expected is not None and target.read_bytes() != expected:
            raise FolderError(f"{path}: it changed while it was looked at; try again")
        os.replace(temporary, target)
        temporary = ""
    except OSError as error:
        raise FolderError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def difference(path: str, before: str, after: str) -> str:
    """What changes, as a patch."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), path, path
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
