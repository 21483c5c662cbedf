"""What a search found, in sentences."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from dropkit.apps.clock import words
from dropkit.apps.tuning.results import Search, Tried

_REASONS = 3
"""Kinds of failures that are named."""


def shown(value: Any) -> str:
    """A value of a knob, or a score.

    >>> shown(0.00012346), shown(3), shown("adamw"), shown(0.25)
    ('0.0001235', '3', 'adamw', '0.25')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def setting(params: dict[str, Any]) -> str:
    """A setting in a line."""
    return ", ".join(f"{name} = {shown(value)}" for name, value in params.items())


def scored(trial: Tried) -> str:
    """A score, with its error where it is known."""
    if trial.score is None:
        return trial.place
    return shown(trial.score) + ("" if trial.error is None else f" ± {shown(trial.error)}")


def line(trial: Tried, best: bool) -> str:
    """A trial that has ended, in a line."""
    facts = [scored(trial) if trial.score is not None else f"{trial.place}: {trial.why}"]
    facts += ["the best so far"] * best
    facts += [] if trial.seconds is None else [words(trial.seconds)]
    facts += ["made again, its worker had died"] * (trial.attempts > 1)
    return f"trial {trial.number}: {'; '.join(facts)}; {setting(trial.params)}"


def sentences(search: Search) -> list[str]:
    """The best setting, how sure that is, what failed, and the one next step."""
    said = [*_about_best(search), *_about_others(search)]
    return [*said, *_about_worths(search), _next(search)]


def reasons(search: Search) -> list[tuple[str, int]]:
    """Why trials failed, the most frequent first; numbers in a message do not make two of one."""
    first: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    for trial in search.of("failed"):
        kind = re.sub(r"\d+", "0", trial.why)
        kinds[first.setdefault(kind, trial.why)] += 1
    return kinds.most_common()


def _about_best(search: Search) -> list[str]:
    best = search.best
    if best is None:
        return [f"None of {len(search.trials)} trials was done."]
    done = len(search.of("done"))
    said = [f"Best of {done}: trial {best.number} with {scored(best)}. Set {setting(best.params)}."]
    if search.tied:
        count = len(search.tied)
        said.append(
            f"{count} other{'s are' if count > 1 else ' is'} within two standard errors of it: by "
            "these trials they cannot be told apart."
        )
    elif search.noise is None and done > 1:
        score = shown(search.ranked[1].score)
        said.append(
            f"The second best came to {score}. How much of that is chance is not known: no score "
            "came with a standard error, and no setting was repeated."
        )
    if best.number in search.weights:
        said.append(f"Its weights: {search.weights[best.number]}")
    return said


def _about_others(search: Search) -> list[str]:
    said = []
    stopped, failed = search.of("stopped"), search.of("failed")
    again = [trial for trial in search.trials if trial.attempts > 1]
    if stopped:
        said.append(f"{len(stopped)} were stopped early.")
    if failed:
        named = [
            f"{why} ({count} times)" if count > 1 else why
            for why, count in reasons(search)[:_REASONS]
        ]
        more = f"; and {len(reasons(search)) - _REASONS} more kinds"
        said.append(
            f"{len(failed)} failed: {'; '.join(named)}{more * (len(reasons(search)) > _REASONS)}."
        )
    if again:
        said.append(f"{len(again)} were made again, since their workers had died.")
    return said


def _about_worths(search: Search) -> list[str]:
    """What is sure of the ablation."""
    sure = [w for w in search.worths if w.sure]
    said = [
        f"{'without' if w.instead == search.space[w.knob].off else f'with {shown(w.instead)} for'} "
        f"{w.knob} it is {'worse' if w.loss > 0 else 'better'} by {shown(abs(w.loss))} "
        f"± {shown(w.margin)}"
        for w in sure
    ]
    if not search.worths:
        return []
    rest = [w.knob for w in search.worths if w not in sure]
    parts = [f"Tried again {search.worths[0].pairs} times, {'; '.join(said)}."] * bool(said)
    parts += [f"What it would lose without {', '.join(rest)} is within chance."] * bool(rest)
    return parts


def next_step(search: Search) -> str:
    """The one thing to do next."""
    best, trials = search.best, len(search.trials)
    if best is None:
        return "correct the objective: no trial came to a score"
    if search.ended:
        return "continue the search: it ended before its trials were done"
    if 4 * len(search.of("failed")) > trials:
        return "look at why a quarter of the trials failed, and narrow the ranges that fail"
    hurt = [worth for worth in search.worths if worth.sure and worth.loss < 0]
    if hurt:
        return f"set {hurt[-1].knob} to {shown(hurt[-1].instead)}: the best setting is better so"
    edges = at_an_edge(search)
    if edges:
        return f"widen the range of {edges[0]}: its best values lie at its edge"
    if search.noise is None:
        return "let the objective give a standard error too, so that chance can be told from gain"
    if search.tied:
        return "repeat the best settings with other seeds before you trust their order"
    if best.number >= 0.8 * trials:
        return "search on: the best was found among the last fifth of the trials"
    return f"train with trial {best.number}'s setting on all your data"


def at_an_edge(search: Search) -> list[str]:
    """Knobs of which most of the best tenth, three at least, lie in the outer twentieth."""
    top = search.ranked[: max(3, len(search.ranked) // 10)]
    if len(search.ranked) < 20:
        return []
    found = []
    for knob in search.space:
        if knob.kind == "choice" or knob.low == knob.high:
            continue
        places = [_place(t.params[knob.name], knob.low, knob.high, knob.log) for t in top]
        free = [place > 0.95 for place in places]
        low = [place < 0.05 and knob.low > 0 and not knob.optional for place in places]
        if max(sum(free), sum(low)) > len(top) / 2:
            found.append(knob.name)
    return found


def _place(value: float, low: float, high: float, log: bool) -> float:
    """Where a value lies in its range, from 0 to 1; below 0: it is not used."""
    if log:
        return -1.0 if value <= 0 else math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _next(search: Search) -> str:
    return f"Next: {next_step(search)}."
