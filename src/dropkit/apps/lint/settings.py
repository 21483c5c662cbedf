"""What a project says of linting, in `[tool.dropkit.lint]` of its pyproject.toml."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropkit.errors import SettingError
from dropkit.rules.choosing import chosen
from dropkit.rules.registry import named


@dataclass(frozen=True, slots=True)
class Settings:
    """How to lint."""

    root: Path = field(default_factory=Path.cwd)
    """The folder that patterns are read from: that of the pyproject.toml."""
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Patterns, as in a .gitignore, of what is left out."""
    per_file_allow: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(pattern, rules) of findings that are fine in some files."""
    baseline: Path | None = None


KEYS = ("select", "ignore", "exclude", "per-file-allow", "baseline")


def found(paths: Iterable[Path]) -> Settings:
    """Those of the nearest pyproject.toml with a [tool.dropkit] above all paths."""
    starts = [path.absolute() for path in paths]
    first = starts[0] if starts else Path.cwd()
    for folder in (first, *first.parents):
        if not all(start.is_relative_to(folder) for start in starts):
            continue
        file = folder / "pyproject.toml"
        tables = _tables(file) if file.is_file() else {}
        if "dropkit" in tables.get("tool", {}):
            return _settings(file, tables)
    return Settings()


def read(file: Path) -> Settings:
    """The settings in a file.

    Raises:
        SettingError: it cannot be read, or says what means nothing; the message has the nearest.
    """
    return _settings(file, _tables(file))


def _settings(file: Path, tables: dict[str, Any]) -> Settings:
    table = tables.get("tool", {}).get("dropkit", {}).get("lint", {})
    if not isinstance(table, dict):
        raise SettingError(f"{file}: expected a table [tool.dropkit.lint]; got {table!r}")
    for key in table:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.4)
            raise SettingError(
                f"{file}: [tool.dropkit.lint] has no setting {key!r}. "
                f"Try {near[0] if near else ', '.join(KEYS)}"
            )
    words = {key: _words(file, key, table.get(key, [])) for key in ("select", "ignore", "exclude")}
    settings = Settings(
        root=file.absolute().parent,
        **words,
        per_file_allow=_per_file(file, table.get("per-file-allow", {})),
        baseline=_path(file, table.get("baseline")),
    )
    try:
        chosen(settings.select, settings.ignore)
    except SettingError as error:
        raise SettingError(f"{file}: {error}") from None
    return settings


def _tables(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{file}: expected a TOML file that can be read: {error}") from None


def _words(file: Path, key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise SettingError(f"{file}: {key}: expected a list of strings; got {value!r}")


def _per_file(file: Path, value: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(value, dict):
        raise SettingError(
            f"{file}: per-file-allow: expected a table of pattern and rules, such as "
            f'"experiments/*" = ["always-on-dropout"]; got {value!r}'
        )
    pairs = []
    for pattern, rules in value.items():
        words = _words(file, f"per-file-allow of {pattern!r}", rules)
        try:
            pairs.append((pattern, tuple(named(word).name for word in words)))
        except SettingError as error:
            raise SettingError(f"{file}: per-file-allow of {pattern!r}: {error}") from None
    return tuple(pairs)


def _path(file: Path, value: object) -> Path | None:
    if value is None:
        return None
    if isinstance(value, str) and value:
        return file.absolute().parent / value
    raise SettingError(f"{file}: baseline: expected the name of a file; got {value!r}")
