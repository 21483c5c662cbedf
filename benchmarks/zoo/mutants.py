"""Recall: puts the bug of each rule into models that have none, and sees whether it is found.

    python -m benchmarks.zoo.mutants [LIBRARY ...] [--only MODEL ...] [--rules RULE ...]
        [--out FILE] [--write PAGE]

Each mutant is audited by all rules. Its own rule has to speak of the place where the bug was put;
what any rule says beyond that, and did not say of the model as it was, is an extra finding: a true
consequence of the bug where `consequences.py` says why, and else a false alarm. The file, of JSON,
is what a section of the census is made of; with --write that page is written anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.zoo.__main__ import CENSUS, MUTANTS, prepare
from benchmarks.zoo.__main__ import rows as census
from benchmarks.zoo.consequences import why
from benchmarks.zoo.hosts import Host, host, subjects
from benchmarks.zoo.injections import INJECTIONS, Injection, Mutant, NoPlace
from benchmarks.zoo.page import page, recall

from dropkit.records import Finding, Report

Row = dict[str, Any]


def is_found(finding: Finding, mutant: Mutant, rule: str) -> bool:
    """Whether a finding is of the bug, and says where it is."""
    if finding.rule != rule:
        return False
    outer = mutant.within
    return not outer or f"{finding.module}.".startswith(f"{outer}.")


def extra(before: Report, after: Report) -> Iterator[Finding]:
    """What is said of a mutant, and was not said of the model as it was."""
    known = Counter((finding.rule, finding.module) for finding in before.findings)
    for finding in after.findings:
        key = finding.rule, finding.module
        if known[key] > 0:
            known[key] -= 1
        else:
            yield finding


def tried(host: Host, injection: Injection) -> Row | None:
    """What came of one mutant; None: the model has no place for the bug."""
    torch.manual_seed(0)
    try:
        mutant = injection.into(host)
    except NoPlace:
        return None
    report = host.audit(mutant.model, **mutant.settings)
    own, others = [], []
    for finding in extra(host.report, report):
        is_own = is_found(finding, mutant, injection.rule)
        (own if is_own else others).append(finding)
    return {
        "rule": injection.rule,
        "bug": injection.name,
        "model": host.name,
        "found": bool(own),
        "extra": [
            [f.rule, f.severity, f.module, f.message, why(injection, f.rule)] for f in others
        ],
        "not_judged": dict(report.not_applicable).get(injection.rule, ""),
        "unseen": list(report.unseen),
    }


def rows_of(host: Host, injections: Iterable[Injection]) -> list[Row]:
    """All mutants of one model."""
    made = (tried(host, injection) for injection in injections)
    return [row for row in made if row is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="*", default=["torch", "transformers"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rules", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=MUTANTS)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    prepare()
    wanted = [one for one in INJECTIONS if not args.rules or one.rule in args.rules]
    rows: list[Row] = []
    for subject in subjects(tuple(args.libraries)):
        if args.only and subject.name not in args.only:
            continue
        mine = rows_of(host(subject), wanted)
        rows += mine
        missed = [f"{row['rule']} ({row['bug']})" for row in mine if not row["found"]]
        said = f"{subject.name}: {len(mine)} mutants, missed {missed or 'none'}"
        print(said, file=sys.stderr, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(recall(rows))
    if args.write:
        args.write.write_text(page(census(CENSUS), rows), "utf-8")


if __name__ == "__main__":
    main()
