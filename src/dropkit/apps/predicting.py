"""`dropkit predict`: a model folder and a table in, predictions out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dropkit.apps import folder, saving
from dropkit.apps.predictions import Sheet, content, ending, identities, sheet, write_csv
from dropkit.apps.request import STANDARD_INPUT
from dropkit.errors import FolderError, SettingError


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


def predictions(model: Path, table: str) -> Sheet:
    """The predictions of a model folder for a table, one row each, in its order."""
    import torch

    from dropkit.apps.devices import cores
    from dropkit.apps.tables import read_table

    stored = folder.load(model)
    # As many threads as when it was fitted: sums are then split alike, down to the last bit.
    torch.set_num_threads(min(stored.fit.threads, cores()))
    frame = read_table(table).reset_index(drop=True)
    predicted = stored.model.predict(frame).reshape(len(frame), -1).tolist()
    return sheet(
        stored.model.schema,
        identities(frame, stored.ids, range(1, len(frame) + 1)),
        predicted,
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
