"""Reading tables: every format gives the same cells, and every bad file one clear message."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from dropkit.apps import rawbytes
from dropkit.apps.delimited import sniff
from dropkit.apps.tables import read_table
from dropkit.errors import ColumnError, InputError, MissingExtraError, TableError
from dropkit.training.cells import MISSING_MARKS
from dropkit.training.columns import infer_schema, typed

PLAIN = "age,job\n31,cook\n,baker\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cells(frame: pd.DataFrame) -> dict[str, list[object]]:
    """Columns as lists, with None for every kind of missing."""
    return {
        name: [None if pd.isna(cell) else cell for cell in frame[name]] for name in frame.columns
    }


# --- what can be read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", PLAIN),
        ("a.txt", PLAIN.replace(",", "|")),
        ("a.csv", PLAIN.replace(",", ";")),
        ("a.csv", PLAIN.replace(",", "\t")),
        ("a.tsv", PLAIN.replace(",", "\t")),
        ("a.tsv", PLAIN),
        ("a.csv", PLAIN.replace("\n", "\r\n")),
        ("a.csv", PLAIN.replace("\n", "\r")),
        ("a.csv", "\n\n" + PLAIN),
        ("a.csv", PLAIN + "\n\n"),
        ("a.csv", PLAIN.rstrip("\n")),
        ("a.csv", "age , job\n 31, cook\n ?, baker \n"),
        ("a.csv", 'age,"job"\n"31","cook"\n"",baker\n'),
        ("a.csv", "age,job,\n31,cook,\n,baker,\n"),
        ("a.csv", "\ufeff" + PLAIN),
        ("a.csv", PLAIN.encode("utf-16")),
        ("a.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
        ("a.csv", PLAIN.encode("utf-32")),
        ("a.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)),
        ("a.csv", gzip.compress(PLAIN.encode(), mtime=0)),
        (
            "a.csv.gz",
            gzip.compress(PLAIN[:10].encode(), mtime=0)
            + gzip.compress(PLAIN[10:].encode(), mtime=0),
        ),
        ("a.csv.gz", gzip.compress(PLAIN.encode(), mtime=0) + b"\0" * 600),
        ("no extension", PLAIN),
    ],
)
def test_text_in_every_dress_gives_the_same_cells(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    frame = read_table(write(tmp_path, name, content))
    assert cells(frame) == {"age": ["31", None], "job": ["cook", "baker"]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "sniffed"])
def test_json_lines_keep_their_types(tmp_path: Path, name: str) -> None:
    text = b'{"age":31,"id":"007","fit":true}\n\n{"id":"008","fit":false,"new":1.5}\n'
    path = write(tmp_path, name, gzip.compress(text) if name.endswith("gz") else text)
    assert cells(read_table(path)) == {
        "age": [31, None],
        "id": ["007", "008"],
        "fit": [True, False],
        "new": [None, 1.5],
    }


def test_json_lines_may_mix_types(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"a":1}\n{"a":"x"}\n{"b":null}\n')
    assert cells(read_table(path)) == {"a": [1, "x", None], "b": [None, None, None]}


def typed_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "big": pd.array([2**60 + 1, None], dtype="Int64"),
            "text": ["NA", None],
            "when": pd.to_datetime(["2024-01-31", None]),
            "level": pd.Categorical(["a", None]),
        }
    )


@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_binary_formats_lose_nothing(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    getattr(typed_frame(), f"to_{form}")(path)
    for file in (path, write(tmp_path, f"b.{form}.gz", gzip.compress(path.read_bytes()))):
        frame = read_table(file)
        expected = {"big": [2**60 + 1, None], "text": ["NA", None], "level": ["a", None]}
        assert cells(frame[["big", "text", "level"]]) == expected
        assert frame["when"].iloc[0] == pd.Timestamp("2024-01-31")


def test_a_named_index_is_a_column_and_a_nameless_one_is_not(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5]}, index=pd.Index(["x", "y"], name="id"))
    frame.to_parquet(tmp_path / "named.parquet")
    frame.rename_axis(None).to_parquet(tmp_path / "nameless.parquet")
    assert cells(read_table(tmp_path / "named.parquet")) == {"id": ["x", "y"], "a": [1.5, 2.5]}
    assert cells(read_table(tmp_path / "nameless.parquet")) == {"a": [1.5, 2.5]}


@pytest.mark.parametrize("form", ["csv", "tsv", "csv.gz", "jsonl", "parquet", "feather"])
def test_standard_input_is_sniffed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    frame = pd.DataFrame({"a": ["x", "y"], "b": ["u", "v"]})
    buffer = io.BytesIO()
    if form in ("parquet", "feather"):
        getattr(frame, f"to_{form}")(tmp_path / "a")
        buffer = io.BytesIO((tmp_path / "a").read_bytes())
    elif form == "jsonl":
        frame.to_json(buffer, orient="records", lines=True)
    else:
        text = frame.to_csv(index=False, sep="\t" if form == "tsv" else ",").encode()
        buffer.write(gzip.compress(text) if form == "csv.gz" else text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(buffer.getvalue())))
    assert cells(read_table("-")) == {"a": ["x", "y"], "b": ["u", "v"]}


def test_cells_stay_the_text_they_were(tmp_path: Path) -> None:
    text = 'id,big,note\n00123,1e400,"a, ""b""\nc"\n1.0,99999999999999999999,5" pipe\n'
    assert cells(read_table(write(tmp_path, "a.csv", text))) == {
        "id": ["00123", "1.0"],
        "big": ["1e400", "99999999999999999999"],
        "note": ['a, "b"\nc', '5" pipe'],
    }


@pytest.mark.parametrize("mark", sorted(MISSING_MARKS))
def test_marks_are_missing_also_between_spaces(tmp_path: Path, mark: str) -> None:
    frame = read_table(write(tmp_path, "a.csv", f"a,b\n{mark},1\n {mark} ,2\n"))
    assert cells(frame) == {"a": [None, None], "b": ["1", "2"]}


def test_an_empty_line_in_a_table_of_one_column_is_a_cell(tmp_path: Path) -> None:
    assert cells(read_table(write(tmp_path, "a.csv", "a\n1\n\n3\n"))) == {"a": ["1", None, "3"]}


def test_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "a.csv", "a;b;c\n1,5;x,y;1\n-2;z;2\n;w;3\n"))
    assert cells(frame) == {
        "a": ["1.5", "-2", None],
        "b": ["x,y", "z", "w"],
        "c": ["1", "2", "3"],
    }


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb, c\n1\t2, 3\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ('"a;b",c\n"1;2",3\n', ","),
        ("a,b\n1,x;y;z\n2,x;y;z\n", ","),
        ("a,b;c\n1,2;3\n", ";"),
    ],
)
def test_the_delimiter_is_the_one_that_fits_every_line(sample: str, delimiter: str) -> None:
    assert sniff(sample) == delimiter


def test_wide_and_long_lines_pass(tmp_path: Path) -> None:
    names = [f"column_{place}" for place in range(600)]
    row = ["x" * 1000] * 600
    path = write(tmp_path, "a.csv", "\n".join(",".join(line) for line in (names, row, row)))
    frame = read_table(path)
    assert frame.shape == (2, 600)
    assert frame.iloc[1, 599] == "x" * 1000


SAFE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: text == text.strip() and text not in MISSING_MARKS
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(st.none() | NUMBERS, st.none() | SAFE), min_size=10, max_size=20),
    delimiter=st.sampled_from(",;\t|"),
    packed=st.booleans(),
)
def test_any_frame_survives_the_way_through_csv(
    tmp_path: Path, rows: list[tuple[float | None, str | None]], delimiter: str, packed: bool
) -> None:
    rows += [(1.5, "one"), (2.5, "two"), (1.5, "one"), (2.5, "two")]
    frame = pd.DataFrame(rows, columns=["number", "text"]).assign(target=range(len(rows)))
    frame["target"] += 0.5
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    frame.to_csv(path, sep=delimiter, index=False)
    read = read_table(path)
    kinds = {"number": "number", "text": "category"}
    schema = infer_schema(frame, "target", types=kinds)
    for column in schema.columns:
        again = typed(read, column)
        pd.testing.assert_series_equal(again, typed(frame, column), check_exact=True)


# --- what cannot ----------------------------------------------------------------------------

BAD = [
    ("a.csv", b"", TableError, "the file is empty"),
    ("a.csv", b" \r\n\n", TableError, "the file is empty"),
    ("a.csv.gz", gzip.compress(b"", mtime=0), TableError, "the file is empty"),
    ("a.csv", b"a,b", TableError, "no rows below"),
    ("a.csv", b"a,b\n\n", TableError, "no rows below"),
    ("a.csv", b"a,b\n1,2\n3,4,5\n", TableError, "line 3 has 3 cells.*names 2.*double quotes"),
    ("a.csv", b"a,b\n1,2\n3\n4,5\n", TableError, "line 3 has 1 cell, .*names 2.*complete"),
    ("a.csv", b'a,b\n"x\ny",2\n3\n', TableError, "line 4 has 1 cell"),
    ("a.csv", b"a;b\n1;2\n3;4;5\n", TableError, "line 3 .*separated by semicolons"),
    ("a.csv", b'a,b\n1,"2\n3,4\n5,6\n', TableError, "a quote opens in line 2 and is never"),
    ("a.csv", b'a,b,c\n1,"2,3\n3,4,5\n', TableError, "a quote opens in line 2 and is never"),
    ("a.csv", "a,b\n1,é\n".encode("latin-1"), TableError, r"byte 6 \(line 2\) is 0xe9"),
    ("a.csv", "a,é\n1,2\n".encode("latin-1"), TableError, r"byte 2 \(line 1\) is 0xe9"),
    ("a.csv", b"\xef\xbb\xbfa,b\n1,\xff\n", TableError, r"byte 9 \(line 2\) is 0xff"),
    ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), TableError, "byte 1 .*is zero.*UTF-16"),
    ("a.csv", "a,b\n1,2\n".encode("utf-16")[:-1], TableError, "begins as UTF-16, but byte"),
    ("a.csv", bytes(range(256)), TableError, r"byte 0 \(line 1\) is zero"),
    ("a.csv", b"a,b\n1,\0\n", TableError, r"byte 6 \(line 2\) is zero"),
    ("a.csv", b"PK\x03\x04", TableError, "Excel workbook or a ZIP"),
    ("a.csv", b"\x89PNG\r\n", TableError, "a PNG image"),
    ("a.csv.gz", gzip.compress(PLAIN.encode() * 99, mtime=0)[:-9], TableError, "breaks off after"),
    (
        "a.csv.gz",
        gzip.compress(PLAIN.encode(), mtime=0)[:5],
        TableError,
        "breaks off after 5 bytes",
    ),
    ("a.csv.gz", b"\x1f\x8b\x08\0" + b"\xff" * 99, TableError, "gzip data is damaged"),
    ("a.csv", b"a,b,a\n1,2,3\n", ColumnError, r"called 'a' \(columns 1, 3\)"),
    ("a.csv", b"a, a \n1,2\n", ColumnError, r"called 'a' \(columns 1, 2\)"),
    ("a.csv", b",b\n1,2\n", ColumnError, "column 1 has no name.*index=False"),
    ("a.csv", b"a,,c\n1,2,3\n", ColumnError, "column 2 has no name"),
    ("a.parquet", b"PAR1 but no more", TableError, "parquet data is damaged"),
    ("a.parquet", b"a,b\n1,2\n", TableError, r"called \.parquet, but does not begin as Parquet"),
    ("a.feather", b"ARROW1\0\0 cut", TableError, "feather data is damaged"),
    ("a.jsonl", b'{"a":1}\n{"a":\n', TableError, "line 2 is no JSON object"),
    ("a.jsonl", b'{"a":1}\n\n5\n', TableError, "line 3 is the value '5'"),
    ("a.jsonl", b'{"a":1}\n[1]\n', TableError, "line 2 is an array"),
    ("a.jsonl", b'{"a":1}\n{"a":{"b":2}}\n', TableError, "line 2 has a list or an object .*'a'"),
    ("a.jsonl", b'{"a":[1]}\n', TableError, "line 1 has a list or an object under 'a'"),
    ("a.jsonl", b'{"a":1,"a":2}\n', TableError, "line 1 has the key 'a' twice"),
    ("a.jsonl", b'{"":1}\n', ColumnError, "column 1 has no name"),
    ("a.jsonl", b"{}\n", TableError, "no columns"),
    ("a.jsonl", b'{"a":"\xe9"}\n', TableError, r"byte 6 \(line 1\) is 0xe9"),
    ("a.jsonl", b'{"a":' + b"[" * 99999, TableError, "line 1 .*nested too deeply"),
    ("a.json", b'[{"a":1}]', TableError, "one JSON array.*jq"),
]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"), BAD, ids=[message for *_, message in BAD]
)
def test_a_bad_file_gets_one_clear_message(
    tmp_path: Path, name: str, content: bytes, error: type[InputError], message: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(error, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize(
    ("name", "before", "cell", "message"),
    [
        ("a.csv", b"a,b\n1,2\n3,", b"xx", "line 3 is longer than 16 MB"),
        ("a.csv", b"a,", b"xx", "line 1 is longer than 16 MB"),
        ("a.csv", b'a,b\n1,2\n3,"', b"x\n", "a row is longer than 16 MB"),
        ("a.csv.gz", b"a,b\n1,2\n3,", b"xx", "line 3 is longer than 16 MB"),
        ("a.jsonl", b'{"a":"', b"xx", "line 1 is longer than 16 MB"),
    ],
)
def test_a_cell_of_100_mb_is_refused_without_taking_gigabytes(
    tmp_path: Path, name: str, before: bytes, cell: bytes, message: str
) -> None:
    content = before + cell * (10**8 // 2)
    path = write(tmp_path, name, gzip.compress(content, 1) if name.endswith("gz") else content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(TableError, match=message):
            read_table(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 10**8
    finally:
        tracemalloc.stop()


def test_parquet_without_rows(tmp_path: Path) -> None:
    pd.DataFrame({"a": []}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(TableError, match="no rows"):
        read_table(tmp_path / "rows.parquet")


@pytest.mark.parametrize("about", [b"{nonsense", b'{"a": 1}', b"[]", b'{"columns": 5}'])
def test_parquet_with_spoilt_notes_of_pandas(tmp_path: Path, about: bytes) -> None:
    table = pa.table({"a": [1, 2]}).replace_schema_metadata({b"pandas": about})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"t\.parquet: the parquet data is damaged"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("line", ['{"a": "x\\ud800"}', '{"\\udfff": "x", "a": "y"}'])
def test_half_a_character_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    """Mutant: the whole character that two halves make, refused as well."""
    (tmp_path / "t.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n' + line + "\n")
    with pytest.raises(TableError, match="line 2 has half of a character under"):
        read_table(tmp_path / "t.jsonl")


def test_a_wrong_path_names_the_nearest_files(tmp_path: Path) -> None:
    write(tmp_path, "houses.csv", PLAIN)
    with pytest.raises(TableError, match=r"no such file; did you mean 'houses\.csv'"):
        read_table(tmp_path / "house.csv")
    with pytest.raises(TableError, match=r"no such file; the folder .* does not exist"):
        read_table(tmp_path / "nowhere" / "house.csv")
    with pytest.raises(TableError, match="this is a folder"):
        read_table(tmp_path)
    with pytest.raises(TableError, match="cannot be the name of a file"):
        read_table("a\0b")


def test_standard_input_with_nothing_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(TableError, match="nothing is piped in"):
        read_table("-")


def test_no_file_stays_open(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(TableError):
            read_table(write(tmp_path, "a.csv", b""))
        read_table(write(tmp_path, "a.csv", PLAIN))


@pytest.mark.parametrize("absent", ["pandas", "pyarrow"])
def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtraError, match=r'pip install "dropkit\[tables\]"'):
        read_table("whatever.csv")


def test_a_cell_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_table(write(tmp_path, "a.csv", b"\x1b[31mred,\x1b[31mred\n1,2\n"))
    assert "\x1b" not in str(caught.value)


def test_the_line_limit_leaves_room_for_real_tables() -> None:
    assert rawbytes.LINE_LIMIT >= 10**7
