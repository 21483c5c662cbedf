"""The house rules that a linter does not know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dropkit

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT)
    for room in ("src", "tests", "benchmarks")
    for path in ROOT.glob(f"{room}/**/*.py")
)
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)

LONGEST_MODULE = 500
LONGEST_FUNCTION = 60
LONG_FOR_A_REASON: dict[str, str] = {  # "path::function": the reason
    "src/dropkit/apps/tuning/searching.py::search": "a line for each of twenty options",
    "src/dropkit/posterior/sampling.py::sample": "a line for each of twenty options",
}


def long_functions(source: str) -> list[str]:
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_fits_in_a_head(path: Path) -> None:
    source = (ROOT / path).read_text("utf-8")
    assert len(source.splitlines()) <= LONGEST_MODULE
    assert {f"{path}::{name}" for name in long_functions(source)} <= set(LONG_FOR_A_REASON)
    assert "utils" not in path.stem


def test_every_room_is_a_package() -> None:
    rooms = {(ROOT / path).parent for path in MODULES if path.parts[0] == "src"}
    assert [room for room in rooms if not (room / "__init__.py").exists()] == []


def test_mutant_a_long_function_is_seen() -> None:
    assert long_functions("def sprawl():\n" + "    pass\n" * LONGEST_FUNCTION) == ["sprawl"]
    assert long_functions("def fits():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)) == []


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=str)
def test_nothing_is_left_for_later(path: Path) -> None:
    later = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    assert not re.search(rf"\b({later})\b", (ROOT / path).read_text("utf-8"))


def test_one_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\nversion: {dropkit.__version__}\n" in citation
    assert f"\n## [{dropkit.__version__}]" in changelog


def requirements() -> list[str]:
    """The lines of pyproject.toml from the first dependency to the last extra."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    start, end = text.index("\ndependencies = ["), text.index("\n[project.scripts]")
    return [line.strip() for line in text[start:end].splitlines() if line.startswith('    "')]


@pytest.mark.parametrize("line", requirements())
def test_a_dependency_has_a_reason_and_a_pin(line: str) -> None:
    requirement, _, reason = line.partition(",")
    name = re.split(r"[\[>=<]", requirement.strip('"'))[0]
    assert re.match(r"\s*# \S", reason)
    assert f"\n{name}==" in (ROOT / "constraints.txt").read_text("utf-8")
