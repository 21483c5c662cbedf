"""JSON lines: one object per line, one cell per key."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pa_json

from dropkit.apps.delimited import decoded
from dropkit.apps.frames import check_table, to_frame
from dropkit.apps.rawbytes import LINE_LIMIT, Raw
from dropkit.errors import TableError
from dropkit.training.wording import shown

_DEEP = 500
"""Nesting up to which Arrow's parser is safe; it recurses without a limit of its own."""


_HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a character beyond 16 bits: JSON can escape it, and no text can hold it."""


def read_json_lines(raw: Raw) -> pd.DataFrame:
    """Read one object per line into a table; a key that a line lacks is a missing cell.

    Raises TableError for a line that is no object, and for lists or objects inside an object.
    """
    if raw.data.lstrip()[:1] == b"[":
        raise TableError(
            f"{raw.name}: the file is one JSON array; expected one object per line: convert it "
            "with jq -c '.[]' FILE"
        )
    table = _parsed(raw)
    return _line_by_line(raw) if table is None else to_frame(table, raw.name)


def _parsed(raw: Raw) -> Any:
    """Parse at once; None where a line has to be looked at, or where types are mixed."""
    if _may_be_deep(raw.data):
        return None
    try:
        raw.data.decode("utf-8")
        table = pa_json.read_json(
            pa.BufferReader(raw.data), pa_json.ReadOptions(use_threads=False, block_size=LINE_LIMIT)
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return None if any(pa.types.is_nested(kind) for kind in table.schema.types) else table


def _may_be_deep(data: bytes) -> bool:
    """Whether brackets are nested deeply; those within text count too, to be on the safe side."""
    brackets = data.count(b"{") + data.count(b"[")
    if brackets <= data.count(b"\n") + _DEEP:
        return False
    depth = 0
    for start in range(0, len(data), LINE_LIMIT):
        chunk = np.frombuffer(data, np.uint8, min(LINE_LIMIT, len(data) - start), start)
        steps = np.isin(chunk, list(b"{[")).astype(np.int32) - np.isin(chunk, list(b"}]"))
        depths = depth + np.cumsum(steps)
        if depths.max() > _DEEP:
            return True
        depth = int(depths[-1])
    return False


def _line_by_line(raw: Raw) -> pd.DataFrame:
    """Read as Python does: slower, for mixed types and to name the line that is wrong."""
    lines = enumerate(decoded(raw).split("\n"), start=1)
    rows = [_row(raw, number, line) for number, line in lines if line.strip()]
    frame = pd.DataFrame(rows)
    check_table(frame, raw.name)
    return frame


def _row(raw: Raw, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise TableError(
            f"{raw.name}: line {number} is no JSON object ({reason}); expected one object per "
            'line, such as {"age": 31, "job": "cook"}'
        ) from None
    if not isinstance(row, _Pairs):
        what = "an array" if isinstance(row, list) else f"the value {shown(line.strip())}"
        raise TableError(f"{raw.name}: line {number} is {what}; expected one object per line")
    cells: dict[str, Any] = {}
    for name, value in row:
        if name in cells:
            raise TableError(
                f"{raw.name}: line {number} has the key {shown(name)} twice; rename one"
            )
        if isinstance(value, list):
            raise TableError(
                f"{raw.name}: line {number} has a list or an object under {shown(name)}; expected "
                "text, a number, true, false or null: spread it over several keys"
            )
        if any(isinstance(text, str) and _HALF.search(text) for text in (name, value)):
            raise TableError(
                f"{raw.name}: line {number} has half of a character under {shown(name)}, such as "
                "\\ud83d without \\ude00 behind it; correct or empty the cell"
            )
        cells[name] = value
    return cells


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of an object, also where a key comes twice."""
