"""Writing so that a crash or a full disk leaves either the old or the new, never half of either."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dropkit.errors import FolderError


def write_file(path: Path, content: bytes) -> None:
    """Replace a file by `content`, all or nothing.

    Raises `FolderError` if the disk is full or the place may not be written; the old file
    then survives.
    """
    path = path.resolve()
    with explained(path), sibling_file(path) as temporary:
        write_synced(temporary, content)
        os.replace(temporary, path)
        _sync_folder(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Replace a folder by what `fill` writes into a fresh one, all or nothing.

    Raises `FolderError` if the disk is full or the place may not be written; the old folder
    then survives.
    """
    path = path.resolve()  # behind a link, and not the link, is what is replaced
    fresh, previous = _beside(path, "saving"), previous_of(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        _remove(fresh)
        try:
            fresh.mkdir()
            fill(fresh)
            _sync_tree(fresh)
            _swap(fresh, path, previous)
        except BaseException:
            with contextlib.suppress(OSError):
                _remove(fresh)
            raise


def recover(path: Path) -> None:
    """Put back the folder that a crash between two renames left under its spare name."""
    path = path.resolve()
    previous = previous_of(path)
    if not os.path.lexists(previous):
        return
    if os.path.lexists(path):
        _remove(previous)
    else:
        os.rename(previous, path)


def previous_of(path: Path) -> Path:
    """The spare name under which a folder stands while it is being replaced."""
    return _beside(path.resolve(), "previous")


def check_writable(path: Path) -> None:
    """Raise `FolderError` unless something could be created at `path`; leaves nothing behind."""
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise FolderError(
            f"{path} is the folder that this command runs in, or one above it; a model folder is "
            "replaced as a whole. Name a folder of its own."
        )
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    with explained(path):
        os.rmdir(tempfile.mkdtemp(prefix=".dropkit-", dir=parent))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one `FolderError` that names the place."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise FolderError(
            f"cannot write to {path}: {why}. What was there before is untouched; "
            "free some space or choose another place."
        ) from error


def _beside(path: Path, purpose: str) -> Path:
    return path.with_name(f".{path.name}.{purpose}")


def _swap(fresh: Path, path: Path, previous: Path) -> None:
    """Two renames; after a crash between them, `recover` finds the old folder's spare name."""
    if not os.path.lexists(path):
        os.rename(fresh, path)
    else:
        os.rename(path, previous)
        try:
            os.rename(fresh, path)
        except BaseException:
            os.rename(previous, path)
            raise
    _sync_folder(path.parent)
    _remove(previous)


@contextlib.contextmanager
def sibling_file(path: Path) -> Iterator[Path]:
    """A name beside `path`, on the same disk so that a rename is atomic; removed at the end."""
    temporary = _beside(path, f"{os.getpid()}.saving")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _sync_tree(entry)
        else:
            with open(entry, "rb+") as handle:
                os.fsync(handle.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are durable enough
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
