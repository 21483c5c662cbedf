"""What is told of the suite on each kernel: what was run, under which conditions, and nothing else.

That a kernel is right is not tested here: `make conformance KERNEL=...` takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed
from benchmarks import conformance_kernels as kernels

from dropkit.testing import Subject

RIGHT = Subject(make=nn.Dropout, shape=(8, 16), name="right", claims=frozenset())
WRONG = Subject(make=lambda p: nn.Dropout(p / 2), shape=(8, 16), name="wrong", claims=frozenset())
CONDITIONS = {"effort": "small", "seed": 0, "versions": {"torch": "2.13"}, "code": "a"}


def rows(file: Path) -> list[str]:
    return [row["dropout"] for row in json.loads(file.read_text("utf-8"))["rows"]]


def test_a_run_goes_on_and_a_table_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "triton.json"
    kernels.run([RIGHT], "small", file, CONDITIONS)
    checked: list[str] = []
    real = kernels.found
    monkeypatch.setattr(
        kernels, "found", lambda s, effort: checked.append(s.name) or real(s, effort)
    )
    kernels.run([RIGHT, WRONG], "small", file, CONDITIONS)
    assert checked == ["wrong"] and rows(file) == ["right", "wrong"]
    text = "\n".join(kernels.section(tmp_path))
    assert "| dropout | Triton, interpreted |" in text
    assert "| right | 15 ok |" in text and "| wrong | 10 ok, **5 FAIL** |" in text
    assert "- Triton, interpreted, wrong: rate: " in text and "a small run" in text
    kernels.run([RIGHT], "small", file, {**CONDITIONS, "code": "b"})
    assert checked == ["wrong", "right"] and rows(file) == ["right"], "other code is run anew"


def test_a_section_takes_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, file = tmp_path / "page.md", tmp_path / "avx2.json"
    monkeypatch.setattr(kernels.section, "__defaults__", (tmp_path,))
    file.write_text(json.dumps({"conditions": CONDITIONS, "rows": []}), "utf-8")
    page.write_text("# A\n\n## Keys\n\nk\n\n## What failed\n\nNothing.\n", "utf-8")
    kernels.write(page)
    once = page.read_text("utf-8")
    assert once.startswith("# A\n\n## Keys\n\nk\n\n## Kernels\n")
    assert once.endswith(".\n\n## What failed\n\nNothing.\n")
    kernels.write(page)
    assert page.read_text("utf-8") == once


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"DROPKIT_KERNEL": ""}, "expected DROPKIT_KERNEL to name a kernel"),
        ({"DROPKIT_KERNEL": "triton", "TRITON_INTERPRET": "0"}, "and TRITON_INTERPRET=1"),
    ],
)
def test_no_other_kernel_is_taken_for_the_one_named(names: dict[str, str], said: str) -> None:
    script = Path(kernels.__file__)
    ran = subprocess.run(
        [sys.executable, script, "--only", "no such dropout"],
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1 and said in ran.stderr
