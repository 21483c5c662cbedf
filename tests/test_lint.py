"""`dropkit lint` as it is used: what it finds on a disk, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from command import Ran, dropkit
from dropkit.inspection.source import SourceFile
from dropkit.rules.linting import Linted

BUG = """\
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8", newline="")
    return folder


def places(*arguments: object) -> list[str]:
    """file:line of all that is found, as JSON has it."""
    report = json.loads(dropkit("lint", *arguments, "--format", "json").out)
    return [f"{f['place']['file']}:{f['place']['line']}" for f in report["findings"]]


def unseen(*arguments: object) -> list[str]:
    return list(json.loads(dropkit("lint", *arguments, "--format", "json").out)["unseen"])


def piped(text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dropkit", "lint", "-", *arguments]
    return subprocess.run(command, input=text, capture_output=True, check=False)


# ---- how it ends


def test_it_ends_with_what_it_found(tmp_path: Path) -> None:
    clean, bug = tree(tmp_path / "a", {"net.py": "x = 1\n"}), tree(tmp_path / "b", {"n.py": BUG})
    assert dropkit("lint", clean).code == 0
    assert dropkit("lint", bug).code == 1
    assert dropkit("lint", bug, "--fail-on", "never").code == 0
    assert dropkit("lint", bug, "--fail-on", "error").code == 1
    assert dropkit("lint", bug, "--ignore", "DK101").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "'nowhere' is not there"),
        ([".", "--select", "always-on-dropuot"], "Try always-on-dropout"),
        ([".", "--config", "nowhere.toml"], "expected a TOML file"),
        ([".", "--isolated", "--config", "x.toml"], "try one of them"),
        (["-", "."], "stands alone"),
        ([".", "--format", "xml"], "Invalid value"),
    ],
)
def test_what_cannot_be_followed_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = dropkit("lint", *arguments)
    assert ran.code == 2 and said in ran.err and ran.out == ""


def test_it_says_when_there_was_nothing_to_look_at(tmp_path: Path) -> None:
    ran = dropkit("lint", tmp_path)
    assert ran.code == 0 and "no Python file or notebook" in ran.err and "0 files" in ran.out


# ---- what it looks at


def test_it_looks_at_what_is_the_projects_own(tmp_path: Path) -> None:
    names = ["a.py", "pkg/b.py", "pkg/c.pyi", "pkg/d.txt", ".venv/lib/e.py", "node_modules/f.py"]
    names += ["site-packages/g.py", "env/lib/h.py", "build/i.py", "__pycache__/j.py"]
    folder = tree(tmp_path, dict.fromkeys(names, BUG))
    (folder / "env" / "pyvenv.cfg").write_text("")
    assert places(folder) == [f"{folder}/a.py:6", f"{folder}/pkg/b.py:6", f"{folder}/pkg/c.pyi:6"]
    assert len(places(folder / ".venv")) == 1
    assert len(places(folder / "build" / "i.py")) == 1
    assert len(places(folder, folder / "a.py")) == 3


def test_gitignore_is_followed(tmp_path: Path) -> None:
    ignored = "gen/\n*_pb2.py\n/top.py\n!keep_pb2.py\n# a comment\ndeep/**/x.py\n"
    names = ["gen/a.py", "b_pb2.py", "keep_pb2.py", "top.py", "in/top.py", "deep/1/x.py", "in/y.py"]
    folder = tree(tmp_path, {**dict.fromkeys(names, BUG), ".gitignore": ignored, ".git/HEAD": ""})
    tree(folder, {"in/.gitignore": "y.py\n"})
    seen = [os.path.relpath(place, folder) for place in places(folder)]
    assert seen == ["in/top.py:6", "keep_pb2.py:6"]
    assert [os.path.relpath(place, folder) for place in places(folder / "in")] == ["in/top.py:6"]
    assert len(places(folder, "--no-gitignore")) == 7


def test_links_are_followed_to_files_and_never_around(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"pkg/net.py": BUG})
    (folder / "pkg" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "pkg" / "same.py").symlink_to(folder / "pkg" / "net.py")
    (folder / "pkg" / "dead.py").symlink_to(folder / "nowhere.py")
    assert len(places(folder)) == 1
    os.mkfifo(folder / "pkg" / "pipe.py")
    assert len(places(folder)) == 1


