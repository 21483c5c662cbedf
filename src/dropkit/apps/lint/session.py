"""One call of `dropkit lint`, from what was asked to a report."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dropkit.apps.counting import count
from dropkit.apps.lint import baseline, settings
from dropkit.apps.lint.judging import Outcome, Task, judge_bytes
from dropkit.apps.lint.running import Allowing, judge_all
from dropkit.apps.lint.walking import Found, Walk
from dropkit.errors import SettingError
from dropkit.records import Finding, Report
from dropkit.rules.choosing import chosen
from dropkit.rules.linting import Linted, gathered

_CELL = re.compile(r"^(.*):cell (\d+)$")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was told."""

    paths: tuple[str, ...] = (".",)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fix: bool = False
    diff: bool = False
    baseline: str | None = None
    write_baseline: bool = False
    unused_allowances: bool = False
    config: str | None = None
    isolated: bool = False
    no_gitignore: bool = False
    stdin_filename: str = ""
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of it."""

    report: Report
    outcomes: tuple[Outcome, ...]
    source: bytes = b""
    """What standard input gave, where that was judged."""
    notes: tuple[str, ...] = ()
    """What a person should know beside the report."""


def run(asked: Asked) -> Ran:
    """Find the files, judge them, and write what was asked to be written.

    Raises:
        SettingError: the command or its settings cannot be followed.
        FolderError: the baseline cannot be written.
    """
    said = _settings(asked)
    rules = chosen(said.select, said.ignore)
    task = Task(rules, fix=asked.fix or asked.diff, write=asked.fix and not asked.diff)
    source, unseen, files = b"", list[str](), 1
    if "-" in asked.paths:
        outcomes, source = _standard_input(asked, task, said)
    else:
        walk = Walk(said.exclude, said.root, gitignore=not asked.no_gitignore)
        allowing = Allowing(said)
        work = [(found, allowing.of(found.path)) for found in walk.files(_existing(asked.paths))]
        outcomes, files = judge_all(work, task, asked.jobs), len(work)
        unseen = walk.unseen
    parts = [outcome.linted for outcome in outcomes]
    if asked.unused_allowances:
        parts = [replace(part, findings=(*part.findings, *part.unused)) for part in parts]
    target = f"{', '.join(asked.paths)}: {count(files, 'file')}"
    report = gathered(target, rules, [*parts, Linted(unseen=tuple(unseen))])
    notes = [] if files else ["no Python file or notebook was found there"]
    report = _against_baseline(report, asked, said.baseline, notes)
    return Ran(report, tuple(outcomes), source, tuple(notes))


def _settings(asked: Asked) -> settings.Settings:
    """Those of the project, with those of the command on top."""
    if asked.config and asked.isolated:
        raise SettingError("--isolated reads no settings, and --config names some: try one of them")
    paths = [Path(path) for path in asked.paths if path != "-"] or [Path(asked.stdin_filename)]
    if asked.isolated:
        said = settings.Settings()
    else:
        said = settings.read(Path(asked.config)) if asked.config else settings.found(paths)
    return replace(
        said,
        select=asked.select or said.select,
        ignore=(*said.ignore, *asked.ignore),
        exclude=(*said.exclude, *asked.exclude),
        baseline=Path(asked.baseline) if asked.baseline else said.baseline,
    )


def _existing(paths: Sequence[str]) -> list[Path]:
    for path in paths:
        if not os.path.exists(path):
            raise SettingError(f"expected a file or a folder; {path!r} is not there")
    return [Path(path) for path in paths]


def _standard_input(
    asked: Asked, task: Task, said: settings.Settings
) -> tuple[list[Outcome], bytes]:
    if len(asked.paths) > 1:
        raise SettingError("- is standard input, and stands alone: try it without other paths")
    data = sys.stdin.buffer.read()
    name = asked.stdin_filename or "<stdin>"
    allow = Allowing(said).of(name) if asked.stdin_filename else ()
    task = replace(task, write=False)
    outcome = judge_bytes(data, Found(name, name), task, allow)
    return [] if outcome is None else [outcome], data


def _against_baseline(report: Report, asked: Asked, path: Path | None, notes: list[str]) -> Report:
    """The report without what is known already; or the baseline written anew."""
    if asked.write_baseline:
        if path is None:
            raise SettingError("--write-baseline needs to know where: try --baseline FILE with it")
        number = baseline.save(path, report.findings)
        notes.append(f"{path} has {count(number, 'finding')}")
        return replace(report, findings=(), allowed=(*report.allowed, *report.findings))
    if path is None:
        return report
    new, old, gone = baseline.split(report.findings, baseline.load(path), path)
    if gone:
        known = count(gone, "finding is", "findings are")
        notes.append(f"{known} gone from {path}; --write-baseline takes out what is")
    return replace(report, findings=tuple(new), allowed=(*report.allowed, *old))


def for_machines(report: Report) -> Report:
    """The report with each cell of a notebook as the notebook's own file, which machines open."""
    return replace(
        report,
        findings=tuple(map(_in_file, report.findings)),
        allowed=tuple(map(_in_file, report.allowed)),
    )


def _in_file(finding: Finding) -> Finding:
    place = finding.place
    cell = _CELL.match(place.file) if place else None
    if place is None or cell is None:
        return finding
    message = f"cell {cell[2]}, line {place.line}: {finding.message}"
    return replace(finding, message=message, place=replace(place, file=cell[1], line=1, column=0))
