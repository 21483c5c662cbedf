"""Columns for tests of how a table is understood."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from dropkit.records import Column
from dropkit.training.columns import (
    infer_schema,
)

ROWS = 40
AMOUNTS = np.random.default_rng(0).normal(size=ROWS)
DAYS = pd.date_range("2024-01-01", periods=ROWS)


def repeated(*cells: object) -> list[object]:
    return list(cells) * (ROWS // len(cells))


def judged(cells: Any, name: str = "x", told: str | None = None) -> Column:
    """What a column of `cells` is found to be, beside a harmless one."""
    frame = pd.DataFrame({name: cells, "amount": AMOUNTS, "target": AMOUNTS + 1})
    types = {name: told} if told else {}
    return infer_schema(frame, "target", types=types).columns[0]


CELLS = (
    st.none()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.text(max_size=5)
    | st.sampled_from(["1", "0", "yes", "NA", "?", "2024-01-01", "1e400", "007"])
    | st.dates()
    | st.decimals(allow_nan=False)
    | st.just(decimal.Decimal("NaN"))
    | st.binary(max_size=3)
    | st.lists(st.integers(), max_size=2)
)
