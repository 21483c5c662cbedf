"""A baseline: findings that a project lives with, so that only new ones count.

A finding is known again by its rule, its file, the function that it stands in and the text of its
line, not by the number of the line, so that code above it may come and go.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dropkit.apps.lint.writing import write
from dropkit.errors import SettingError
from dropkit.records import Finding

Mark = tuple[str, str, str, str]

_VERSION = 1
_FIELDS = ("file", "rule", "function", "line")


def mark(finding: Finding, folder: Path) -> Mark:
    """By what a finding is known again; files are named from the folder of the baseline."""
    place = finding.place
    file, function = (place.file, place.function) if place else ("", "")
    name = Path(os.path.relpath(os.path.abspath(file), folder)).as_posix()
    return name, finding.rule, function, " ".join(finding.evidence.split())


def save(path: Path, findings: Iterable[Finding]) -> int:
    """Write a baseline of these, and say how many they are."""
    folder = path.absolute().parent
    counts = Counter(mark(finding, folder) for finding in findings)
    entries = [
        dict(zip(_FIELDS, known, strict=True)) | {"count": counts[known]}
        for known in sorted(counts)
    ]
    text = json.dumps({"version": _VERSION, "findings": entries}, indent=1, ensure_ascii=False)
    write(path, (text + "\n").encode())
    return sum(counts.values())


def load(path: Path) -> Counter[Mark]:
    """Read one.

    Raises:
        SettingError: it is not there, or no baseline.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != _VERSION:
            raise SettingError(
                f"{path}: expected a baseline of version {_VERSION}; got {content['version']!r}. "
                "Try dropkit lint --write-baseline"
            )
        return Counter({_read(entry): int(entry["count"]) for entry in content["findings"]})
    except OSError as error:
        raise SettingError(
            f"{path}: expected a baseline: {error.strerror}. Try dropkit lint --write-baseline"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(
            f"{path}: expected a baseline that dropkit wrote; it cannot be read: {error!r}"
        ) from None


def _read(entry: dict[str, Any]) -> Mark:
    file, rule, function, line = (str(entry[name]) for name in _FIELDS)
    return file, rule, function, line


def split(
    findings: Iterable[Finding], known: Counter[Mark], path: Path
) -> tuple[list[Finding], list[Finding], int]:
    """(new findings, known ones, how many of the baseline are gone)."""
    left = known.copy()
    folder = path.absolute().parent
    new, old = [], []
    for finding in findings:
        name = mark(finding, folder)
        if left[name] > 0:
            left[name] -= 1
            old.append(finding)
        else:
            new.append(finding)
    return new, old, sum(count for count in left.values() if count > 0)
