"""Ctrl-C and SIGTERM, in two steps: the first asks to stop and save, the second aborts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether someone asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self.gentle = False
        """True while there is something to save: the first signal then only asks."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: remember the first, raise `KeyboardInterrupt` at the second."""
        if self.asked or not self.gentle:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def interrupts() -> Iterator[Stop]:
    """Route SIGINT and SIGTERM to a `Stop` for the length of a block."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return
    old = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
