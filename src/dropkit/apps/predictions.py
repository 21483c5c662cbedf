"""Predictions as a table: ids, the prediction, and the probability of each class.

Numbers are written so that reading them back gives the same bits. In CSV and TSV, a text cell that
a spreadsheet would run as a formula (`=cmd()`, `+...`, `-...`, `@...`, a leading tab or return)
gets an apostrophe in front; cells that are plain numbers stay as they are. Other formats need no
escape.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dropkit.errors import SettingError
from dropkit.records import Schema

if TYPE_CHECKING:
    import pandas as pd

Cell: TypeAlias = "str | float | int | None"

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets take the wide ones too
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
ROW = "row"
"""Header of the row number, from 1, which names a row if no column does."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Columns of equal length, in order, with their headers."""

    headers: tuple[str, ...]
    columns: tuple[Sequence[Cell], ...]


def sheet(
    schema: Schema,
    ids: dict[str, Sequence[Cell]],
    prediction: Sequence[Sequence[float]],
    truth: Sequence[float] | None = None,
    further: Sequence[tuple[str, Sequence[Cell]]] = (),
) -> Sheet:
    """Lay predictions out: the ids, the truth if it is known, the prediction, the probabilities,
    and further columns behind them."""
    columns: list[tuple[str, Sequence[Cell]]] = list(ids.items())
    if schema.task == "regression":
        if truth is not None:
            columns.append(("truth", truth))
        columns.append(("prediction", [row[0] for row in prediction]))
    else:
        if truth is not None:
            columns.append(("truth", [schema.classes[int(code)] for code in truth]))
        likeliest = [max(range(len(row)), key=row.__getitem__) for row in prediction]
        columns.append(("prediction", [schema.classes[code] for code in likeliest]))
        for code, name in enumerate(schema.classes):
            columns.append((f"probability_{name}", [row[code] for row in prediction]))
    columns += further
    return Sheet(tuple(unique([name for name, _ in columns])), tuple(cells for _, cells in columns))


def identities(
    frame: pd.DataFrame, ids: Sequence[str], rows: Sequence[int]
) -> dict[str, Sequence[Cell]]:
    """What names each row: its id columns, or else its number in `rows`."""
    there = [name for name in ids if name in frame.columns]
    if not there:
        return {ROW: list(rows)}
    return {name: [_plain(cell) for cell in frame[name]] for name in there}


def unique(names: Sequence[str]) -> list[str]:
    """The names, with `_2`, `_3`, ... behind one that came before.

    >>> unique(["prediction", "prediction", "a"])
    ['prediction', 'prediction_2', 'a']
    """
    taken: list[str] = []
    for name in names:
        candidates = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
        taken.append(next(candidate for candidate in candidates if candidate not in taken))
    return taken


def escape(text: str) -> str:
    """A text cell that no spreadsheet runs.

    >>> escape("=cmd()"), escape("-5"), escape("plain")
    ("'=cmd()", '-5', 'plain')
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def write_csv(sheet: Sheet, separator: str = ",") -> str:
    """The sheet as CSV text, formulas escaped, floats with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow([escape(name) for name in sheet.headers])
    writer.writerows(zip(*[_written(cells) for cells in sheet.columns], strict=True))
    return text.getvalue()


def content(sheet: Sheet, path: Path) -> bytes:
    """The sheet in the format that the name of a file asks for.

    Raises `SettingError` for an ending that is none of `FORMATS`.
    """
    return FORMATS[ending(path)](sheet)


def ending(path: Path) -> str:
    """The ending of a file's name that says its format; `SettingError` if none does."""
    name = path.name.lower()
    for known in FORMATS:
        if name.endswith(known):
            return known
    raise SettingError(f"expected --out to end in {', '.join(FORMATS)}; got {path.name!r}")


def _csv(sheet: Sheet) -> bytes:
    return write_csv(sheet).encode("utf-8")


def _tsv(sheet: Sheet) -> bytes:
    return write_csv(sheet, "\t").encode("utf-8")


def _csv_gz(sheet: Sheet) -> bytes:
    return gzip.compress(_csv(sheet), mtime=0)


def _tsv_gz(sheet: Sheet) -> bytes:
    return gzip.compress(_tsv(sheet), mtime=0)


def _json_lines(sheet: Sheet) -> bytes:
    rows = zip(*sheet.columns, strict=True)
    lines = (
        json.dumps(dict(zip(sheet.headers, row, strict=True)), ensure_ascii=False) for row in rows
    )
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _parquet(sheet: Sheet) -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(_arrow(sheet), buffer)
    return buffer.getvalue()


def _feather(sheet: Sheet) -> bytes:
    import pyarrow.feather

    buffer = io.BytesIO()
    pyarrow.feather.write_feather(_arrow(sheet), buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Sheet], bytes]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".csv.gz": _csv_gz,
    ".tsv.gz": _tsv_gz,
    ".parquet": _parquet,
    ".feather": _feather,
    ".jsonl": _json_lines,
}


def _arrow(sheet: Sheet) -> Any:
    import pyarrow

    return pyarrow.table(dict(zip(sheet.headers, map(_uniform, sheet.columns), strict=True)))


def _uniform(cells: Sequence[Cell]) -> Sequence[Cell]:
    """The cells as they are if they are of one type, as Arrow wants them, else as text."""
    kinds = {type(cell) for cell in cells if cell is not None}
    return cells if len(kinds) < 2 else [None if cell is None else str(cell) for cell in cells]


def _written(cells: Sequence[Cell]) -> list[str]:
    return [
        escape(cell) if isinstance(cell, str) else "" if cell is None else repr(cell)
        for cell in cells
    ]


def _plain(cell: Any) -> Cell:
    """A cell of a frame as text or a Python number; None if it is missing."""
    import pandas as pd

    if cell is None or cell is pd.NA or cell is pd.NaT or cell != cell:
        return None
    value = cell.item() if isinstance(cell, np.generic) else cell
    return value if isinstance(value, (str, int, float)) else str(value)
