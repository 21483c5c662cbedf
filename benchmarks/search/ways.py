"""Ways of choosing settings: each goes on until its time is over, and keeps what it trained."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import optuna
from benchmarks.search.nets import Table, Trained, Training, space

import dropkit
from dropkit.records import Space

EPOCHS = 40
MEMBERS, ROUND = 8, 5
"""Of a population: its networks, and the epochs between two comparisons."""

Found = list[Trained]


def trained(
    of: Table,
    settings: dict[str, Any],
    rates: dict[str, float],
    seed: int,
    trial: Any = None,
    *,
    learns: bool = False,
) -> Trained:
    """Train one network to its end, or until the trial is told to stop."""
    training = Training(of, settings, rates, seed, learns=learns)
    for epoch in range(EPOCHS):
        if not np.isfinite(training.epoch()):
            break
        if trial is not None and epoch % 4 == 3:
            trial.report(training.best.score, epoch)
            if trial.should_stop():
                break
    return training.best


def by_dropkit(of: Table, seed: int, end: float, found: Found) -> None:
    """`dropkit.search` over the space that is discovered from the model."""

    def objective(trial: Any) -> float:
        found.append(trained(of, trial.params, trial.rates, trial.seed, trial))
        return found[-1].score

    with tempfile.TemporaryDirectory() as out:
        left = end - time.monotonic()
        dropkit.search(objective, space=space(of), seconds=left, out=out, key=seed)


def by_random(of: Table, seed: int, end: float, found: Found) -> None:
    """Draws from the same space."""
    draw, knobs = np.random.RandomState(seed), space(of)
    while time.monotonic() < end:
        settings, rates = _drawn(knobs, draw)
        found.append(trained(of, settings, rates, int(draw.randint(2**31))))


def by_defaults(of: Table, seed: int, end: float, found: Found) -> None:
    """Learning rate and batch size, as Transformers has it, with Optuna's sampler."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

    def objective(trial: Any) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        batch = trial.suggest_categorical("batch", [4, 8, 16, 32, 64])
        found.append(trained(of, {"lr": lr, "batch": batch}, {}, seed * 1000 + trial.number))
        return found[-1].score

    study.optimize(objective, timeout=end - time.monotonic())


def by_grid(of: Table, seed: int, end: float, found: Found) -> None:
    """The guide's hidden rates, again and again with other seeds."""
    for again, rate in ((a, r) for a in count() for r in (0.0, 0.1, 0.2, 0.3, 0.5)):
        if time.monotonic() >= end:
            return
        found.append(trained(of, {}, {"hidden": rate}, seed * 1000 + again))


def by_concrete(of: Table, seed: int, end: float, found: Found) -> None:
    """Rates by gradient (`dropkit.LearnedRates`); the other settings are drawn from the space."""
    draw, knobs = np.random.RandomState(seed), space(of)
    while time.monotonic() < end:
        settings, _ = _drawn(knobs, draw)
        found.append(trained(of, settings, {}, int(draw.randint(2**31)), learns=True))


def by_population(of: Table, seed: int, end: float, found: Found) -> None:
    """Eight networks at once, drawn from the space, of which the worst go on from the best."""
    draw, knobs = np.random.RandomState(seed), space(of)
    members = [Training(of, *_drawn(knobs, draw), seed * 1000 + m) for m in range(MEMBERS)]
    population = dropkit.RatePopulation([one.plan for one in members], key=seed)
    while time.monotonic() < end:
        scores = [min(one.epoch() for _ in range(ROUND)) for one in members]
        for move in population.step(scores):
            members[move.member].go_on_from(members[move.like])
    found += [one.best for one in members]


def _drawn(knobs: Space, draw: np.random.RandomState) -> tuple[dict[str, Any], dict[str, float]]:
    """Settings and rates, uniform where the space is."""
    values: dict[str, float] = {}
    for knob in knobs:
        low, high = (np.log(knob.low), np.log(knob.high)) if knob.log else (knob.low, knob.high)
        value = draw.uniform(low, high)
        off = knob.optional and draw.uniform() < 0.5
        values[knob.name] = 0.0 if off else float(np.exp(value) if knob.log else value)
    rates = {name: values.pop(name) for name in knobs.rates}
    return values, rates


WAYS: dict[str, Callable[[Table, int, float, Found], None]] = {
    "dropkit": by_dropkit,
    "random": by_random,
    "defaults": by_defaults,
    "grid": by_grid,
    "concrete": by_concrete,
    "population": by_population,
}
