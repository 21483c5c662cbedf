"""CSV and its cousins: every cell as text, missing where it says so, nothing guessed or lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from dropkit.apps.frames import check_names, to_frame
from dropkit.apps.rawbytes import LINE_LIMIT, Raw, too_long
from dropkit.errors import TableError
from dropkit.training.cells import MISSING_MARKS
from dropkit.training.wording import shown

DELIMITERS = {"\t": "tabs", "|": "bars", ";": "semicolons", ",": "commas"}
"""Rarest in text first: of two that fit equally well, the first is taken."""

_SAMPLE_BYTES = 2**18
_SAMPLE_ROWS = 200
_DECIMAL_COMMA = r"^[+-]?[0-9]*(,[0-9]+)?([eE][+-]?[0-9]+)?$"


def read_delimited(raw: Raw) -> pd.DataFrame:
    """Read text separated by commas, semicolons, tabs or bars into a table of text.

    The delimiter is the one under which the first lines have as many cells as the first line has
    names. Spaces around cells are dropped. With semicolons, a comma in a column of numbers is the
    decimal point. A column without a name and without a single cell is left out.

    Raises TableError (ragged, not UTF-8, no rows) and ColumnError (doubled or unnamed columns).
    """
    sample, whole = _sample(raw)
    delimiter = sniff(sample, tabs=raw.suffix in (".tsv", ".tab"))
    first = [cells for _, _, cells in _rows(sample, delimiter, most=2)]
    if not first or (whole and len(first) == 1):
        raise TableError(f"{raw.name}: the file has names in its first line, but no rows below it")
    header = [name.strip() for name in first[0]]
    table = _parsed(raw, delimiter, len(header))
    _check_end(raw, delimiter, table)
    columns = [_tidy(column, delimiter) for column in table.columns]
    kept = [
        (name, column)
        for name, column in zip(header, columns, strict=True)
        if name or column.null_count < len(table)
    ]
    names = [name for name, _ in kept]
    check_names(names, raw.name)
    return to_frame(pa.table([column for _, column in kept], names=names), raw.name)


def sniff(sample: str, tabs: bool = False) -> str:
    """Guess the delimiter: the one by which most lines have as many cells as the first has names.

    `tabs`: the file says that it is separated by tabs; believed if its first line has one.

    >>> sniff("size;price\\n1,5;20,0\\n")
    ';'
    """
    if tabs and "\t" in sample.strip("\r\n").partition("\n")[0]:
        return "\t"

    def score(delimiter: str) -> tuple[bool, float, int]:
        widths = [len(cells) for _, _, cells in _rows(sample, delimiter, most=_SAMPLE_ROWS)]
        if not widths:
            return False, 0.0, 0
        return widths[0] > 1, widths.count(widths[0]) / len(widths), widths[0]

    return max(DELIMITERS, key=score)


def decoded(raw: Raw) -> str:
    """The text of a file; TableError with the place of the first byte that is not UTF-8."""
    try:
        return raw.data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.data.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"{raw.name}: byte {error.start + raw.skipped} (line {line}) is "
            f"0x{raw.data[error.start]:02x}, which is not UTF-8; if the file is in Latin-1 or "
            "Windows-1252, convert it: iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def _sample(raw: Raw) -> tuple[str, bool]:
    """The first lines, and whether these are all."""
    end = len(raw.data)
    if end > _SAMPLE_BYTES:
        # A table needs two lines; of a wide one these may be long.
        second = raw.data.find(b"\n", raw.data.find(b"\n") + 1) + 1
        end = max(raw.data.rfind(b"\n", 0, _SAMPLE_BYTES) + 1, second) or end
    try:
        return raw.data[:end].decode("utf-8"), end == len(raw.data)
    except UnicodeDecodeError:
        return decoded(raw), True  # raises, and knows where


def _rows(
    text: str, delimiter: str, most: int | None = None
) -> Iterator[tuple[int, int, list[str]]]:
    """First line, last line and cells of every row that is not blank, as Python reads them."""
    with _cell_limit():
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        line = 1
        try:
            for cells in rows:
                if cells:
                    yield line, rows.line_num, cells
                    most = most - 1 if most is not None else None
                if most == 0:
                    return
                line = rows.line_num + 1
        except csv.Error:  # a cell above the limit, of which the parser will tell
            return


@contextmanager
def _cell_limit() -> Iterator[None]:
    """Let csv read cells as long as a line may be; its limit is the whole process's."""
    before = csv.field_size_limit(LINE_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parsed(raw: Raw, delimiter: str, width: int) -> Any:
    """Parse all lines after the first into columns "0", "1"... of text."""
    start = len(raw.data[:_SAMPLE_BYTES]) - len(raw.data[:_SAMPLE_BYTES].lstrip(b"\r\n"))
    names = [str(place) for place in range(width)]
    quoted = b'"' in raw.data
    try:
        return pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(raw.data).slice(start)),
            # One thread: it costs little, since nothing is converted, and errors come in order.
            pa_csv.ReadOptions(
                use_threads=False,
                block_size=LINE_LIMIT,
                column_names=names,
                skip_rows_after_names=1,
            ),
            pa_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=width > 1,  # in a table of one column, an empty line is a cell
            ),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=sorted(MISSING_MARKS),
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        _explain(raw, delimiter, width, str(error))


def _explain(raw: Raw, delimiter: str, width: int, words: str) -> NoReturn:
    """Say in a person's words where the parser stopped, reading again line by line."""
    text = decoded(raw)
    if "straddl" in words:
        raise TableError(too_long(raw.name, None))
    for line, last, cells in _rows(text, delimiter):
        if len(cells) == width:
            continue
        if last > line and text.count('"') % 2:
            _refuse_quote(raw, line)
        fewer = len(cells) < width
        advice = "complete it" if fewer else f"put cells with {shown(delimiter)} in double quotes"
        raise TableError(
            f"{raw.name}: line {line} has {len(cells)} cell{'s' * (len(cells) != 1)}, but the "
            f"first line names {width} columns, separated by {DELIMITERS[delimiter]}; {advice}"
        )
    raise TableError(f"{raw.name}: the file cannot be read as CSV ({words})")


def _check_end(raw: Raw, delimiter: str, table: Any) -> None:
    """A quote that is never closed swallows the rest of the file into its last cell."""
    last = [str(column[-1].as_py() or "") for column in table.columns] if len(table) else []
    if not any("\n" in cell or "\r" in cell for cell in last):
        return
    text = decoded(raw)
    line = max(line for line, _, _ in _rows(text, delimiter))
    tail = "".join(list(io.StringIO(text, newline=""))[line - 1 :])
    try:
        list(csv.reader(io.StringIO(tail, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "end of data" in str(error):
            _refuse_quote(raw, line)


def _refuse_quote(raw: Raw, line: int) -> NoReturn:
    raise TableError(
        f"{raw.name}: a quote opens in line {line} and is never closed; close it, or double every "
        'quote inside a quoted cell ("")'
    )


def _tidy(column: Any, delimiter: str) -> Any:
    """Drop spaces around cells, see marks of missing cells behind them, read decimal commas."""
    trimmed = pc.utf8_trim_whitespace(column)
    if not trimmed.equals(column):
        marks = pc.is_in(trimmed, value_set=pa.array(sorted(MISSING_MARKS)))
        column = pc.if_else(marks, pa.scalar(None, pa.string()), trimmed)
    if delimiter != ";" or not pc.any(pc.match_substring(column, ",")).as_py():
        return column
    numeric = pc.all(pc.match_substring_regex(column, _DECIMAL_COMMA)).as_py()
    return pc.replace_substring(column, ",", ".") if numeric else column