def test_a_folder_that_may_not_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(tmp_path, {"pkg/net.py": BUG, "shut/net.py": BUG})
    real = os.scandir

    def guarded(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert len(places(folder)) == 1
    assert unseen(folder) == [f"{folder}/shut: cannot be entered: Permission denied"]


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(tmp_path, {"a.py": BUG, "b.py": BUG})
    real = open

    def guarded(path: object, *rest: object, **more: object) -> object:
        if str(path).endswith("a.py"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", guarded)
    ran = dropkit("lint", folder)
    assert ran.code == 1 and "a.py: cannot be read: Permission denied" in " ".join(ran.out.split())
    assert "b.py" in ran.out


# ---- what it cannot understand


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BUG.replace("def forward(", "def forward((").encode(), ":5: it does not parse"),
        (BUG.encode() + b"\0", "null bytes"),
        (BUG.encode() + b"# \xff\n", ":7: it declares no encoding"),
        (b"# coding: klingon\n" + BUG.encode(), "which Python lacks"),
        (b"# coding: hex\n" + BUG.encode(), "which Python lacks"),
        (BUG.encode() + b"x = " + b"(" * 500 + b")" * 500 + b"\n", "it"),
        (BUG.encode() + b"x = " + b"-" * 100_000 + b"1\n", "it"),
        (BUG.encode("utf-16"), "null bytes"),
        (b"torch dropout print 'of Python 2'\n", "it does not parse"),
    ],
)
def test_what_is_no_python_is_named_and_the_rest_is_judged(
    tmp_path: Path, content: bytes, said: str
) -> None:
    folder = tree(tmp_path, {"good.py": BUG})
    (folder / "bad.py").write_bytes(content)
    assert len(places(folder)) == 1
    if content.startswith(b"\xff\xfe"):
        return  # its words cannot be seen, so it is passed over
    (reason,) = unseen(folder)
    assert "bad.py" in reason and said in reason
    (folder / "good.py").unlink()
    assert dropkit("lint", folder).code == 1
    assert dropkit("lint", folder, "--allow-unseen").code == 0


def test_long_sums_and_deep_blocks_are_read(tmp_path: Path) -> None:
    deep = "".join(f"{' ' * depth}if x:\n" for depth in range(90)) + " " * 90 + "pass\n"
    wide = "x = " + " + ".join(["1"] * 2000) + "\n"
    folder = tree(tmp_path, {"net.py": BUG + deep + wide})
    assert len(places(folder)) == 1


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8-sig", "euc-jp"])
def test_encodings_are_read_as_python_reads_them(tmp_path: Path, encoding: str) -> None:
    said = BUG.replace("0.5)", "0.5)  # 日本" if encoding == "euc-jp" else "0.5)  # é")
    cookie = f"#!/bin/sh\n# vim: set fileencoding={encoding} :\n"
    text = said if encoding == "utf-8-sig" else cookie + said
    (tmp_path / "net.py").write_bytes(text.encode(encoding))
    assert len(places(tmp_path)) == 1


def test_a_rule_that_breaks_on_a_file_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dropkit.apps.lint import judging

    folder = tree(tmp_path, {"a.py": BUG, "b.py": BUG})
    real = judging.judged

    def broken(file: SourceFile, *rest: Any) -> Linted:
        if file.path.endswith("a.py"):
            raise KeyError("rate")
        return real(file, *rest)

    monkeypatch.setattr(judging, "judged", broken)
    assert places(folder) == [f"{folder}/b.py:6"]
    assert "a.py: dropkit has a bug here, please report it: KeyError('rate')" in unseen(folder)[0]


@pytest.mark.parametrize("rate", ["self" + ".a" * 3000, "-" * 3000 + "x", "f(" * 90 + ")" * 90])
def test_deep_expressions_end(tmp_path: Path, rate: str) -> None:
    folder = tree(tmp_path, {"net.py": BUG.replace("0.5", rate), "good.py": BUG})
    assert f"{folder}/good.py:6" in places(folder)


# ---- notebooks


def notebook(*cells: str) -> str:
    made = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# F.dropout"}, *made]})


def test_a_notebook_is_judged_cell_by_cell(tmp_path: Path) -> None:
    head, rest = BUG.split("\n\n")
    text = notebook("%matplotlib inline\n!pip install torch\n" + head, "x = (", "\n" + rest)
    folder = tree(tmp_path, {"n.ipynb": text})
    assert places(folder) == [f"{folder}/n.ipynb:cell 4:4"]
    assert "n.ipynb:cell 3:1: it does not parse" in unseen(folder)[0]
    ran = dropkit("lint", folder, "--format", "github")
    assert f"file={folder}/n.ipynb,line=1" in ran.out and "cell 4, line 4" in ran.out


