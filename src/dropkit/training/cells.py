"""A column of any pandas type, brought into one of a few plain forms: whole columns at once.

Nothing here judges a column; `schema` decides what a column is, and `columns` reads new tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

Floats: TypeAlias = npt.NDArray[np.float64]
Texts: TypeAlias = npt.NDArray[np.object_]
Mask: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[np.int64]

# fmt: off
MISSING_MARKS = frozenset({
    "", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})
# fmt: on
"""Texts that stand for a missing cell: those of pandas, and `?`."""

Form = Literal["number", "boolean", "date", "text", "category", "nested", "binary", "complex"]

SECONDS = "durations, in seconds"

_NESTED = (list, dict, set, tuple, frozenset, np.ndarray)
_BYTES = (bytes, bytearray, memoryview)


@dataclass(frozen=True)
class Cells:
    """A column in one of a few plain forms, whatever pandas type it arrived in."""

    form: Form
    values: pd.Series[Any]
    note: str = ""
    """What a person should know of how it arrived: mixed types, a unit."""

    @cached_property
    def missing(self) -> Mask:
        """True where a cell is missing, or blank text."""
        return self.values.isna().to_numpy(dtype=bool)

    @cached_property
    def coded(self) -> tuple[Codes, Texts]:
        """Code of every cell, -1 where it is missing, and the text of every code."""
        codes, distinct = pd.factorize(self.values)
        texts = spelled(np.asarray(distinct, dtype=object))
        if len(set(texts)) == len(texts):
            return codes.astype(np.int64), texts
        merged, texts = pd.factorize(texts)  # 1 and "1" in one column
        return np.append(merged, -1)[codes].astype(np.int64), texts

    @property
    def opaque(self) -> bool:
        """Whether the cells are of a kind that no column can be read from."""
        return self.form in ("nested", "binary", "complex")

    def at(self, row: int) -> str:
        """One cell as text, for a message."""
        text = str(self.values.iloc[row])
        return text.removesuffix(" 00:00:00") if self.form == "date" else text


def marked(texts: Iterable[str]) -> Mask:
    """True where a text is a mark of a missing cell."""
    return np.array([text.strip() in MISSING_MARKS for text in texts], dtype=bool)


def spelled(values: Iterable[Any]) -> Texts:
    """The text of each value; whole numbers without a point, so that 1, 1.0 and '1' agree."""
    known = [value if isinstance(value, str) else _spelled(value) for value in values]
    texts = np.empty(len(known), dtype=object)
    texts[:] = known
    return texts


def _spelled(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def cells(series: pd.Series[Any]) -> Cells:
    """Bring a column of any pandas type into a plain form, without judging what it means."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return Cells("category", _without_blanks(series.astype(object)))
    if isinstance(dtype, pd.SparseDtype):
        return cells(pd.Series(np.asarray(series), index=series.index))
    if types.is_bool_dtype(dtype):
        return Cells("boolean", series)
    if types.is_complex_dtype(dtype):
        return Cells("complex", series)
    if types.is_numeric_dtype(dtype):
        return Cells("number", series)
    if isinstance(dtype, pd.ArrowDtype):
        return _of_arrow(series, dtype)
    if types.is_timedelta64_dtype(dtype):
        return Cells("number", series.dt.total_seconds(), SECONDS)
    if types.is_datetime64_any_dtype(dtype):
        return Cells("date", series)
    if isinstance(dtype, pd.PeriodDtype):
        return Cells("date", series.dt.to_timestamp())
    if isinstance(dtype, pd.StringDtype):
        return Cells("text", _without_blanks(series))
    return _of_objects(series.astype(object))


def _of_arrow(series: pd.Series[Any], dtype: pd.ArrowDtype) -> Cells:
    """Text stays in Arrow's hands, where it is fast; the rest is judged by what it holds."""
    if dtype.type is str:
        return cells(series.astype(pd.StringDtype("pyarrow")))
    return _of_objects(series.astype(object))


def _of_objects(series: pd.Series[Any]) -> Cells:
    """Judge a column of Python objects by the types it holds."""
    present = series.dropna()
    held = set(map(type, present))
    if not held:
        return Cells("number", series.astype(np.float64))
    if any(issubclass(kind, _NESTED) for kind in held):
        return Cells("nested", series)
    if any(issubclass(kind, _BYTES) for kind in held):
        return Cells("binary", series)
    guess = types.infer_dtype(present, skipna=True)
    if guess == "string":
        return Cells("text", _without_blanks(series))
    if guess == "boolean":
        return Cells("boolean", series.where(series.notna(), None).astype("boolean"))
    if guess in ("integer", "floating", "mixed-integer-float", "decimal"):
        return Cells("number", series.map(_float, na_action="ignore").astype(np.float64))
    if guess == "complex":
        return Cells("complex", series)
    if guess in ("datetime", "datetime64", "date"):
        moments = pd.to_datetime(series, utc=True, errors="coerce")
        return Cells("date", moments.dt.tz_convert(None))
    if guess in ("timedelta", "timedelta64"):
        return Cells("number", pd.to_timedelta(series).dt.total_seconds(), SECONDS)
    texts = pd.Series(None, index=series.index, dtype=object)
    texts[series.notna()] = spelled(present)
    names = ", ".join(sorted(kind.__name__ for kind in held))
    return Cells("text", _without_blanks(texts), f"mixed types ({names})")


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond float64, found to be infinite later
        return float("inf") if value > 0 else float("-inf")


def _without_blanks(series: pd.Series[Any]) -> pd.Series[Any]:
    """Text of nothing but spaces is missing."""
    if series.dtype == object:
        distinct = pd.unique(series.dropna())
        blanks = [text for text in distinct if isinstance(text, str) and not text.strip()]
        return series.mask(series.isin(blanks)) if blanks else series
    blank = (series.str.strip() == "").fillna(False).astype(bool)
    return series.mask(blank) if blank.any() else series


def numbers(column: Cells) -> tuple[Floats, Mask]:
    """Read as float64, NaN where missing; marks such as NA count as missing here."""
    if column.form in ("number", "boolean"):
        values = column.values.to_numpy(dtype=np.float64, na_value=np.nan)
        return values, np.zeros(len(values), dtype=bool)
    if column.form == "text":
        cast = _cast(column.values)
        if cast is not None:
            return cast, np.zeros(len(cast), dtype=bool)
    if column.form == "date" or column.opaque:
        return np.full(len(column.missing), np.nan), ~column.missing
    return spread(column, parsed_numbers, np.array([np.nan]))


def _cast(values: pd.Series[Any]) -> Floats | None:
    """Cast text to float64 at once, 20 times as fast as cell by cell; None if it cannot be done."""
    try:
        import pyarrow as pa

        cast = pa.array(values, from_pandas=True).cast(pa.float64())
    except (ImportError, ValueError, TypeError, NotImplementedError):
        return None
    return np.array(cast.to_numpy(zero_copy_only=False), dtype=np.float64)


def parsed_numbers(texts: Texts) -> Floats:
    """The number that each text is, NaN where it is none."""
    return pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64)


def spread(column: Cells, parse: Callable[[Texts], Any], nothing: Any) -> tuple[Any, Mask]:
    """Parse the distinct texts of a column and spread the result over its rows."""
    codes, texts = column.coded
    parsed = parse(texts)
    bad = pd.isna(parsed) & ~marked(texts)
    return np.concatenate([parsed, nothing])[codes], np.append(bad, False)[codes]
