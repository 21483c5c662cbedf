"""Findings that comments, settings and baselines allow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import dropkit
from dropkit.inspection.source import SourceFile, parse
from dropkit.inspection.source.comments import allowances
from dropkit.rules import every
from dropkit.rules.linting import Linted, judged

NET = """\
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):{klass}
    def forward(self, x):{method}
        y = F.dropout({first}
            x, 0.5
        ){last}
        return y{other}
"""


def net(**comments: str) -> str:
    blank = dict.fromkeys(("klass", "method", "first", "last", "other"), "")
    return NET.format(**{**blank, **{name: f"  # {text}" for name, text in comments.items()}})


def lint(text: str) -> Linted:
    file = parse(text, "net.py")
    assert isinstance(file, SourceFile)
    return judged(file, every())


@pytest.mark.parametrize("where", ["klass", "method", "first", "last"])
@pytest.mark.parametrize("name", ["always-on-dropout", "DK101", "DK201, DK101", "DK101 -- meant"])
def test_a_comment_allows_on_its_statement_and_in_its_def_or_class(where: str, name: str) -> None:
    linted = lint(net(**{where: f"dropkit: allow={name}"}))
    assert linted.findings == ()
    assert [finding.code for finding in linted.allowed] == ["DK101"]


@pytest.mark.parametrize(
    "text",
    [
        net(other="dropkit: allow=DK101"),
        net(last="dropkit: allow=DK102"),
        net(last="dropkit allow=DK101"),
        net().replace("return y", 's = """\n# dropkit: allow-file=DK101"""'),
        net(last="noqa") + 's = "# dropkit: allow-file=DK101"\n',
    ],
)
def test_what_is_no_allowance_here_allows_nothing(text: str) -> None:
    assert [finding.code for finding in lint(text).findings] == ["DK101"]


def test_a_file_can_allow_a_rule() -> None:
    assert lint("# dropkit: allow-file=always-on-dropout\n" + net()).findings == ()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    linted = lint(net(last="dropkit: allow=always-on-dropuot"))
    assert len(linted.findings) == 1
    assert "net.py:8: " in linted.unseen[0] and "always-on-dropout" in linted.unseen[0]


def test_an_allowance_of_nothing_is_noted_where_that_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(net(last="dropkit: allow=DK101", other="dropkit: allow=DK201"))
    assert dropkit("lint", file).code == 0
    ran = dropkit("lint", file, "--unused-allowances", "--format", "json")
    (finding,) = json.loads(ran.out)["findings"]
    assert ran.code == 1 and finding["rule"] == "unused-allowance"
    assert finding["place"]["line"] == 9
    assert dropkit("lint", file, "--unused-allowances", "--select", "DK101").code == 0


def test_strings_are_no_comments() -> None:
    assert allowances('x = "# dropkit: allow=DK101"\n') == []
    found = allowances("x = 1  # dropkit: allow=a,b , c\n")
    assert [(a.name, a.line, a.column) for a in found] == [("a", 1, 8), ("b", 1, 8), ("c", 1, 8)]


# ---- settings


def project(folder: Path, settings: str) -> Path:
    (folder / "pkg").mkdir()
    (folder / "pkg" / "net.py").write_text(net())
    (folder / "pyproject.toml").write_text(f"[tool.dropkit.lint]\n{settings}\n")
    return folder


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ("", 1),
        ('select = ["DK2"]', 0),
        ('select = ["DK1"]', 1),
        ('ignore = ["always-on-dropout"]', 0),
        ('exclude = ["pkg/"]', 0),
        ('exclude = ["n*.py", "!net.py"]', 1),
        ('per-file-allow = { "pkg/*" = ["DK101"] }', 0),
        ('per-file-allow = { "pkg" = ["DK101"] }', 0),
        ('per-file-allow = { "other/*" = ["DK101"] }', 1),
    ],
)
def test_a_project_says_how_it_is_linted(tmp_path: Path, settings: str, code: int) -> None:
    folder = project(tmp_path, settings)
    assert dropkit("lint", folder).code == code
    assert dropkit("lint", folder / "pkg").code == code
    assert dropkit("lint", folder, "--isolated").code == 1
    assert dropkit("lint", folder, "--config", folder / "pyproject.toml").code == code


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('selct = ["DK1"]', "Try select"),
        ('select = "DK1"', "expected a list of strings"),
        ('select = ["DK999"]', "expected the name or code of a rule"),
        ("per-file-allow = 3", "expected a table"),
        ('per-file-allow = { "*" = ["always-on"] }', "always-on-dropout"),
        ("baseline = 3", "expected the name of a file"),
        ("select = [", "expected a TOML file"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings: str, said: str) -> None:
    ran = dropkit("lint", project(tmp_path, settings))
    assert ran.code == 2 and said in ran.err and "pyproject.toml" in ran.err
    assert ran.out == ""


# ---- baselines


def test_a_baseline_knows_a_finding_on_another_line(tmp_path: Path) -> None:
    file, known = tmp_path / "net.py", tmp_path / "known.json"
    file.write_text(net())
    assert dropkit("lint", file, "--write-baseline").code == 2
    ran = dropkit("lint", file, "--write-baseline", "--baseline", known)
    assert (ran.code, ran.out) == (0, "") and "1 finding" in ran.err
    file.write_text("import os\n\n\n" + net())
    ran = dropkit("lint", file, "--baseline", known)
    assert ran.code == 0 and "Allowed: 1 finding" in ran.out
    file.write_text(net().replace("return y", "return F.dropout(y)"))
    assert dropkit("lint", file, "--baseline", known).code == 1
    file.write_text("")
    assert "1 finding is gone from" in dropkit("lint", file, "--baseline", known).err


def test_a_baseline_counts(tmp_path: Path) -> None:
    file, known = tmp_path / "net.py", tmp_path / "known.json"
    twice = net().replace("return y", "y = F.dropout(x)\n        return y")
    file.write_text(twice)
    dropkit("lint", file, "--write-baseline", "--baseline", known)
    assert dropkit("lint", file, "--baseline", known).code == 0
    file.write_text(twice.replace("return y", "y = F.dropout(x)\n        return y"))
    ran = dropkit("lint", file, "--baseline", known, "--format", "json")
    assert len(json.loads(ran.out)["findings"]) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 9}', '{"version": 1}', "\xff"])
def test_what_is_no_baseline_is_refused(tmp_path: Path, content: str) -> None:
    file, known = tmp_path / "net.py", tmp_path / "known.json"
    file.write_text(net())
    assert dropkit("lint", file, "--baseline", known).code == 2
    known.write_text(content, "latin-1")
    ran = dropkit("lint", file, "--baseline", known)
    assert ran.code == 2 and "expected a baseline" in ran.err
