"""A fit from table to model folder. Each step is a function; `fit` puts them in order."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dropkit.apps import checkpoint, devices, folder
from dropkit.apps.baselines import Task, baselines
from dropkit.apps.checkpoint import Checkpoint, fingerprint
from dropkit.apps.clock import Clock, words
from dropkit.apps.interrupts import Stop
from dropkit.apps.material import Aside, Material, cells, material, names
from dropkit.apps.predictions import sheet, write_csv
from dropkit.apps.progress import Display
from dropkit.apps.report import render
from dropkit.apps.report.metrics import METRICS
from dropkit.apps.report.numerals import short
from dropkit.apps.request import STANDARD_INPUT, Request
from dropkit.apps.tables import read_table
from dropkit.apps.uncertainty import rows_within, seconds_of, uncertainty
from dropkit.apps.versions import all_versions
from dropkit.errors import FolderError, SettingError
from dropkit.records import Baseline, Fit, Holdout, Progress, Schema, Uncertainty
from dropkit.training.model import Model
from dropkit.training.search import Search
from dropkit.training.wording import shown

if TYPE_CHECKING:
    import pandas as pd

Stopped = Literal["", "time", "interrupted"]

CHECKPOINT_EVERY = 10.0
"""Seconds; what a kill can cost."""
CHECKPOINT_APART = 3.0
"""Seconds between checkpoints at round ends, so that short rounds do not live on the disk."""
_CALM = 3.0
"""Seconds that a machine is trusted to be free, so that one stall at the start foretells little."""
TREES_SHARE = 0.2
"""Most of a time cap that a baseline may take."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command: what was asked, and the world it runs in."""

    request: Request
    clock: Clock
    display: Display
    stop: Stop
    resumed: Checkpoint | None = None

    @property
    def spent(self) -> float:
        """Seconds since the start, those before a resumption included."""
        return self.clock.elapsed + (self.resumed.seconds if self.resumed else 0.0)


def fit(run: Run) -> Fit:
    """Fit, save the model folder, and return what was found.

    Raises `InputError` and `FolderError` before any work is done where that can be known.
    """
    request = run.request
    out = request.folder
    if run.resumed is None:
        folder.check_destination(out)
        if checkpoint.exists(out):
            if not folder.exists(out):
                raise FolderError(
                    f"{out} holds an unfinished search. Continue it with dropkit fit --resume "
                    f"{shlex.quote(str(out))}, choose another --out, or remove the folder."
                )
            run.display.say(
                f"dropkit: note: replacing the model in {out} and its unfinished search"
            )
    device = devices.device(request.device)
    run.display.stage("reading")
    table, test = read(request)
    mark = fingerprint(table, test)
    if run.resumed is not None and run.resumed.fingerprint != mark:
        raise FolderError(
            f"the search in {out} was started on another table: its content changed. "
            "Restore it, or start anew without --resume."
        )
    stuff = material(request, table, test)
    if stuff.aside is not None:
        folder.check_holdout(len(stuff.aside.frame), len(stuff.schema.classes))
    with devices.enough_memory():
        search = Search(
            stuff.train,
            stuff.target,
            stuff.schema,
            metric=request.metric,
            budget=request.work,
            seed=request.seed,
            device=device,
        )
        if run.resumed is None:
            checkpoint.clear(out)  # of an older search, which a kill would bring back
        else:
            search.restore(run.resumed.tensors, run.resumed.description)
        introduce(run, stuff)
        rivals = compare(run, stuff)
        with devices.held_memory():
            stopped = pursue(run, search, stuff, mark)
        return conclude(run, search, stuff, rivals, stopped, mark)


