"""Reading a table: the one way from a file to a DataFrame."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from dropkit.apps.rawbytes import STDIN, Raw, read_raw
from dropkit.errors import InputError, MissingExtraError, TableError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = "CSV, TSV, Parquet, Feather or JSON lines"

_JSON = (".jsonl", ".ndjson", ".json")
_PLAIN = (".csv", ".tsv", ".tab", ".txt")
_BINARY = {".parquet": "Parquet", ".pq": "Parquet", ".feather": "Feather", ".arrow": "Feather"}


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read CSV, TSV, Parquet, Feather or JSON lines, plain or gzipped; "-" is standard input.

    The first bytes tell the format, then the extension. Of CSV and TSV every cell is kept as text,
    so that 00123 stays what it is; what a column means is decided where its schema is. A cell is
    missing if it is empty or one of the marks that pandas takes for missing (NA, N/A, NaN, nan,
    null, NULL, None, n/a, <NA>, #N/A and their like) or `?`. Parquet, Feather and JSON lines have
    their own types and nulls, and are believed.

    Raises TableError or ColumnError, with the file, the line and what to do; MissingExtraError
    without pandas and pyarrow.
    """
    _need_extra()
    raw = read_raw(path)
    if raw.form == "text":
        return _read_text(raw)
    return _read_binary(raw)


def _need_extra() -> None:
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f'reading tables needs pandas and pyarrow ({error}); try: pip install "dropkit[tables]"'
        ) from error


def _read_text(raw: Raw) -> pd.DataFrame:
    if raw.suffix in _BINARY:
        raise TableError(
            f"{raw.name}: the file is called {raw.suffix}, but does not begin as "
            f"{_BINARY[raw.suffix]} does; is it cut off, or in another format?"
        )
    if raw.suffix in _JSON or (raw.suffix not in _PLAIN and raw.data.lstrip()[:1] in (b"{", b"[")):
        from dropkit.apps.jsonlines import read_json_lines

        return read_json_lines(raw)
    from dropkit.apps.delimited import read_delimited

    return read_delimited(raw)


def _read_binary(raw: Raw) -> pd.DataFrame:
    import pyarrow as pa

    from dropkit.apps.frames import to_frame

    try:
        return to_frame(_arrow_table(raw), raw.name)
    except InputError:
        raise
    # pyarrow believes what pandas left in a file, and stumbles in many ways where it is spoilt
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TableError(
            f"{raw.name}: the {raw.form} data is damaged or cut off ({reason}); write it again"
        ) from error


def _arrow_table(raw: Raw) -> Any:
    source = io.BytesIO(raw.data)
    if raw.form == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(source)
    import pyarrow.feather

    return pyarrow.feather.read_table(source)


__all__ = ["FORMATS", "STDIN", "read_table"]
