"""The public surface: one sorted list, equal to what is there, each name with words of its own."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import dropkit
from dropkit import errors

DOCS = Path(__file__).parent.parent / "docs"


def test_all_is_sorted_and_without_doubles() -> None:
    assert dropkit.__all__ == sorted(set(dropkit.__all__))
    assert dir(dropkit) == dropkit.__all__


def test_all_is_what_is_there() -> None:
    there = {
        name
        for name, value in vars(dropkit).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)  # rooms appear here once they are imported
        and name not in {"annotations", "TYPE_CHECKING"}
    }
    late = set(dropkit._LATE) | dropkit._ROOMS
    assert there | late | {"__version__"} == set(dropkit.__all__)


def test_every_exception_is_public() -> None:
    raised = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert raised <= set(dropkit.__all__)


def test_every_exception_stands_in_the_drawn_tree() -> None:
    drawn = errors.__doc__ or ""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert name in drawn or issubclass(kind, Warning)


@pytest.mark.parametrize("name", dropkit.__all__)
def test_every_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(dropkit, name)
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    assert f"`{name}`" in pages or f"`dropkit.{name}`" in pages
    if name != "__version__":
        assert vars(value)["__doc__"] if isinstance(value, type) else value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'DropoutClasifier'"):
        _ = dropkit.DropoutClasifier


def test_a_missing_extra_is_named_with_its_remedy() -> None:
    code = "import sys; sys.modules['pandas'] = None; import dropkit; dropkit.DropoutClassifier"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "MissingExtraError" in ran.stderr
    assert 'pip install "dropkit[tables]"' in ran.stderr
