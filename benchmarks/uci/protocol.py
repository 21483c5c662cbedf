"""Choosing a rate and a precision for each split, and testing them; every step is kept on disk.

A piece of work is one rate of one table: all its precisions and splits, trained as one computation.
What a piece finds depends on the seed and on nothing else, so pieces run in any order, in as many
processes as there are cores, and a run that was stopped goes on with the pieces that are missing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from benchmarks.uci.judging import judged
from benchmarks.uci.population import train, weight_decay
from benchmarks.uci.provenance import provenance
from benchmarks.uci.tables import NAMES, Material, Table, for_choosing, for_testing, load
from torch import Tensor

from dropkit.apps.devices import held_memory
from dropkit.errors import DropkitError, SettingError
from dropkit.kernel import derive

Record = dict[str, Any]

LARGE = 5000
"""Rows from which on the precisions of a rate, whose weight decays are below 1e-6 and so next to
nothing, are given to one network and not each to its own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a result depends on, beside the tables."""

    multiplier: int = 100
    """Times the paper's epochs; the publishers' grid search has 100."""
    draws: int = 10_000
    seed: int = 0

    def check(self) -> None:
        for name in ("multiplier", "draws"):
            if getattr(self, name) < 1:
                raise SettingError(f"--{name}: expected 1 or more; got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Piece:
    """One rate of one table, to choose by or to test."""

    folder: Path
    name: str
    stage: str
    """ "grid" or "tests"."""
    rate: float
    splits: tuple[int, ...]
    taus: tuple[tuple[float, ...], ...]
    """(precisions, splits)."""
    settings: Settings


def done(piece: Piece) -> Record:
    """Train and judge a piece."""
    start = time.perf_counter()
    table = load(piece.folder, piece.name)
    material = (for_choosing if piece.stage == "grid" else for_testing)(table)
    with held_memory():
        rmse, likelihood = found(table, material.only(list(piece.splits)), piece)
    if not (rmse.isfinite().all() and likelihood.isfinite().all()):
        raise DropkitError(
            f"{piece.name}, rate {piece.rate:g}, {piece.stage}: expected finite scores; got RMSE "
            f"{rmse.tolist()} and log-likelihood {likelihood.tolist()}"
        )
    return {
        "splits": list(piece.splits),
        "taus": [list(taus) for taus in piece.taus],
        "rmse": rmse.tolist(),
        "log_likelihood": likelihood.tolist(),
        "seconds": round(time.perf_counter() - start, 1),
        "made": provenance(),
    }


def found(table: Table, material: Material, piece: Piece) -> tuple[Tensor, Tensor]:
    """RMSE and log-likelihood of a piece: (precisions, splits)."""
    taus, settings = torch.tensor(piece.taus, dtype=torch.float64), piece.settings
    taus = (
        taus[:, None] if len(table.y) > LARGE else taus[None]
    )  # (of one network, networks, splits)
    stage = ("grid", "tests").index(piece.stage)
    place = (NAMES.index(table.name), stage, table.rates.index(piece.rate))
    key = derive(settings.seed, *place)
    decay = weight_decay(piece.rate, taus[len(taus) // 2], material.x.shape[2])
    epochs = settings.multiplier * table.epochs
    weights = train(material.x, material.y, table.hidden, piece.rate, decay, epochs, derive(key, 0))
    rmse, likelihood = judged(weights, material, piece.rate, taus, settings.draws, derive(key, 1))
    return rmse.expand_as(likelihood).flatten(0, 1), likelihood.flatten(0, 1)


def grid(table: Table, folder: Path, settings: Settings) -> list[Piece]:
    """All rates with all precisions, for all splits."""
    splits = tuple(range(len(table.train)))
    taus = tuple((tau,) * len(splits) for tau in table.taus)
    return [Piece(folder, table.name, "grid", rate, splits, taus, settings) for rate in table.rates]


def chosen(table: Table, record: Record) -> list[tuple[float, float]]:
    """Each split's rate and precision: the first of the highest validation log-likelihood."""
    scores = [record["grid"][f"{rate:g}"]["log_likelihood"] for rate in table.rates]
    best = torch.tensor(scores, dtype=torch.float64).flatten(0, 1).argmax(0).tolist()
    pairs = [(rate, tau) for rate in table.rates for tau in table.taus]
    return [pairs[place] for place in best]


def tests(table: Table, folder: Path, settings: Settings, record: Record) -> list[Piece]:
    """The splits that chose a rate, each with the precision that it chose."""
    choices = chosen(table, record)
    pieces = []
    for rate in table.rates:
        splits = tuple(split for split, choice in enumerate(choices) if choice[0] == rate)
        taus = (tuple(choices[split][1] for split in splits),)
        if splits:
            pieces.append(Piece(folder, table.name, "tests", rate, splits, taus, settings))
    return pieces


def run(
    name: str,
    data: Path,
    out: Path,
    settings: Settings,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> Record:
    """Everything of one table that is not in `out` yet, which afterwards holds it.

    Raises:
        SettingError: no such table; results of other settings in `out`.
    """
    settings.check()
    if jobs < 1:
        raise SettingError(f"--jobs: expected 1 or more; got {jobs}")
    table, path = load(data, name), out / f"{name}.json"
    record = kept(path, table, settings)
    for stage, pieces in (
        ("grid", lambda: grid(table, data, settings)),
        ("tests", lambda: tests(table, data, settings, record)),
    ):
        missing = [piece for piece in pieces() if f"{piece.rate:g}" not in record[stage]]
        for piece, result in finished(missing, jobs):
            record[stage][f"{piece.rate:g}"] = result
            save(path, record)
            say(f"{name}: {stage}, rate {piece.rate:g}: {result['seconds']:.0f} s")
    return record


def kept(path: Path, table: Table, settings: Settings) -> Record:
    """What an earlier run found; empty if there was none."""
    about = {"table": table.name, "settings": asdict(settings)}
    if not path.exists():
        return about | {"grid": {}, "tests": {}}
    record: Record = json.loads(path.read_text("utf-8"))
    if {key: record.get(key) for key in about} != about:
        raise SettingError(
            f"{path}: expected results of {about['settings']}; got those of "
            f"{record.get('settings')}. Try another --out, or remove the file"
        )
    return record


def save(path: Path, record: Record) -> None:
    """The whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    os.replace(beside, path)


def finished(pieces: list[Piece], jobs: int) -> Iterator[tuple[Piece, Record]]:
    """Pieces with their results, as they come; in this process if there is one job."""
    if jobs == 1:
        yield from ((piece, done(piece)) for piece in pieces)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), prepare) as pool:
        waiting = {pool.submit(done, piece): piece for piece in pieces}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def prepare() -> None:
    """One thread; and the moments of units that died fade to 0, not to slow tiny numbers."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
