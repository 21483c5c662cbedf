"""`assert_clean`, as others' tests use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dropkit.apps.pytest_plugin import assert_clean


class Net(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5).sum(-1)


def test_findings_fail_with_the_report() -> None:
    with pytest.raises(AssertionError, match="always-on-dropout DK101"):
        assert_clean(Net(), torch.ones(2, 8), select=["always-on-dropout"])


def test_what_is_allowed_passes() -> None:
    assert_clean(Net(), torch.ones(2, 8), allow=["always-on-dropout"], select=["always-on-dropout"])
    assert_clean(Net(), torch.ones(2, 8), allow="DK101", select=["always-on-dropout"])


SUITE = """
import torch

def test_it(assert_clean):
    assert_clean(torch.nn.Linear(2, 2), torch.ones(3, 2))
"""


def test_the_fixture_is_there(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout
