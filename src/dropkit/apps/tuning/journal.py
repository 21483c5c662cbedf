"""A study in one file, to which processes of any number of machines append; no server is needed.

A record is one line, on the disk before anyone relies on it. A writer that is killed in the middle
of a line leaves a tail without an end; the next writer takes it away, and readers stop before it.

The lock is a symbolic link, whose making is atomic on every file system, NFS since version 2
among them. It points to the process that holds it, so that whoever waits for a dead one can tell,
and takes the lock over at once if it died on the same machine; of another machine, when the lock
has stood still for a while. Of less than 60 characters, a link is made and removed in microseconds
on ext4; a longer one costs as much as waiting for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dropkit.apps.tuning.liveness import Watch, identity, life
from dropkit.errors import StudyError

ABANDONED = 60.0
"""Seconds for which a lock of another machine stands still until it is taken for left behind;
it is held for milliseconds."""

_WAITS = (0.0005, 0.05)
"""Seconds between two looks at a lock that another one holds: the first, and the longest."""


class Lock:
    """Held by one process at a time, of all that see a file; let go by the death of its holder."""

    def __init__(self, file: Path, abandoned: float = ABANDONED) -> None:
        self._link = f"{file}.lock"
        self._abandoned = abandoned
        self._threads = threading.Lock()
        self._watch = Watch()
        self._turn = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for the length of a block."""
        with self._threads:
            self._turn += 1
            mine = f"{identity()}#{threading.get_native_id()}.{self._turn}"
            self._take(mine)
            try:
                yield
            finally:
                self._drop(mine)

    def _take(self, mine: str) -> None:
        wait = _WAITS[0]
        while True:
            with contextlib.suppress(FileExistsError):
                os.symlink(mine, self._link)
                return
            holder = self._holder()
            if holder is not None and self._is_left(holder):
                self._break(holder)
                continue
            time.sleep(wait)
            wait = min(2 * wait, _WAITS[1])

    def _drop(self, mine: str) -> None:
        if self._holder() == mine:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._link)

    def _holder(self) -> str | None:
        try:
            return os.readlink(self._link)
        except FileNotFoundError:
            return None

    def _is_left(self, holder: str) -> bool:
        lives = life(holder.rpartition("#")[0])
        if lives != "unknown":
            return lives == "dead"
        return self._watch.still(self._link, holder) > self._abandoned

    def _break(self, holder: str) -> None:
        """Take away a dead holder's link, one process of this machine at a time.

        Two that saw the same dead holder would else take away each other's fresh link.
        """
        import fcntl

        with open(f"{self._link}.breaking", "ab") as turn:
            fcntl.lockf(turn, fcntl.LOCK_EX)  # the kernel lets go of it when a process dies
            if self._holder() == holder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._link)


class Journal:
    """The lines of a study, as Optuna's journal storage reads and appends them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock(file)
        self._count, self._offset = 0, 0
        """How many records were read, and where the next one begins."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab"):
            pass

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on."""
        if log_number_from != self._count:
            self._count, self._offset = 0, 0
        with open(self.file, "rb") as file:
            file.seek(self._offset)
            for line in file.read().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    return  # is being written, or its writer died
                number, record = self._count, self._parsed(line)
                self._count += 1
                self._offset += len(line)
                if number >= log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, all or none; they are on the disk when this returns."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with self._lock.held():
                self._append(lines.encode())
        except OSError as error:
            raise _unwritten(self.file, error) from error

    def _append(self, content: bytes) -> None:
        handle = os.open(self.file, os.O_RDWR)
        try:
            end = _whole(handle)
            try:
                os.lseek(handle, end, os.SEEK_SET)
                _write(handle, content)
                os.fsync(handle)
            except BaseException:  # a full disk, Ctrl-C: half a line is worse than none
                os.ftruncate(handle, end)
                raise
        finally:
            os.close(handle)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise StudyError(
                f"{self.file} is no journal of a study: line {self._count + 1} is "
                f"{line[:60].decode('utf-8', 'replace')!r}. Name another file, or put back a copy"
            )
        return found


def _whole(handle: int) -> int:
    """The length of a file's whole lines, to which it is cut if there is more."""
    size = os.fstat(handle).st_size
    end, step = size, 4096
    while end > 0:
        start = max(0, end - step)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(handle, end)
    return end


def _write(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def _unwritten(file: Path, error: OSError) -> StudyError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some space" if full else "see that it can be written"
    return StudyError(
        f"cannot write to the study {file}: {(error.strerror or str(error)).lower()}. All that was "
        f"told before is kept; {hint}, and continue with resume"
    )
