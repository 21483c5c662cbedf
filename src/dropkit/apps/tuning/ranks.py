"""Trials that several ranks of `torch.distributed` train together: rank 0 decides, all obey.

Rank 0 alone reads and writes the study. Whatever a rank has to say is said in one collective, so
that a rank whose part has failed is heard wherever the others are, and nobody waits for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dropkit.apps.tuning.results import Search
from dropkit.apps.tuning.running import outcome
from dropkit.apps.tuning.trial import Answer, Objective, Trial
from dropkit.errors import StudyError, TrialStopped

_PATIENCE = timedelta(days=30)
"""For which ranks wait for rank 0: it waits for other workers of the study."""


def several() -> bool:
    """Whether this process is one of several ranks."""
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    return bool(distributed.get_world_size() > 1)


class Ranks:
    """The ranks of a search, on a line of their own beside what the trials send."""

    def __init__(self) -> None:
        from torch import distributed

        self.rank = distributed.get_rank()
        self._size = distributed.get_world_size()
        self._group = distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def everyone(self, word: str, value: object) -> list[tuple[str, Any]]:
        """What each rank says."""
        from torch import distributed

        heard: list[Any] = [None] * self._size
        distributed.all_gather_object(heard, (word, value), group=self._group)
        return heard

    def ask(self, why: str) -> str:
        """Why the trial is to stop, as rank 0 knows; raises where another rank's part is over."""
        heard = self.everyone("ask", why)
        if any(word == "end" for word, _ in heard):
            raise TrialStopped("another rank's part of the trial is over")
        return str(heard[0][1])

    def end(self, value: object) -> list[Any]:
        """What each rank's part came to, when all are over."""
        while True:
            heard = self.everyone("end", value)
            if all(word == "end" for word, _ in heard):
                return [value for _, value in heard]


@dataclass(slots=True)
class Conducted:
    """Rank 0's objective: starts the trial on all ranks, and hears how it ended on each."""

    objective: Objective
    ranks: Ranks

    def __call__(self, trial: Trial) -> Answer:
        """Run rank 0's part; raise what another rank raised."""
        shared = (trial.params, trial.rates, trial.number, trial.seed, trial.again)
        self.ranks.everyone("trial", shared)
        trial._ranks = self.ranks
        error: BaseException | None = None
        answer: Answer = None
        try:
            answer = self.objective(trial)
        except (Exception, SystemExit) as raised:  # whatever a user's objective may raise
            error = raised
        others = self.ranks.end(None)
        failed = [(rank, said) for rank, said in enumerate(others) if said]
        if error is not None and not (isinstance(error, TrialStopped) and failed):
            raise error
        if failed:
            rank, said = failed[0]
            raise RuntimeError(f"rank {rank} failed: {said[0]}\n{said[1]}")
        return answer


def conduct(objective: Objective, run: Callable[[Objective], Search]) -> Search:
    """A search on several ranks; each of them gets what rank 0 found."""
    ranks = Ranks()
    if ranks.rank:
        return _follow(objective, ranks)
    try:
        search = run(Conducted(objective, ranks))
    except BaseException as error:
        ranks.everyone("over", f"{type(error).__name__}: {error}")
        raise
    ranks.everyone("over", search)
    return search


def _follow(objective: Objective, ranks: Ranks) -> Search:
    """Run this rank's part of each trial that rank 0 begins."""
    while True:
        word, value = ranks.everyone("ready", None)[0]
        if word == "over":
            if isinstance(value, Search):
                return value
            raise StudyError(f"the search ended on rank 0: {value}")
        params, rates, number, seed, again = value
        trial = Trial(params, rates, number, seed, again, None, ranks)
        ended = outcome(objective, trial)
        failed = ended.place == "failed" and ended.traceback
        ranks.end((ended.why, ended.traceback) if failed else None)
