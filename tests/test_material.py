"""What a fit works on: rows set aside, cells kept for the report, tables told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dropkit.apps.checkpoint import fingerprint
from dropkit.apps.material import cells, material
from dropkit.apps.request import Request
from dropkit.apps.saving import check_writable, write_folder
from dropkit.errors import FolderError, SettingError
from dropkit.training.columns import infer_schema

ROWS = 40


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {"amount": np.linspace(0.1, 0.9, ROWS), **columns, "target": ["a", "b"] * (ROWS // 2)}
    )


@pytest.mark.parametrize(
    "gaps",
    [
        pd.array([None, *range(1, ROWS)], dtype="Int64"),
        pd.array([None, *[True, False, True] * 13], dtype="boolean"),
        pd.Series([None, *["x", "y", "z"] * 13], dtype="string"),
        pd.to_datetime([None, *["2024-01-01"] * (ROWS - 1)]),
    ],
    ids=["Int64", "boolean", "string", "datetime"],
)
def test_a_gap_of_any_type_is_an_empty_cell(gaps: object) -> None:
    """Mutant: asking whether a cell differs from itself, which `pd.NA` does not answer."""
    frame = table(gaps=gaps)
    shown = cells(frame, infer_schema(frame, "target"))
    assert [row[1] == "" for row in shown] == [True] + [False] * (ROWS - 1)


def test_cells_are_kept_short_whatever_they_hold() -> None:
    frame = table(text=["x" * 100_000] * ROWS, nested=[np.zeros(9)] * ROWS)
    shown = cells(frame, infer_schema(frame, "target"))
    assert max(len(cell) for row in shown for cell in row) <= 100


def test_nested_cells_have_a_fingerprint() -> None:
    one, other = ([[1, 2]] * ROWS, [[1, 3]] * ROWS)
    assert fingerprint(table(x=one)) == fingerprint(table(x=one)) != fingerprint(table(x=other))


def test_a_share_that_leaves_nothing_to_learn_from_is_said() -> None:
    request = Request(table="t.csv", target="target", test_size=0.99)
    with pytest.raises(SettingError, match=r"--test-size 0.99 leaves 2 of 40 rows"):
        material(request, table(), None)


def test_the_folder_one_stands_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for place in (".", "..", str(tmp_path)):
        with pytest.raises(FolderError, match="folder of its own"):
            check_writable(Path(place))


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    """Mutant: renaming over the link, which leaves the linked folder as it was."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_folder(tmp_path / "link", lambda fresh: (fresh / "file").write_text("new") and None)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new"
