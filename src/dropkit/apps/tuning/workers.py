"""Workers in processes of their own, on this machine: started, watched, killed, started again.

A trial that takes too long can only be ended by ending its process; so with a timeout, one worker
too has a process of its own. A worker whose parent dies ends itself: nothing goes on unseen.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from dropkit.apps.clock import words
from dropkit.apps.tuning.ledger import Ledger
from dropkit.apps.tuning.serving import Shift, Work, give_up_if_all_fail
from dropkit.apps.tuning.study import Claim, Register
from dropkit.errors import DropkitError, SettingError, StudyError

_WAIT, _LOOK = 0.25, 2.0
"""Seconds for which workers are listened to, and after which the study is looked at without news:
others may work on it."""

_STILLBORN = 3
"""Workers that died in a row before they took a trial, until the search is given up."""


def check_travels(objective: object) -> None:
    """Raise `SettingError` unless other processes can be given the objective."""
    try:
        pickle.dumps(objective)
    except Exception as error:  # whatever an object's own pickling may raise
        raise SettingError(
            "objective: expected a function at the top level of a module, which another process "
            f"can import; got {objective!r} ({error}). Or run it here: workers=1 and no timeout"
        ) from None


class Crew:
    """The workers of one search on this machine."""

    def __init__(self, work: Work, register: Register, size: int) -> None:
        self._work, self._register, self._size = work, register, size
        self._deadline = time.monotonic() + work.left
        self._hands: list[_Hand] = []
        self._stillborn = 0
        self._context = multiprocessing.get_context("spawn")

    def serve(self, stop: Callable[[], bool], look: Callable[[], object]) -> None:
        """Run until all is done, the time is up, or someone asks to stop; `look` now and then."""
        check_travels(self._work)
        try:
            looked, ledger = -math.inf, self._register.ledger(self._work.wanted)
            news = True
            while True:
                asked = stop() or time.monotonic() > self._deadline
                if news or time.monotonic() - looked > _LOOK:
                    ledger = self._register.ledger(self._work.wanted)
                    looked = time.monotonic()
                    look()
                if not self._hands and (asked or ledger.over):
                    return
                if asked:
                    for hand in self._hands:
                        hand.ask_to_stop()
                elif not ledger.over:
                    self._fill(ledger)
                news = self._hear()
                self._end_the_slow()
        finally:
            for hand in self._hands:
                hand.kill()

    def _fill(self, ledger: Ledger) -> None:
        """As many workers as were asked for, and no more than there are trials left to end."""
        left = self._deadline - time.monotonic()
        while len(self._hands) < min(self._size, self._work.wanted - ledger.ended):
            self._hands.append(_Hand(self._context, replace(self._work, left=left)))

    def _hear(self) -> bool:
        """Wait for news of the workers, and take note of it; whether there was any."""
        signs: list[Any] = [hand.process.sentinel for hand in self._hands]
        signs += [hand.line for hand in self._hands]
        if not signs:
            time.sleep(_WAIT)
        news = wait(signs, _WAIT)
        for hand in list(self._hands):
            hand.listen()
            if not hand.process.is_alive():
                hand.listen()
                self._bury(hand)
        return bool(news)

    def _bury(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        hand.process.join()
        hand.line.close()
        if hand.error is not None:
            raise hand.error
        if hand.process.exitcode == 0:
            return
        self._register.bury(self._work.wanted)
        give_up_if_all_fail(self._work, self._register)
        self._stillborn = 0 if hand.began else self._stillborn + 1
        if self._stillborn >= _STILLBORN:
            raise StudyError(
                f"{_STILLBORN} workers died before they began a trial, the last one with exit code "
                f"{hand.process.exitcode}. See that the objective can be imported, and that there "
                "is memory for it; continue with resume"
            )

    def _end_the_slow(self) -> None:
        """Kill the workers whose trials have taken too long; these trials have failed."""
        limit = self._work.timeout or math.inf
        for hand in list(self._hands):
            if hand.attempt is not None and time.monotonic() - hand.since > limit:
                hand.kill()
                self._hands.remove(hand)
                claim = Claim(hand.attempt, -1, {}, 0, False)
                why = f"it took more than {words(limit)}, and was killed"
                self._register.end(claim, "failed", {"why": why})
                give_up_if_all_fail(self._work, self._register)


class _Hand:
    """One worker's process, as its parent knows it."""

    def __init__(self, context: Any, work: Work) -> None:
        self.line, far = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_live, args=(work, far), name="dropkit-worker", daemon=False
        )
        self.process.start()
        far.close()
        self.attempt: int | None = None
        self.since = math.inf
        self.began = False
        self.error: DropkitError | None = None

    def listen(self) -> None:
        """Take what it has said."""
        with contextlib.suppress(EOFError, OSError):  # it is gone: its process says so too
            while self.line.poll():
                event, told = self.line.recv()
                if event == "began":
                    self.attempt, self.since, self.began = told, time.monotonic(), True
                elif event == "ended":
                    self.attempt, self.since = None, math.inf
                else:
                    self.error = told

    def ask_to_stop(self) -> None:
        """Let it end its trial, and take no other."""
        with contextlib.suppress(OSError):
            self.line.send("stop")

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):  # with whatever it has started
            if os.getpgid(self.process.pid or 0) == self.process.pid:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.line.close()


def _live(work: Work, line: Connection) -> None:
    """A worker process."""
    os.setpgrp()
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends Ctrl-C to all: one decides
        signal.signal(number, signal.SIG_IGN)
    stopped = threading.Event()
    threading.Thread(target=_obey, args=(line, stopped), daemon=True).start()
    try:
        Shift(work, said=lambda *news: line.send(news), stop=stopped.is_set).serve()
    except DropkitError as error:
        line.send(("error", type(error)(str(error))))
    except Exception:  # of ours, or of an objective's module: its parent says it
        line.send(("error", StudyError(f"a worker broke down:\n{traceback.format_exc()}")))


def _obey(line: Connection, stopped: threading.Event) -> None:
    """Take orders; end at once, with all that was started, when there is nobody to give them."""
    parent = os.getppid()
    while True:
        try:
            if line.poll(1.0):
                line.recv()
                stopped.set()
            elif os.getppid() != parent:  # others may hold its end of the line open
                raise EOFError
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
