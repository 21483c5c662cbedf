"""What a person sees while a fit runs: a live line on a terminal, else plain lines, or nothing.

Everything goes to standard error, so that standard output is free for predictions.
"""

from __future__ import annotations

import sys
import time
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from dropkit.apps.clock import words
from dropkit.records import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

PLAIN_EVERY = 10.0
"""Seconds between plain lines: often enough to see life, seldom enough to be read in a log."""


class Display(Protocol):
    """Where progress is shown. A display is closed before anything is printed for good."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def update(self, progress: Progress, score: str, left: float) -> None:
        """Show where the search stands: `score` is the best so far in words, `left` in seconds."""

    def stage(self, name: str) -> None:
        """Show what is being done when it is not the search."""

    def close(self) -> None:
        """Take away what does not stay."""


def display(*, quiet: bool, stream: TextIO | None = None) -> Display:
    """The display that suits the place: silent if asked, live on a terminal, else plain."""
    stream = stream or sys.stderr
    if quiet:
        return Silent()
    return Live(stream) if stream.isatty() else Plain(stream)


class Silent:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def update(self, progress: Progress, score: str, left: float) -> None:
        """Nothing."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Plain:
    """One line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + 1.0
        self._phase = ""

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, file=self._stream, flush=True)

    def update(self, progress: Progress, score: str, left: float) -> None:
        """Print a line when the last one is old enough."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_EVERY
        parts = [f"{100 * progress.done:3.0f} %  {progress.phase}", *_facts(progress, score, left)]
        self.say("  " + ", ".join(parts))

    def stage(self, name: str) -> None:
        """Nothing: no stage but the search lasts long enough for a line."""

    def close(self) -> None:
        """Nothing is taken back from a log."""


class Live:
    """One line that moves, in a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._bar: Bar | None = None

    def say(self, line: str) -> None:
        """Print the line, above the moving one."""
        self._console.print(line, markup=False, soft_wrap=True)

    def update(self, progress: Progress, score: str, left: float) -> None:
        """Move the line."""
        self._show(progress.phase, progress.done, _facts(progress, score, left))

    def stage(self, name: str) -> None:
        """Name the stage beside a bar that pulses."""
        self._show(name, None, [])

    def close(self) -> None:
        """Remove the moving line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, name: str, done: float | None, facts: list[str]) -> None:
        shown: dict[str, Any] = {
            "description": name,
            "share": "" if done is None else f"{done:.0%}".replace("%", " %"),
            "facts": "  ".join(facts),
        }
        if self._bar is None:
            self._bar = _bar(self._console)
            self._bar.start()
        total = None if done is None else 1.0
        if not self._bar.tasks or self._bar.tasks[0].total != total:  # a bar cannot begin to pulse
            for task in self._bar.tasks:
                self._bar.remove_task(task.id)
            self._bar.add_task(total=total, **shown)
        self._bar.update(self._bar.tasks[0].id, completed=done or 0.0, **shown)


def _bar(console: Console) -> Bar:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    facts = Column(
        no_wrap=True, overflow="ellipsis"
    )  # a narrow terminal cuts the line, not folds it
    return Bar(
        TextColumn("  {task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(
            bar_width=24 if console.width >= 110 else 12,
            complete_style="cyan",
            finished_style="cyan",
            pulse_style="cyan",
            table_column=Column(no_wrap=True, min_width=8),
        ),
        TextColumn("{task.fields[share]}", table_column=Column(no_wrap=True, justify="right")),
        TextColumn("{task.fields[facts]}", style="dim", markup=False, table_column=facts),
        console=console,
        transient=True,
        refresh_per_second=8,
    )


def _facts(progress: Progress, score: str, left: float) -> list[str]:
    facts = [f"{words(left)} left"] if left < inf else []
    facts += [score] if score else []
    return [*facts, f"{progress.alive} of {progress.members} alive"]
