"""What --fix writes: only what the finding is about, until nothing is left to fix."""

from __future__ import annotations

import ast
import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import dropkit
from dropkit.apps.lint import writing
from dropkit.errors import FolderError
from dropkit.inspection.source import SourceFile, parse
from dropkit.rules import every
from dropkit.rules.linting import judged
from dropkit.rules.mending import mended

HEAD = """\
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate{more}

    def forward(self, x):
        {line}
"""


def fixed(text: str) -> str:
    file = parse(text, "net.py")
    assert isinstance(file, SourceFile)
    return mended(file, every()).text


LINES = {
    "return F.dropout(x)": "return F.dropout(x, training=self.training)",
    "return F.dropout(x, self.rate)": "return F.dropout(x, self.rate, training=self.training)",
    "return F.dropout((x), (0.5))": "return F.dropout((x), (0.5), training=self.training)",
    "return F.dropout(x, 0.5,)": "return F.dropout(x, 0.5, training=self.training,)",
    "return F.dropout(x, p=0.5 ) # )": "return F.dropout(x, p=0.5, training=self.training ) # )",
    "return F.dropout(  # (\n            x\n        )": (
        "return F.dropout(  # (\n            x, training=self.training\n        )"
    ),
    "return F.dropout(x if x else (x))": (
        "return F.dropout(x if x else (x), training=self.training)"
    ),
    "return F.dropout(F.dropout2d(x))": (
        "return F.dropout(F.dropout2d(x, training=self.training), training=self.training)"
    ),
    'é = "日本"; return F.dropout(x)': 'é = "日本"; return F.dropout(x, training=self.training)',
    "return F.alpha_dropout(x, 0.1)": "return F.alpha_dropout(x, 0.1, training=self.training)",
    "return F.scaled_dot_product_attention(x, x, x, None, self.rate)": (
        "return F.scaled_dot_product_attention(x, x, x, None, self.rate if self.training else 0.0)"
    ),
    "return F.scaled_dot_product_attention(x, x, x, dropout_p=(0.1 if self.rate else 0.2))": (
        "return F.scaled_dot_product_attention(x, x, x, "
        "dropout_p=((0.1 if self.rate else 0.2) if self.training else 0.0))"
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_fixed_and_nothing_else(line: str) -> None:
    text = HEAD.format(more="", line=line)
    assert fixed(text) == HEAD.format(more="", line=LINES[line])


def test_a_module_moves_to_init() -> None:
    text = HEAD.format(more="  # the rate", line="return nn.Dropout(0.5)(x)")
    more = "  # the rate\n        self.dropout = nn.Dropout(0.5)"
    assert fixed(text) == HEAD.format(more=more, line="return self.dropout(x)")


def test_two_modules_get_two_names() -> None:
    text = HEAD.format(more="", line="y = nn.Dropout(0.5)(x); return nn.Dropout2d(0.5)(y)")
    after = fixed(text)
    assert "self.dropout = nn.Dropout(0.5)\n" in after
    assert "self.dropout_2 = nn.Dropout2d(0.5)\n" in after
    assert "y = self.dropout(x); return self.dropout_2(y)" in after


NOT_SAFE = {
    "a True that may be meant": ("return F.dropout(x, 0.5, True)", ""),
    "a rate that only forward knows": ("r = 0.5\n        return nn.Dropout(r)(x)", ""),
    "a part of a Sequential": ("return nn.Sequential(nn.Dropout(0.5))(x)", ""),
    "an __init__ that returns": ("return nn.Dropout(0.5)(x)", "\n        return"),
    "what is kept": ("return F.dropout(x, self.keep_prob, self.training)", ""),
}


@pytest.mark.parametrize("case", NOT_SAFE)
def test_what_is_not_safe_is_left(case: str) -> None:
    line, more = NOT_SAFE[case]
    text = HEAD.format(more=more, line=line)
    assert fixed(text) == text
    file = parse(text, "net.py")
    assert isinstance(file, SourceFile) and judged(file, every()).findings


def test_where_self_is_not_known_to_be_a_module_nothing_is_written() -> None:
    text = HEAD.format(more="", line="return F.dropout(x)")
    stranger = text.replace("class Net(nn.Module)", "class Net(Stranger)")
    renamed = text.replace("def forward(self, x)", "def forward(this, x)")
    assert fixed(stranger) == stranger
    assert fixed(renamed) == renamed


def test_what_is_allowed_is_not_fixed() -> None:
    text = HEAD.format(more="", line="return F.dropout(x)  # dropkit: allow=DK101")
    assert fixed(text) == text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(LINES)), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_fixes_together_converge(lines: list[str], end: str, last: bool) -> None:
    body = "\n        ".join(line.replace("return ", "x = ") for line in lines)
    text = HEAD.format(more="", line=body).replace("\n", end)
    text = text if last else text.rstrip()
    after = fixed(text)
    ast.parse(after)
    assert fixed(after) == after
    assert after.endswith(end) == last
    rest = iter(after)
    assert all(letter in rest for letter in text)  # in this order: these fixes only add


WRONG = HEAD.format(more="", line="return F.dropout(x)  # é")
RIGHT = HEAD.format(more="", line="return F.dropout(x, training=self.training)  # é")
COOKIE = "# -*- coding: latin-1 -*-\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WRONG.encode(), RIGHT.encode()),
        (codecs.BOM_UTF8 + WRONG.encode(), codecs.BOM_UTF8 + RIGHT.encode()),
        ((COOKIE + WRONG).encode("latin-1"), (COOKIE + RIGHT).encode("latin-1")),
        (WRONG.replace("\n", "\r\n").encode(), RIGHT.replace("\n", "\r\n").encode()),
        (WRONG.rstrip().encode(), RIGHT.rstrip().encode()),
    ],
    ids=["utf-8", "mark", "latin-1", "crlf", "no end"],
)
def test_a_file_keeps_how_it_is_written(tmp_path: Path, before: bytes, after: bytes) -> None:
    file = tmp_path / "net.py"
    file.write_bytes(before)
    file.chmod(0o640)
    ran = dropkit("lint", "--fix", file)
    assert ran.code == 0 and "fixed 1 finding in 1 file" in ran.err
    assert file.read_bytes() == after
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]
    assert dropkit("lint", "--fix", file).err == ""
    assert file.read_bytes() == after


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "net.py", tmp_path / "link.py"
    file.write_text(WRONG, "utf-8")
    link.symlink_to(file)
    assert dropkit("lint", "--fix", link).code == 0
    assert link.is_symlink() and file.read_text("utf-8") == RIGHT


def test_diff_writes_nothing_and_says_what_would_change(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(WRONG.rstrip(), "utf-8")
    ran = dropkit("lint", "--diff", file)
    assert ran.code == 1
    assert file.read_text("utf-8") == WRONG.rstrip()
    added = [line for line in ran.out.splitlines() if line.startswith("+ ")]
    assert added == ["+        return F.dropout(x, training=self.training)  # é"]
    assert "\\ No newline at end of file" in ran.out
    assert dropkit("lint", "--fix", file).code == 0
    assert dropkit("lint", "--diff", file).out == ""


def test_a_file_that_changes_meanwhile_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_bytes(b"new")
    with pytest.raises(FolderError, match="changed while it was looked at"):
        writing.write(file, b"fixed", b"old")
    assert file.read_bytes() == b"new" and list(tmp_path.iterdir()) == [file]


def test_a_write_that_breaks_off_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.py"
    file.write_text(WRONG, "utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    ran = dropkit("lint", "--fix", file)
    assert ran.code == 1 and "No space left on device" in ran.out
    assert file.read_text("utf-8") == WRONG and list(tmp_path.iterdir()) == [file]
