"""Heavy packages load late: neither `import dropkit` nor `dropkit --help` waits for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "pandas", "sklearn", "matplotlib", "pyarrow", "rich", "numpy", "scipy", "optuna"}

IMPORT = "import dropkit"
HELP = """
import contextlib, io
from dropkit.apps.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main({arguments!r})
"""
REPORT = """
import json, sys
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

CASES = {
    "import dropkit": IMPORT,
    "dropkit --help": HELP.format(arguments=["--help"]),
    "dropkit fit --help": HELP.format(arguments=["fit", "--help"]),
    "dropkit lint --help": HELP.format(arguments=["lint", "--help"]),
    "dropkit lint": HELP.format(arguments=["lint", "--isolated", __file__]),
    "dropkit predict --help": HELP.format(arguments=["predict", "--help"]),
    "dropkit audit --help": HELP.format(arguments=["audit", "--help"]),
    "dropkit tune --help": HELP.format(arguments=["tune", "--help"]),
    "dropkit rules": HELP.format(arguments=["rules"]),
    "dropkit explain": HELP.format(arguments=["explain", "DK101"]),
}


def loaded(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running the code."""
    ran = subprocess.run(
        [sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True
    )
    return set(json.loads(ran.stdout))


@pytest.mark.parametrize("case", CASES)
def test_nothing_heavy_is_loaded(case: str) -> None:
    assert loaded(CASES[case]) & HEAVY == set()


def test_mutant_an_early_import_is_seen() -> None:
    assert loaded(f"{IMPORT}\nimport numpy") & HEAVY == {"numpy"}


def seconds(code: str) -> float:
    """Time of the code beyond an interpreter's start: the quietest of five runs."""
    timed = f"import time\nbegan = time.perf_counter()\n{code}\nprint(time.perf_counter() - began)"
    command = [sys.executable, "-c", timed]
    return min(float(subprocess.check_output(command, text=True)) for _ in range(5))


def test_import_and_help_are_quick() -> None:
    assert seconds(CASES["import dropkit"]) < 0.15
    assert seconds(CASES["dropkit --help"]) < 0.4
