"""All files of a run, in one process or in several."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dropkit.apps.lint.judging import Outcome, Task, judge_file
from dropkit.apps.lint.patterns import Patterns
from dropkit.apps.lint.settings import Settings
from dropkit.apps.lint.walking import Found

_MANY = 1500
"""Files from which on a second process pays: it starts in the time that hundreds take."""
_AT_ONCE = 50
"""Files that a process is handed at a time."""

Work = tuple[Found, tuple[str, ...]]


class Allowing:
    """The findings that settings allow, file by file."""

    def __init__(self, settings: Settings) -> None:
        self._root = os.path.abspath(settings.root)
        self._pairs = [(Patterns([pattern]), rules) for pattern, rules in settings.per_file_allow]

    def of(self, path: str) -> tuple[str, ...]:
        """Names of rules whose findings are fine in a file."""
        if not self._pairs:
            return ()
        inside = os.path.relpath(os.path.abspath(path), self._root).replace(os.sep, "/")
        folders = [inside.rsplit("/", depth)[0] for depth in range(1, inside.count("/") + 1)]
        return tuple(
            rule
            for patterns, rules in self._pairs
            if patterns.verdict(inside, False) or any(patterns.verdict(f, True) for f in folders)
            for rule in rules
        )


def judge_all(work: Sequence[Work], task: Task, jobs: int = 0) -> list[Outcome]:
    """What came of each file in which any rule could find something, in order.

    `jobs`: how many processes; 0: as many as pay.
    """
    processes = jobs or (_cores() if len(work) >= _MANY else 1)
    if processes > 1 and sys.platform == "linux":
        found = _shared(work, task, processes)
    else:
        with _no_garbage():
            found = [judge_file(file, task, allow) for file, allow in work]
    return [outcome for outcome in found if outcome is not None]


def _shared(work: Sequence[Work], task: Task, processes: int) -> list[Outcome | None]:
    import multiprocessing
    from functools import partial

    context = multiprocessing.get_context("fork")  # nothing here has threads
    with context.Pool(processes, _begin) as pool:
        return pool.map(partial(_judge, task), work, _AT_ONCE)


def _begin() -> None:
    """In each process: no search for cycles, and an interrupt is the first one's to handle."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _judge(task: Task, work: Work) -> Outcome | None:
    return judge_file(work[0], task, work[1])


def _cores() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """No search for cycles: trees are large and have none, and looking takes a third of the run."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
