"""The command, from its arguments to its exit code."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from command import FILES, dropkit, files, fit, read, rows, write
from dropkit.apps import fitting
from dropkit.apps.clock import seconds
from dropkit.apps.predictions import escape
from dropkit.apps.progress import Live, Plain
from dropkit.apps.request import Request, stem
from dropkit.errors import SettingError
from dropkit.records import Progress

# What a fit leaves


def test_a_fit_leaves_a_model_folder_and_its_verdict(tmp_path: Path, people: Path) -> None:
    ran = fit(people, "colour", "--out", tmp_path / "model")
    assert ran.code == 0, ran.err
    assert files(tmp_path / "model") == FILES
    assert ran.out == ""
    assert "64 rows to learn from, 16 held out" in ran.err
    assert "On 16 rows that no choice has seen" in ran.err
    assert ran.err.rstrip().endswith(f"Report: {tmp_path / 'model' / 'report.html'}")


def test_the_folder_is_named_after_the_table(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit("people.csv", "price", "--quiet").err == ""
    assert files(tmp_path) == {"people.csv", "people.dropkit"}


def test_the_same_seed_gives_the_same_bits(tmp_path: Path, people: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert fit(people, "price", "--out", tmp_path / name, "--seed", seed).code == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    held = [(tmp_path / name / "test_predictions.csv").read_bytes() for name in "ab"]
    assert held[0] == held[1]


def test_no_holdout(tmp_path: Path, people: Path) -> None:
    ran = fit(people, "colour", "--out", tmp_path / "model", "--test-size", 0)
    assert ran.code == 0, ran.err
    assert files(tmp_path / "model") == FILES - {"test_predictions.csv"}


def test_a_holdout_in_a_file_of_its_own(tmp_path: Path, people: Path) -> None:
    test = write(tmp_path / "later.csv", rows(110)[80:])
    ran = fit(people, "colour", "--out", tmp_path / "model", "--test", test)
    assert ran.code == 0, ran.err
    assert "80 rows to learn from, 30 held out" in ran.err
    predictions = read((tmp_path / "model" / "test_predictions.csv").read_text())
    assert [row["key"] for row in predictions] == [f"k{number:04d}" for number in range(80, 110)]


def test_rows_without_a_target_are_left_out_if_asked(tmp_path: Path) -> None:
    table = rows()
    for number in (3, 40):
        table[number]["colour"] = ""
    ran = fit(
        write(tmp_path / "t.csv", table), "colour", "--out", tmp_path / "m", "--drop-unlabelled"
    )
    assert ran.code == 0, ran.err
    made = json.loads((tmp_path / "m" / "model.json").read_text())["made"]
    assert made["rows"] == 78


def test_a_table_from_standard_input(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed() -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(people.read_bytes())))

    feed()
    ran = fit("-", "colour", "--out", tmp_path / "model")
    assert ran.code == 0, ran.err
    feed()
    predicted = dropkit("predict", tmp_path / "model", "-")
    assert len(read(predicted.out)) == 80


def test_a_larger_classification_keeps_the_shares_of_its_classes() -> None:
    import numpy as np

    from dropkit.apps.material import split

    target = np.repeat([0, 1, 2], [700, 297, 3])
    kept, away = split(target, 3, 0.2, seed=5)
    assert sorted([*kept, *away]) == list(range(1000))
    assert np.bincount(target[away]).tolist() in ([140, 59, 1], [140, 60, 0])
    assert (split(target, 3, 0.2, seed=5)[1] == away).all()
    assert (split(target, 3, 0.2, seed=6)[1] != away).any()


# Predictions


def in_a_new_process(*arguments: object) -> str:
    code = "from dropkit.apps.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["colour", "price"])
def test_a_new_process_predicts_what_the_report_says(
    target: str, tmp_path: Path, people: Path
) -> None:
    assert fit(people, target, "--out", tmp_path / "model").code == 0
    held = read((tmp_path / "model" / "test_predictions.csv").read_text())
    predicted = read(in_a_new_process("predict", tmp_path / "model", people))
    assert len(predicted) == 80
    by_key = {row["key"]: row for row in predicted}
    for row in held:
        del row["truth"]
        assert by_key[row["key"]] == row


def test_rows_keep_their_order_and_their_ids(fitted: Path) -> None:
    table = fitted.parent / "people.csv"
    predicted = read(dropkit("predict", fitted, table).out)
    assert [row["key"] for row in predicted] == [f"k{number:04d}" for number in range(80)]
    assert list(predicted[0]) == ["key", "prediction", "probability_blue", "probability_red"]
    for row in predicted:
        shares = {name: float(row[f"probability_{name}"]) for name in ("blue", "red")}
        assert sum(shares.values()) == pytest.approx(1)
        assert row["prediction"] == max(shares, key=shares.__getitem__)


def test_rows_without_an_id_are_numbered(fitted: Path, tmp_path: Path) -> None:
    table = [{"size": row["size"], "city": row["city"], "price": row["price"]} for row in rows(4)]
    predicted = read(dropkit("predict", fitted, write(tmp_path / "new.csv", table)).out)
    assert [row["row"] for row in predicted] == ["1", "2", "3", "4"]


READERS = {
    ".csv": pd.read_csv,
    ".tsv": lambda path: pd.read_csv(path, sep="\t"),
    ".csv.gz": pd.read_csv,
    ".tsv.gz": lambda path: pd.read_csv(path, sep="\t"),
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".jsonl": lambda path: pd.read_json(path, lines=True, precise_float=True),
}


@pytest.mark.parametrize("ending", READERS)
def test_every_format_holds_the_same_predictions(ending: str, fitted: Path, tmp_path: Path) -> None:
    table, out = fitted.parent / "people.csv", tmp_path / f"predictions{ending}"
    ran = dropkit("predict", fitted, table, "--out", out)
    assert (ran.code, ran.out) == (0, ""), ran.err
    found = READERS[ending](out)
    expected = pd.read_csv(io.StringIO(dropkit("predict", fitted, table).out))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=0, atol=1e-15)
    assert files(tmp_path) == {out.name}


def test_predictions_can_be_read_on_while_they_are_written(fitted: Path) -> None:
    command = [
        *(sys.executable, "-c", "from dropkit.apps.cli import main; main()"),
        *("predict", str(fitted), str(fitted.parent / "people.csv")),
    ]
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    ran = subprocess.run(
        command, stdout=reader.stdin, stderr=subprocess.PIPE, text=True, check=False
    )
    reader.communicate()
    assert (ran.returncode, ran.stderr) == (0, "")


def test_formulas_are_escaped_and_numbers_are_not() -> None:
    dangerous = ("=cmd()", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "-2+3")
    assert [escape(text) for text in dangerous] == [f"'{text}" for text in dangerous]
    for plain in ("plain", "-5", "+1.5e-3", "a=b", "", "'=x"):
        assert escape(plain) == plain


def test_a_class_and_an_id_named_like_a_formula(tmp_path: Path) -> None:
    table = [{**row, "=id()": row["key"], "colour": f"={row['colour']}()"} for row in rows()]
    path = write(tmp_path / "t.csv", table)
    assert fit(path, "colour", "--out", tmp_path / "m", "--id", "=id()").code == 0
    header, first, *_ = dropkit("predict", tmp_path / "m", path).out.splitlines()
    assert header == "'=id(),prediction,probability_=blue(),probability_=red()"
    assert first.split(",")[1] in ("'=blue()", "'=red()")


def test_levels_that_training_has_not_seen_are_said(fitted: Path, tmp_path: Path) -> None:
    table = [{**row, "city": "Atlantis"} for row in rows(3)]
    ran = dropkit("predict", fitted, write(tmp_path / "new.csv", table))
    assert ran.code == 0
    assert "note" in ran.err
    assert "Atlantis" in ran.err
    assert len(read(ran.out)) == 3


# Time


def test_a_cap_is_kept_and_said(tmp_path: Path, people: Path) -> None:
    ran = dropkit(  # of a budget of hours
        *("fit", people, "--target", "price", "--out", tmp_path / "model"),
        *("--budget", 50_000, "--time", "6s"),
    )
    assert ran.code == 0, ran.err
    assert "stopped by the time cap" in ran.err
    assert files(tmp_path / "model") == {*FILES, ".search"}


def test_a_cap_too_small_for_anything_still_says_where_it_stopped(
    tmp_path: Path, people: Path
) -> None:
    ran = fit(people, "price", "--out", tmp_path / "model", "--time", "0.01s")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "model" / "model.json").read_text())["made"]["stopped"] == "time"
    assert dropkit("predict", tmp_path / "model", people).code == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("60s", 60), ("2m", 120), ("1h30m", 5400), ("45", 45), ("0.5s", 0.5)]
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0s", "-3", "m", "5x", "nan", "1e400", "30m1h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(SettingError, match="60s, 2m or 1h30m"):
        seconds(text)


# The command line itself


def test_the_command_in_the_report_asks_for_the_same_again(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def note(run: fitting.Run) -> None:
        asked.append(run.request)
        raise SettingError("enough")

    monkeypatch.setattr(fitting, "fit", note)
    request = Request(
        table="-my table.csv",
        target="the 'target'",
        out="else where.0",
        test_size=0.1234567,
        budget="30.5",
        time=1_440_000.5,
        seed=7,
        threads=2,
        types=(("zip", "category"), ("a=b", "number")),
        drop_unlabelled=True,
        id="key",
    )
    assert dropkit(*shlex.split(request.command)[1:]).code == 2
    assert asked == [replace(request, table="./-my table.csv")]


def test_names_of_tables() -> None:
    names = ("data/adult.csv.gz", "a.b.parquet", "-", "notes", "x.jsonl")
    assert [stem(name) for name in names] == ["adult", "a.b", "stdin", "notes", "x"]


def test_a_misspelt_option_gets_a_hint(people: Path) -> None:
    ran = dropkit("fit", people, "--targt", "colour")
    assert ran.code == 2
    assert "--target" in ran.err


def test_a_bug_is_not_hidden(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fitting, "fit", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        fit(people, "colour")


def test_a_package_that_is_missing_is_named() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from dropkit.apps.cli import main; main(['fit', 'x.csv', '--target', 'y'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert 'needs the package pandas; try: pip install "dropkit[tables]"' in ran.stderr


INTERRUPTED = """
import builtins, sys
real = builtins.__import__
def interrupted(name, *arguments, **options):
    if name == {name!r}:
        raise KeyboardInterrupt
    return real(name, *arguments, **options)