def read(request: Request) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The table, and the test table if there is one."""
    if request.table == request.test == STANDARD_INPUT:
        raise SettingError("the table and --test cannot both come from standard input")
    return read_table(request.table), read_table(request.test) if request.test else None


def introduce(run: Run, stuff: Material) -> None:
    """Say what is about to be learned from what."""
    schema, aside = stuff.schema, stuff.aside
    kind = f"{len(schema.classes)} classes" if schema.classes else "a number"
    held = f", {len(aside.frame):,} held out" if aside else ""
    if run.resumed is not None:
        run.display.say(f"Going on after {words(run.resumed.seconds)} of work")
    run.display.say(
        f"{title(run.request)}: {len(stuff.train):,} rows to learn from{held}; "
        f"{len(schema.used)} of {len(schema.columns)} columns used to predict "
        f"{shown(schema.target)} ({kind})"
    )


def compare(run: Run, stuff: Material) -> tuple[Baseline, ...]:
    """Fit the baselines; before the search, so that what they cost is known and not guessed."""
    if stuff.aside is None:
        return ()
    run.display.stage("baselines")
    task = Task(stuff.schema, stuff.train, stuff.target, stuff.aside.frame, run.request.seed)
    return baselines(task, TREES_SHARE * run.clock.left)


def pursue(run: Run, search: Search, stuff: Material, mark: str) -> Stopped:
    """Search until it is finished, the time is up or someone asks to stop."""
    after, last, phase = Reserve(run, search, stuff), time.monotonic(), ""
    run.stop.gentle = True
    eta = Eta()
    if run.clock.cap is not None:
        search.fit_into(run.clock.left - after.seconds)
    while not search.finished:
        if run.stop.asked:
            run.display.say("Stopping; the best so far is being saved. Ctrl-C again aborts.")
            return "interrupted"
        if run.clock.left < after.seconds:
            return "time"
        progress = search.advance()
        left = min(eta(progress.done), run.clock.left - after.seconds)
        run.display.update(progress, best(progress, search.metric), left)
        age = time.monotonic() - last
        if age > (CHECKPOINT_APART if progress.phase != phase else CHECKPOINT_EVERY):
            keep(run, search, mark, run.request.folder, "the search goes on")
            last = time.monotonic()
        phase = progress.phase
    return "time" if search.unfinished else ""


def keep(run: Run, search: Search, mark: str, place: Path, otherwise: str) -> None:
    """Write a checkpoint; a full disk costs the checkpoint, not the search or the model."""
    try:
        checkpoint.write(place, Checkpoint(run.request, mark, run.spent, *search.state()))
    except FolderError as error:
        run.display.say(f"dropkit: no checkpoint, {otherwise}: {error}")


def conclude(
    run: Run,
    search: Search,
    stuff: Material,
    rivals: tuple[Baseline, ...],
    stopped: Stopped,
    mark: str,
) -> Fit:
    """Predict the holdout, render the report and save everything."""
    run.display.stage("report")
    tensors, description = search.model().state()
    model = Model.restore(tensors, description)  # what predicts here is what was saved, bit for bit
    held = holdout(model, stuff.aside)
    most = rows_within(run.clock.cap, search.parameters)
    doubt = uncertainty(model, search, stuff.train, stuff.aside, run.request.seed, most)
    found = record(run, search, stuff, rivals, stopped, held, doubt)

    def unfinished(place: Path) -> None:
        keep(run, search, mark, place, "so that this search cannot be continued")

    folder.save(
        run.request.folder,
        tensors,
        description,
        found,
        ids=stuff.ids,
        report=render(found),
        predictions=spelled(stuff.schema, stuff.aside, found.holdout),
        beside=unfinished if stopped else None,
    )
    return found


def holdout(model: Model, aside: Aside | None) -> Holdout | None:
    """The rows set aside with what the model says about them."""
    if aside is None:
        return None
    predicted = model.predict(aside.frame)
    rows = predicted.reshape(len(aside.frame), -1).tolist()
    return Holdout(
        aside.source,
        names(aside.ids),
        tuple(float(value) for value in aside.truth.tolist()),
        tuple(map(tuple, rows)),
    )


def spelled(schema: Schema, aside: Aside | None, held: Holdout | None) -> str | None:
    """The holdout's predictions as `dropkit predict` would write them, and the truth."""
    if aside is None or held is None:
        return None
    return write_csv(sheet(schema, aside.ids, held.prediction, held.truth))


def record(
    run: Run,
    search: Search,
    stuff: Material,
    rivals: tuple[Baseline, ...],
    stopped: Stopped,
    held: Holdout | None,
    doubt: Uncertainty | None,
) -> Fit:
    """Everything that a report tells."""
    import torch

    request = run.request
    return Fit(
        table=title(request),
        schema=stuff.schema,
        outcome=search.outcome(),
        holdout=held,
        uncertainty=doubt,
        baselines=rivals,
        cells=cells(stuff.aside.frame, stuff.schema) if stuff.aside else (),
        stopped=stopped,
        seconds=run.spent,
        seed=request.seed,
        command=request.command,
        versions=all_versions(),
        device=devices.name(devices.device(request.device)),
        threads=torch.get_num_threads(),
    )


class Reserve:
    """Seconds to keep for what follows the search: ensemble, holdout, draws, report, folder.

    Measured on one core; where other programs take their share of it, it takes longer by as much
    as the search does.
    """

    def __init__(self, run: Run, search: Search, stuff: Material) -> None:
        rows = len(stuff.aside.frame) if stuff.aside else 0
        sampled = min(len(stuff.train), rows_within(run.clock.cap, search.parameters))
        self._work = 1.8 + 1.5e-4 * rows + seconds_of(sampled, search.parameters)
        self._began = time.monotonic(), time.process_time()

    @property
    def seconds(self) -> float:
        """How long it would take now."""
        wall, computing = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        crowded = (wall + _CALM) / (computing + _CALM)
        return 0.5 + self._work * min(3.0, max(1.0, crowded))


def title(request: Request) -> str:
    """What to call the table."""
    return "standard input" if request.table == STANDARD_INPUT else Path(request.table).name


def best(progress: Progress, metric: str) -> str:
    """The best score so far, in words."""
    if progress.best is None:
        return ""
    form = METRICS[metric]
    return f"best {form.title} {short(form.from_loss(progress.best), 4)}"


class Eta:
    """Foretells the seconds to go from the share of work that is done."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None

    def __call__(self, done: float) -> float:
        """Seconds to go at the pace so far; infinity until there is a pace."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done)
        elapsed, gained = now - self._began[0], done - self._began[1]
        return elapsed / gained * (1 - done) if gained > 0 and elapsed > 1 else float("inf")
