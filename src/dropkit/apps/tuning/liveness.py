"""Who works on a trial, and whether that process still lives; no clock of a wall is asked.

On the same machine the operating system knows. Of other machines a worker shows its life by a
number that it raises; who watches it counts with its own monotonic clock how long the number has
stood still. So a clock that jumps, on either side, kills nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Literal

Life = Literal["alive", "dead", "unknown"]


@cache
def machine() -> str:
    """10 digits for this machine, until it starts anew, and the room in it of process numbers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:10]


def identity(pid: int | None = None) -> str:
    """A process of this machine, which no later one with the same number shares."""
    pid = os.getpid() if pid is None else pid
    return f"{machine()}|{pid}|{_started(pid)}"


def signature() -> str:
    """This process, with the name of its machine for a person."""
    return f"{socket.gethostname()}|{identity()}"


def life(process: str) -> Life:
    """Whether a process lives, by its identity or signature, where this machine can tell.

    >>> life(identity()), life(signature())
    ('alive', 'alive')
    """
    place, pid, started = process.split("|")[-3:]
    if place != machine():
        return "unknown"
    return "alive" if _exists(int(pid)) and _started(int(pid)) == started else "dead"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _started(pid: int) -> str:
    """When a process began, as the system counts; "gone" if it is, or only waits to be buried."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return _started_by_ps(pid)
    fields = stat[stat.rindex(")") + 2 :].split()  # a name may have brackets and spaces in it
    return "gone" if fields[0] in "ZX" else fields[19]


def _started_by_ps(pid: int) -> str:
    if os.path.isdir("/proc/self"):
        return "gone"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no ps: its number alone has to do
        return "?"
    return "-".join(ran.stdout.split()) or "gone"


class Watch:
    """How long each thing has stood still, by this process's monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[object, float]] = {}

    def still(self, thing: object, state: object) -> float:
        """Seconds for which `thing` has been seen in this state, and in no other."""
        now = time.monotonic()
        known, since = self._seen.get(thing, (None, now))
        if known != state:
            since = now
        self._seen[thing] = (state, since)
        return now - since
