"""Bad input through the command: exit code 2, one clear message, and nothing half-written."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from command import CITIES, Ran, dropkit, fit, rows, write

HEADER = "size,city,colour\n"


def lines(
    count: int = 40, colour: Callable[[int], str] = lambda n: "red" if n % 3 else "blue"
) -> str:
    return "".join(f"{n * 0.37:.2f},{CITIES[n % 3]},{colour(n)}\n" for n in range(count))


@dataclass(frozen=True)
class Case:
    """A table, what is asked about it, and words that the answer must hold."""

    table: str | bytes | None
    words: str
    target: str = "colour"
    options: tuple[str, ...] = ()


CASES = {
    "no such file": Case(None, "no such file"),
    "empty file": Case("", "is empty"),
    "only blank lines": Case("\n\n \n", "is empty"),
    "header only": Case(HEADER, "no rows"),
    "no such column": Case(HEADER + lines(), "did you mean 'colour'", target="color"),
    "target all missing": Case(HEADER + lines(colour=lambda n: ""), "is missing in"),
    "target constant": Case(HEADER + lines(colour=lambda n: "red"), "in every row"),
    "target constant number": Case(HEADER + lines(colour=lambda n: "3.5"), "in every row"),
    "target an id": Case(HEADER + lines(colour=lambda n: f"id-{n}"), "like an id"),
    "one class with one row": Case(
        HEADER + lines(colour=lambda n: "green" if n == 7 else "red" if n % 2 else "blue"),
        "'green'",
    ),
    "fewer rows than folds": Case(HEADER + lines(3), "3 rows"),
    "a missing target": Case(HEADER + lines() + "1.5,Oslo,\n", "--drop-unlabelled"),
    "ragged lines": Case(HEADER + lines() + "1.5,Oslo\n", "line 42"),
    "a line too long": Case(HEADER + lines() + "1.5,Oslo,red,extra\n", "line 42"),
    "wrong delimiter": Case((HEADER + lines()).replace(",", "~"), "'size~city~colour'"),
    "wrong encoding": Case((HEADER + lines()).encode() + b"1.5,Malm\xf6,red\n", "not UTF-8"),
    "a zero byte": Case((HEADER + lines()).encode() + b"1.5,\x00,red\n", "zero"),
    "duplicate columns": Case("size,size,colour\n" + lines(), "'size'"),
    "unnamed column": Case("size,,colour\n" + lines(), "has no name"),
    "inf in the target": Case(
        HEADER + lines(colour=lambda n: "inf" if n == 5 else f"{n}.5"), "finite"
    ),
    "1e400 in the target": Case(
        HEADER + lines(colour=lambda n: "1e400" if n == 5 else f"{n}.5"), "finite"
    ),
    "a quote that never closes": Case(HEADER + lines() + '1.5,"Oslo,red\n', "line 42"),
    "truncated gzip": Case(gzip.compress((HEADER + lines(400)).encode())[:-30], "truncated"),
    "a parquet file that is none": Case(b"PAR1 nothing more", "damaged"),
    "a zip archive": Case(b"PK\x03\x04" + bytes(100), "ZIP"),
    "text asked to be a number": Case(HEADER + lines(), "city", options=("--type", "city=number")),
    "an unknown kind": Case(HEADER + lines(), "category", options=("--type", "city=text")),
    "a type for no column": Case(HEADER + lines(), "'town'", options=("--type", "town=number")),
    "a type without a kind": Case(HEADER + lines(), "NAME=KIND", options=("--type", "city")),
    "text for regression": Case(HEADER + lines(), "number", options=("--task", "regression")),
    "an unknown task": Case(HEADER + lines(), "--task", options=("--task", "clustering")),
    "an unknown metric": Case(HEADER + lines(), "f7", options=("--metric", "f7")),
    "a metric of the other task": Case(HEADER + lines(), "rmse", options=("--metric", "rmse")),
    "no budget": Case(HEADER + lines(), "--budget", options=("--budget", "0")),
    "a budget of words": Case(HEADER + lines(), "--budget", options=("--budget", "lots")),
    "no time": Case(HEADER + lines(), "duration", options=("--time", "0s")),
    "a time of words": Case(HEADER + lines(), "duration", options=("--time", "soon")),
    "a test size above 1": Case(HEADER + lines(), "--test-size", options=("--test-size", "1.5")),
    "a test size that is nan": Case(
        HEADER + lines(), "--test-size", options=("--test-size", "nan")
    ),
    "no threads": Case(HEADER + lines(), "--threads", options=("--threads", "0")),
    "a negative seed": Case(HEADER + lines(), "--seed", options=("--seed", "-1")),
    "an unknown device": Case(HEADER + lines(), "--device", options=("--device", "abacus")),
    "a device that is not there": Case(
        HEADER + lines(), "cuda:99", options=("--device", "cuda:99")
    ),
    "no such id column": Case(HEADER + lines(), "'city'", options=("--id", "ctiy")),
    "the target as id": Case(HEADER + lines(), "must differ", options=("--id", "colour")),
    "no such test file": Case(HEADER + lines(), "no such file", options=("--test", "no.csv")),
    "nothing to resume": Case(HEADER + lines(), "nothing to resume", options=("--resume", "t")),
}


def one_message(ran: Ran, words: str) -> None:
    assert ran.code == 2, ran
    assert ran.out == ""
    assert words in ran.err, ran.err
    assert "Traceback" not in ran.err
    said = [line for line in ran.err.splitlines() if line.startswith(("dropkit:", "Error:"))]
    assert len(said) == 1
    assert len(said[0]) < 500


def everything(place: Path) -> list[Path]:
    return sorted(path.relative_to(place) for path in place.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_fit_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    if case.table is not None:
        content = case.table if isinstance(case.table, bytes) else case.table.encode()
        Path("t.csv").write_bytes(content)
    before = everything(tmp_path)
    table = [] if case.table is None else ["t.csv"]
    ran = dropkit("fit", *(table or ["none.csv"]), "--target", case.target, *case.options)
    one_message(ran, case.words)
    assert everything(tmp_path) == before


def test_fit_needs_a_table_and_a_target(people: Path) -> None:
    one_message(dropkit("fit"), "TABLE")
    one_message(dropkit("fit", people), "--target")


def test_a_huge_cell_is_no_disaster(tmp_path: Path) -> None:
    huge = "x" * (100 << 20)
    path = tmp_path / "t.csv"
    path.write_text(HEADER + lines(60) + f"1.5,{huge},red\n")
    ran = fit(path, "colour", "--out", tmp_path / "m", "--quiet")
    assert ran.code in (0, 2)
    assert len(ran.err) < 1000
    if ran.code == 0:
        assert (tmp_path / "m" / "report.html").stat().st_size < 1_500_000


@pytest.mark.parametrize("value", ["inf", "1e400", "-inf"])
def test_infinity_among_numbers_is_said(value: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + lines() + f"{value},Oslo,red\n")
    ran = fit(path, "colour", "--out", tmp_path / "m")
    one_message(ran, "size")
    assert everything(tmp_path) == [Path("t.csv")]


def test_a_column_with_a_script_for_a_name(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    table = [{name: row["size"], "=cmd()": row["city"], "colour": row["colour"]} for row in rows()]
    path = write(tmp_path / "t.csv", table)
    ran = fit(path, "colour", "--out", tmp_path / "m", "--id", "=cmd()")
    assert ran.code == 0, ran.err
    page = (tmp_path / "m" / "report.html").read_text()
    assert name not in page
    assert "&lt;script&gt;alert(1)" in page
    held = (tmp_path / "m" / "test_predictions.csv").read_text()
    assert held.startswith("'=cmd(),truth,prediction,")


# A holdout or a new table that does not fit the training table


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"size": None}, "'size'"),
        ({"size": "large"}, "'size'"),
        ({"colour": None}, "'colour'"),
        ({"colour": "green"}, "'green'"),
        ({"colour": ""}, "--drop-unlabelled"),
    ],
    ids=["column missing", "another type", "no target", "unseen class", "no label"],
)
def test_a_test_table_that_does_not_fit(
    spoil: dict[str, str | None], words: str, tmp_path: Path, people: Path
) -> None:
    test = write(tmp_path / "test.csv", [spoiled(row, spoil) for row in rows(20)])
    table = rows(20)
    if spoil != {"colour": "green"}:
        table[4:] = [{**row} for row in rows(20)[4:]]
    before = everything(tmp_path)
    one_message(fit(people, "colour", "--out", tmp_path / "m", "--test", test), words)
    assert everything(tmp_path) == before


def spoiled(row: dict[str, object], spoil: dict[str, str | None]) -> dict[str, object]:
    changed = {**row, **spoil}
    if spoil == {"colour": ""} and row["key"] != "k0007":
        changed = row
    return {name: cell for name, cell in changed.items() if cell is not None}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [({"size": None}, "'size'"), ({"size": "large"}, "'size'")],
    ids=["column missing", "another type"],
)
def test_predict_refuses_a_table_that_does_not_fit(
    spoil: dict[str, str | None], words: str, fitted: Path, tmp_path: Path
) -> None:
    table = write(tmp_path / "new.csv", [spoiled(row, spoil) for row in rows(5)])
    one_message(dropkit("predict", fitted, table, "--out", tmp_path / "out.csv"), words)
    assert everything(tmp_path) == [Path("new.csv")]


def test_predict_refuses_to_overwrite_its_table(fitted: Path, people: Path) -> None:
    before = people.read_bytes()
    os.link(people, people.with_name("other.csv"))
    for out in (people, people.parent / "." / "people.csv", people.with_name("other.csv")):
        one_message(dropkit("predict", fitted, people, "--out", out), "overwritten")
    assert people.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "words"),
    [("p.xlsx", "to end in .csv"), ("p", "to end in .csv"), ("folder.csv", "is a folder")],
)
def test_predict_refuses_places(out: str, words: str, fitted: Path, people: Path) -> None:
    (people.parent / "folder.csv").mkdir()
    one_message(dropkit("predict", fitted, people, "--out", people.parent / out), words)
    assert everything(people.parent) == [Path("folder.csv"), Path("people.csv")]


def test_predict_refuses_what_is_no_model(people: Path) -> None:
    one_message(dropkit("predict", people.parent, people), "has no model.json")
    one_message(dropkit("predict", people.parent / "no", people), "does not exist")


def test_predict_refuses_a_damaged_model(model: Path, people: Path) -> None:
    (model / "model.safetensors").write_bytes(b"")
    one_message(dropkit("predict", model, people), "damaged")


def test_out_that_is_not_ours(tmp_path: Path, people: Path) -> None:
    before = everything(tmp_path)
    one_message(fit(people, "colour", "--out", tmp_path), "did not write")
    one_message(fit(people, "colour", "--out", people), "is a file")
    one_message(fit(people, "colour", "--out", people / "m"), "not a directory")
    assert everything(tmp_path) == before
