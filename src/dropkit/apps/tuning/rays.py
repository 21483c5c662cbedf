"""Workers as tasks of a Ray cluster. Nodes may come and go: what they leave undone is made again.

Ray starts workers and tells of their deaths; it keeps nothing. The study stands in its storage,
which all nodes have to reach, and is the same that other engines work on.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from dropkit.apps.tuning.ledger import Ledger
from dropkit.apps.tuning.serving import Shift, Work, give_up_if_all_fail
from dropkit.apps.tuning.study import Register
from dropkit.errors import DropkitError, MissingExtraError, StudyError

_LOOK = 0.5
"""Seconds between two looks at the study."""

_IN_VAIN = 8
"""Tasks that died in a row, while no trial ended, until the search is given up."""


def require_ray() -> None:
    """Raise `MissingExtraError` where Ray is not installed."""
    if find_spec("ray") is None:
        raise MissingExtraError(
            "engine='ray' needs the package ray, which is not installed; try: pip install "
            '"dropkit[ray]"'
        )


class Fleet:
    """The workers of one search on a cluster."""

    def __init__(
        self, work: Work, register: Register, size: int | None, address: str | None
    ) -> None:
        require_ray()
        self._work, self._register = work, register
        self._size, self._address = size, address
        self._deadline = time.monotonic() + work.left
        self._tasks: list[Any] = []
        self._in_vain, self._ended = 0, -1
        """Deaths in a row, and how many trials had ended at the last one."""

    def serve(self, stop: Callable[[], bool], look: Callable[[], object]) -> None:
        """Run until all is done, the time is up, or someone asks to stop; `look` now and then."""
        import ray

        mine = not ray.is_initialized()
        if mine:
            _join(self._address)
        try:
            self._serve(stop, look)
        finally:
            for task in self._tasks:
                ray.cancel(task, force=True)  # what it was at is found to be left
            if mine:
                ray.shutdown()

    def _serve(self, stop: Callable[[], bool], look: Callable[[], object]) -> None:
        import ray

        run = ray.remote(max_retries=0)(_run)  # again by us, who know whether there is need
        while True:
            ledger = self._register.ledger(self._work.wanted)
            look()
            late = time.monotonic() > self._deadline
            if ledger.over or stop() or (late and not ledger.running):
                return
            if not late:
                self._fill(ledger, run)
            done, self._tasks = ray.wait(self._tasks, num_returns=1, timeout=_LOOK)
            for task in done:
                self._hear(task, ledger)
                self._register.bury(self._work.wanted)
                give_up_if_all_fail(self._work, self._register)
            if done and not self._tasks and late:
                return

    def _fill(self, ledger: Ledger, run: Any) -> None:
        """As many tasks as were asked for, or as there are processors now."""
        import ray

        there: Any = ray
        size = self._size or int(there.cluster_resources().get("CPU", 1))
        left = self._deadline - time.monotonic()
        open_ones = self._work.wanted - ledger.ended
        while len(self._tasks) < min(size, open_ones):
            self._tasks.append(run.remote(replace(self._work, left=left), list(sys.path)))

    def _hear(self, task: Any, ledger: Ledger) -> None:
        """What became of a task that is over."""
        import ray

        try:
            ray.get(task)
            return
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DropkitError):
                raise error.cause from None
            raise StudyError(f"a worker broke down:\n{error}") from error
        except ray.exceptions.RayError as error:  # its node, its process or its memory is gone
            self._in_vain = self._in_vain + 1 if ledger.ended == self._ended else 0
            self._ended = ledger.ended
            if self._in_vain >= _IN_VAIN:
                raise StudyError(
                    f"{_IN_VAIN} tasks of Ray died in a row, the last one so: {error}. All that "
                    "was told before is kept; continue with resume"
                ) from error


def _join(address: str | None) -> None:
    """Join a cluster, or start one here."""
    import ray

    _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _absent(address, error) from error


def _reach(address: str | None) -> None:
    """Raise unless someone listens at an address: Ray itself waits for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and "/" not in host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10.0).close()
        except OSError as error:
            raise _absent(address, error) from error


def _absent(address: str | None, error: Exception) -> StudyError:
    return StudyError(
        f"there is no cluster of Ray at {address}: {error}. Expected the address of its head, such "
        "as 10.0.0.1:6379, or auto on one of its nodes"
    )


def _run(work: Work, path: list[str]) -> None:
    """A task: a worker in Ray's process, or beside it where a trial may have to be killed."""
    sys.path.extend(place for place in path if place not in sys.path)
    if work.timeout is None:
        with contextlib.closing(Register(work.terms)) as register:
            Shift(work, register).serve()
        return
    from dropkit.apps.tuning.workers import Crew

    with contextlib.closing(Register(work.terms)) as register:
        Crew(work, register, 1).serve(lambda: False, lambda: None)
