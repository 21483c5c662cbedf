"""Arrays and tables, as scikit-learn's users hand them over, as tables for the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dropkit.errors import TargetError
from dropkit.records import Column, Schema, Task
from dropkit.training.columns import infer_schema
from dropkit.training.schema import named

TARGET = "target"


def in_pandas(X: Any) -> Any:
    """A table of another library, such as polars or pyarrow, in pandas; all else as it is."""
    if isinstance(X, pd.DataFrame) or not hasattr(X, "to_pandas"):
        return X
    return X.to_pandas()


def is_frame(X: object) -> bool:
    """Whether X is a pandas DataFrame."""
    return isinstance(X, pd.DataFrame)


def array_frame(X: np.ndarray) -> pd.DataFrame:
    """A checked two-dimensional array as a table with columns x0, x1, ...

    A column of text or objects is a number if all its cells are, else a category of text. Raises
    TypeError for a cell that is neither text nor a number.
    """
    X = _spelled_out(X)
    columns = {f"x{place}": _column(X[:, place]) for place in range(X.shape[1])}
    return pd.DataFrame(columns, index=range(len(X)))


def like_the_fit(X: Any, names: Sequence[str]) -> pd.DataFrame:
    """Checked rows to predict, a table or an array, under the names that the fit gave its columns.

    Columns of other names, or without any, are taken by their place, as scikit-learn does. Cells
    stay as they are: what they are to be read as is known.
    """
    if not is_frame(X):
        return pd.DataFrame(_spelled_out(X)).set_axis(list(names), axis="columns")
    same = {str(name) for name in X.columns} == set(names)
    frame: pd.DataFrame = X if same else X.set_axis(list(names), axis="columns")
    return frame


def check_present(y: Any) -> None:
    """Raise TargetError for cells without a target, which text and objects may hide."""
    cells = np.asarray(y) if hasattr(y, "dtype") else np.asarray(y, dtype=object)
    missing = pd.isna(cells.ravel())
    if missing.any():
        raise TargetError(
            f"expected a target in every row; y is missing in {int(missing.sum())} of "
            f"{len(missing)} rows (first: row {int(missing.argmax()) + 1}); fill these cells or "
            "leave the rows out"
        )


def schema_of(
    frame: pd.DataFrame,
    target: np.ndarray,
    task: Task,
    classes: tuple[str, ...],
    types: Mapping[str, str],
    *,
    judged: bool,
) -> Schema:
    """The schema of features that were fitted together with a target that has been checked.

    With `judged`, columns are understood as those of a file are: ids and the like are left out.
    Without, every column that varies is used as it is; an array of numbers needs no judgement.
    """
    name = TARGET
    while name in frame.columns:
        name += "_"
    if not judged:
        columns = tuple(_as_it_is(frame[column]) for column in frame)
        return Schema(columns, name, task, classes, len(frame), "as the estimator asks")
    # The target has been checked by scikit-learn's rules; columns are judged beside a stand-in,
    # so that what a file's target must not be (few rows per class, say) is allowed here.
    stand_in = pd.Series(np.linspace(0.0, 1.0, len(frame)) ** 2 - 0.3, index=frame.index)
    table = named(frame).assign(**{name: stand_in})
    found = infer_schema(table, name, task="regression", types=dict(types))
    return Schema(found.columns, name, task, classes, len(frame), "as the estimator asks")


def _spelled_out(X: np.ndarray) -> np.ndarray:
    """An array of text as one of objects; others as they are."""
    return X.astype(str).astype(object) if X.dtype.kind in "SU" else X


def _column(cells: np.ndarray) -> Any:
    if cells.dtype != object:
        return cells if cells.dtype.kind in "mM" else cells.astype(np.float64)
    numbers = [_number(cell) for cell in cells]
    if None not in numbers:
        return np.array(numbers, dtype=np.float64)
    return pd.Series([None if _missing(cell) else str(cell) for cell in cells], dtype=object)


def _number(cell: Any) -> float | None:
    """A cell as a number; None for text that is none. Raises TypeError for anything else."""
    if _missing(cell):
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell)


def _as_it_is(cells: pd.Series[Any]) -> Column:
    present = cells.dropna()
    distinct = int(present.nunique())
    return Column(
        name=str(cells.name),
        kind="number",
        used=distinct > 1,
        reason="a number of an array" if distinct > 1 else "constant",
        missing=len(cells) - len(present),
        distinct=distinct,
        example=str(present.iloc[0]) if len(present) else "",
    )