def test_magics_do_not_hide_a_cell(tmp_path: Path) -> None:
    magic = "files = !ls\nnet = %time make()\nnet?\n%%timeit\n"
    folder = tree(tmp_path, {"n.ipynb": notebook(BUG + magic), "b.ipynb": notebook("%%bash\nls (")})
    assert len(places(folder)) == 1 and unseen(folder) == []


def test_comments_and_fixes_in_notebooks(tmp_path: Path) -> None:
    allowed = BUG.replace("0.5)", "0.5)  # dropkit: allow=DK101")
    folder = tree(tmp_path, {"a.ipynb": notebook("x = 1", allowed), "b.ipynb": notebook(BUG)})
    assert places(folder) == [f"{folder}/b.ipynb:cell 2:6"]
    before = (folder / "b.ipynb").read_bytes()
    assert dropkit("lint", "--fix", folder).code == 1
    assert (folder / "b.ipynb").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"cells": [3]}', "null"])
def test_what_is_no_notebook_is_named(tmp_path: Path, text: str) -> None:
    folder = tree(tmp_path, {"n.ipynb": text + " " * 9, "m.ipynb": f"{text} torch dropout"})
    assert "m.ipynb: it is no notebook" in unseen(folder)[0]


# ---- standard input and output


def test_standard_input_is_judged_and_fixed() -> None:
    ran = piped(BUG.encode())
    assert ran.returncode == 1 and b"always-on-dropout" in ran.stdout
    ran = piped(BUG.encode(), "--fix")
    assert ran.returncode == 0 and b"fixed 1 finding" in ran.stderr
    assert ran.stdout.decode() == BUG.replace("0.5)", "0.5, training=self.training)")
    assert piped(b"x = 1\r\n", "--fix").stdout == b"x = 1\r\n"
    assert b"tests/net.py" in piped(b"torch dropout (", "--stdin-filename", "tests/net.py").stdout


@pytest.mark.parametrize("form", ["text", "json", "sarif", "github", "junit", "html"])
def test_each_format_names_the_rule_and_the_line(tmp_path: Path, form: str) -> None:
    folder = tree(tmp_path, {"net.py": BUG})
    ran = dropkit("lint", folder, "--format", form)
    assert ran.code == 1 and "always-on-dropout" in ran.out and "net.py" in ran.out
    target = tmp_path / "report"
    ran = dropkit("lint", folder, "--format", form, "--out", target)
    assert (ran.code, ran.out) == (1, "") and "always-on-dropout" in target.read_text("utf-8")


def test_many_files_are_judged_by_several_processes_alike(tmp_path: Path) -> None:
    folder = tree(tmp_path, {f"p{n % 7}/net{n}.py": BUG if n % 3 == 0 else "" for n in range(150)})
    alone, together = dropkit("lint", folder, "--jobs", 1), dropkit("lint", folder, "--jobs", 2)
    assert alone == together and alone.code == 1


# ---- what it costs


def test_a_run_loads_nothing_heavy(tmp_path: Path) -> None:
    folder = tree(tmp_path, {"net.py": BUG, "n.ipynb": notebook(BUG)})
    code = f"""
import contextlib, io, sys
from dropkit.apps.cli import execute
with contextlib.redirect_stdout(io.StringIO()):
    code = execute(["lint", {str(folder)!r}])
heavy = {{"torch", "numpy", "pandas", "rich", "jinja2", "multiprocessing", "asyncio"}}
print(code, sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "1 []\n"


def test_a_hundred_thousand_lines_take_less_than_two_seconds(tmp_path: Path) -> None:
    """Of processor time, so that other work on the machine does not count."""
    right = BUG.replace("0.5)", "0.5, training=self.training)")
    filler = "def made(x):\n    y = [x + 1, 'text', {'a': x}]\n    return y\n\n" * 45
    folder = tree(tmp_path, {f"{n:03}.py": right + filler for n in range(540)})
    lines = sum(path.read_text().count("\n") for path in folder.glob("*.py"))
    began = time.process_time()
    ran: Ran = dropkit("lint", folder, "--jobs", 1)
    assert ran.code == 0 and lines > 100_000
    assert time.process_time() - began < 2.0
