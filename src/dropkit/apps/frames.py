"""From Arrow to pandas without loss, and the names that a table's columns need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from dropkit.errors import ColumnError, TableError
from dropkit.training.wording import listed

_WHOLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def to_frame(table: Any, source: str) -> pd.DataFrame:
    """Make a DataFrame: whole numbers with gaps stay whole, and a named index is a column.

    Raises ColumnError for doubled and missing names, TableError without rows or columns.
    """
    frame: pd.DataFrame = table.to_pandas(types_mapper=_WHOLE.get, date_as_object=False)
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    frame = (frame.reset_index(named) if named else frame).reset_index(drop=True)
    check_table(frame, source)
    return frame


def check_table(frame: pd.DataFrame, source: str) -> None:
    """Raise TableError without rows or columns, ColumnError for their names."""
    check_names([str(name) for name in frame.columns], source)
    if not len(frame.columns):
        raise TableError(f"{source}: the table has no columns; expected some with names")
    if not len(frame):
        raise TableError(f"{source}: the table has columns but no rows; expected rows")


def check_names(names: Sequence[str], source: str) -> None:
    """Raise ColumnError unless every column has a name of its own."""
    for place, name in enumerate(names, start=1):
        if not name:
            raise ColumnError(
                f"{source}: column {place} has no name; name it in the first line or, if it holds "
                "row numbers, write the table without it (pandas: index=False, R: "
                "row.names=FALSE)"
            )
    if len(set(names)) == len(names):
        return
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    places = [str(place) for place, name in enumerate(names, start=1) if name == twice[0]]
    raise ColumnError(
        f"{source}: more than one column is called {listed(twice)} (columns {', '.join(places)}); "
        "rename all but one"
    )