builtins.__import__ = interrupted
from dropkit.apps.cli import main
main(["fit", "x.csv", "--target", "y", "--quiet"])
"""


@pytest.mark.parametrize("name", ["click", "dropkit.apps.clock", "dropkit.apps.interrupts"])
def test_an_early_interrupt_is_quiet(name: str) -> None:
    code = INTERRUPTED.format(name=name)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 130
    assert "Traceback" not in ran.stderr


def test_help_is_there_at_once() -> None:
    def once() -> float:
        began = time.perf_counter()
        in_a_new_process("--help")
        return time.perf_counter() - began

    assert min(once() for _ in range(3)) < 0.4


# What a person sees


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_that_moves() -> None:
    terminal = Terminal()
    live = Live(terminal)
    live.stage("reading")
    live.say("[bold]two[/bold] columns")
    live.update(Progress("round 1", 0.25, 0.5, 24, 32), "best log-loss 0.5", 75.0)
    live.close()
    live.close()
    shown = terminal.getvalue()
    assert "[bold]two[/bold] columns" in shown
    for words in (
        "round 1",
        "25 %",
        "best log-loss 0.5",
        "24 of 32 alive",
        "1 min 15 s left",
    ):
        assert words in shown


def test_a_log_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("dropkit.apps.progress.time.monotonic", lambda: now[0])
    log = io.StringIO()
    plain = Plain(log)
    for tick in range(250):
        now[0] = 100 + tick / 10
        plain.update(Progress("round 1", tick / 250, 0.5, 24, 32), "best log-loss 0.5", 9.0)
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].split() == (
        [
            "4",
            "%",
            "round",
            "1,",
            "9",
            "s",
            "left,",
            "best",
            "log-loss",
            "0.5,",
            "24",
            "of",
            "32",
            "alive",
        ]
    )


def test_gzip_output_depends_on_nothing_but_the_predictions(fitted: Path, tmp_path: Path) -> None:
    table = fitted.parent / "people.csv"
    for name in ("a.csv.gz", "b.csv.gz"):
        assert dropkit("predict", fitted, table, "--out", tmp_path / name).code == 0
    a, b = ((tmp_path / name).read_bytes() for name in ("a.csv.gz", "b.csv.gz"))
    assert a == b
    assert gzip.decompress(a).decode() == dropkit("predict", fitted, table).out
