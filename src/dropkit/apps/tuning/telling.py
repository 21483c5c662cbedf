"""What a person sees while a search runs: a line that moves, or one for each trial that ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol, TextIO

from dropkit.apps.clock import words
from dropkit.apps.tuning.results import Place, Search
from dropkit.apps.tuning.summary import line, scored

if TYPE_CHECKING:
    from rich.live import Live as RichLive


_SAID: tuple[Place, ...] = ("stopped", "failed")


class Teller(Protocol):
    """Is shown what was found, again and again."""

    def __call__(self, search: Search) -> None:
        """Show it."""

    def close(self) -> None:
        """Take away what does not stay."""


def teller(*, quiet: bool, stream: TextIO | None = None) -> Teller:
    """The teller that suits the place."""
    stream = stream or sys.stderr
    if quiet:
        return Silent()
    return Moving(stream) if stream.isatty() else Lines(stream)


class Silent:
    """Says nothing."""

    def __call__(self, search: Search) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A line for each trial that has ended, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: set[int] | None = None

    def __call__(self, search: Search) -> None:
        """Print what has ended since."""
        ended = [trial for trial in search.trials if trial.ended]
        if self._told is None:
            self._told = {trial.number for trial in ended}
            if ended:
                self._say(f"{len(ended)} trials had ended before")
        best = search.best
        for trial in ended:
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._say(line(trial, best is not None and best.number == trial.number))

    def close(self) -> None:
        """Nothing is taken back from a log."""

    def _say(self, text: str) -> None:
        print(f"  {text}", file=self._stream, flush=True)


class Moving:
    """One line that moves, in a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._began = time.monotonic()
        console = Console(file=stream, highlight=False)
        self._live: RichLive = RichLive(console=console, transient=True, refresh_per_second=4)
        self._live.start()

    def __call__(self, search: Search) -> None:
        """Move the line."""
        from rich.text import Text

        self._live.update(Text("  " + progress(search, time.monotonic() - self._began)))

    def close(self) -> None:
        """Remove the line."""
        self._live.stop()


def progress(search: Search, seconds: float) -> str:
    """Where a search stands, in a line."""
    counts = Counter(trial.place for trial in search.trials)
    total = "" if search.wanted is None else f" of {search.wanted}"
    facts = [f"{counts['done']}{total} done"]
    facts += [f"{counts[place]} {place}" for place in _SAID if counts[place]]
    facts += [f"{counts['running']} running", words(seconds)]
    best = search.best
    if best is not None:
        facts.append(f"best {scored(best)} (trial {best.number})")
    return "  ".join(facts)
