"""`dropkit predict`: a model folder and a table in, predictions out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dropkit.apps import folder, saving
from dropkit.apps.predictions import Cell, Sheet, content, ending, identities, sheet, write_csv
from dropkit.apps.request import STANDARD_INPUT
from dropkit.apps.uncertainty import Reader, check_count, reader
from dropkit.errors import FolderError, SettingError

if TYPE_CHECKING:
    from dropkit.training.encoding import Encoded


@dataclass(frozen=True, slots=True)
class Sampling:
    """What `--draws`, `--seed` and `--interval` ask for."""

    draws: int
    seed: int
    level: float

    def of(self, stored: folder.Stored) -> Reader:
        """What samples a stored model; `SettingError` before any row is read if it cannot be so."""
        check_count(self.draws)
        found = reader(stored.model, stored.fit.uncertainty)
        found.limit(self.level)
        return found

    def columns(self, asked: Reader, rows: Encoded) -> list[tuple[str, list[Cell]]]:
        """What the draws say of rows, by column."""
        said, limit = asked.say(rows, self.draws, self.seed), asked.limit(self.level)
        classes = asked.model.schema.classes
        if not classes:
            mean = said.mean[:, 0]
            found = {"mean": mean, "std": said.total, "epistemic": said.epistemic}
            found |= {"low": mean - limit * said.total, "high": mean + limit * said.total}
            return [(name, values.tolist()) for name, values in found.items()]
        found = {"entropy": said.total, "mutual_information": said.epistemic}
        found |= {"variation_ratio": said.variation}
        sets = [joined(classes, row) for row in asked.sets(said.mean, self.level).tolist()]
        return [*((name, values.tolist()) for name, values in found.items()), ("set", sets)]


def joined(classes: Sequence[str], inside: Sequence[bool]) -> str:
    """The classes of a set, with ` | ` between them; quoted as in JSON if one has that mark.

    >>> joined(["good", "bad"], [True, True])
    'good | bad'
    """
    quoted = any("|" in name for name in classes)
    names = [name for name, there in zip(classes, inside, strict=True) if there]
    return " | ".join(json.dumps(name) if quoted else name for name in names)


def check_target(out: Path, table: str) -> None:
    """Raise `SettingError` or `FolderError` if predictions may not be written to `out`."""
    ending(out)
    if out.is_dir():
        raise FolderError(f"expected a file to write predictions to; {out} is a folder.")
    if (
        table != STANDARD_INPUT
        and out.exists()
        and Path(table).exists()
        and os.path.samefile(out, table)
    ):
        raise SettingError(
            f"--out {out} is the table itself; it would be overwritten. Choose another."
        )
    saving.check_writable(out)


def predictions(model: Path, table: str, sampling: Sampling | None = None) -> Sheet:
    """The predictions of a model folder for a table, one row each, in its order.

    With `sampling`, what draws say of each row stands in further columns.

    Raises `SettingError` if the model cannot be sampled so.
    """
    from dropkit.apps.devices import cores, threads
    from dropkit.apps.tables import read_table

    stored = folder.load(model)
    asked = None if sampling is None else sampling.of(stored)
    frame = read_table(table).reset_index(drop=True)
    # As many threads as when it was fitted: sums are then split alike, down to the last bit.
    with threads(min(stored.fit.threads, cores())):
        rows = stored.model.encode(frame)
        return sheet(
            stored.model.schema,
            identities(frame, stored.ids, range(1, len(frame) + 1)),
            stored.model.read(rows).reshape(len(frame), -1).tolist(),
            further=[] if sampling is None or asked is None else sampling.columns(asked, rows),
        )


def deliver(found: Sheet, out: Path | None) -> None:
    """Write predictions to a file, all or nothing, or as CSV to standard output."""
    if out is not None:
        saving.write_file(out, content(found, out))
        return
    try:
        sys.stdout.write(write_csv(found))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough; the flush at exit must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
