"""Audits models that nobody here wrote: no crash, no trace, and a census of what was found.

    python -m benchmarks.zoo [LIBRARY ...] [--only NAME ...] [--out FILE] [--write PAGE]

A row of JSON for each model goes to a file as soon as it is known; models that are in it already
are not run again. With --write a page is made of the whole file (docs/census.md is one).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.zoo.page import page
from benchmarks.zoo.subjects import (
    NotATextModel,
    Subject,
    timm_subjects,
    torch_subjects,
    transformers_subjects,
)
from torch import nn

import dropkit

LIBRARIES = {
    "torch": torch_subjects,
    "transformers": transformers_subjects,
    "timm": timm_subjects,
}
Examine = Callable[[Subject], dict[str, Any]]
CENSUS, MUTANTS = Path("build/zoo.jsonl"), Path("build/mutants.json")
LONGEST = 120  # seconds for one model


def state(model: nn.Module) -> dict[str, Any]:
    """All that an audit must leave as it is."""
    tensors = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, torch.Tensor)
    }
    modules = list(model.modules())
    return {
        "tensors": {name: x.clone() for name, x in tensors.items() if not x.is_meta},
        "identities": {name: id(x) for name, x in tensors.items()},
        "modes": [module.training for module in modules],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules],
        "attributes": [sorted(vars(module)) for module in modules],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
    }


def unchanged(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether nothing is left of a look."""
    one, other = before.pop("tensors"), after.pop("tensors")
    tensors = one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    drawn = torch.equal(before.pop("torch"), after.pop("torch"))
    return tensors and drawn and before == after


def examined(subject: Subject) -> dict[str, Any]:
    row: dict[str, Any] = {"library": subject.library, "name": subject.name}
    try:
        model, args, kwargs = subject.build()
    except NotATextModel as why:
        return row | {"left_out": str(why)}
    except Exception as error:  # of the library: not what is looked at here
        return row | {"left_out": f"cannot be built from its config: {line(error)}"}
    before, began = state(model), time.perf_counter()
    try:
        report = dropkit.audit(model, *args, example_kwargs=kwargs)
    except dropkit.SettingError as error:
        return row | {"left_out": f"does not run on tokens alone: {line(error)}"}
    row["seconds"] = round(time.perf_counter() - began, 2)
    row["class"] = type(model).__name__
    row["unchanged"] = unchanged(before, state(model))
    row["unseen"] = list(report.unseen)
    row["sites"] = [
        [s.path, s.kind, s.role, s.rate, s.fired_in_train, s.fired_in_eval, s.bypassed, s.ran]
        for s in report.sites
    ]
    row["findings"] = [
        [f.rule, f.severity, f.module, f.message, f.evidence] for f in report.findings
    ]
    return row


def line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"


class TooLong(BaseException):
    """A model that takes longer than it may."""


def run(subjects: Iterator[Subject], out: Path, examine: Examine) -> None:
    done = {(row["library"], row["name"]) for row in rows(out)}
    signal.signal(signal.SIGALRM, _stop)
    for subject in subjects:
        if (subject.library, subject.name) in done:
            continue
        signal.alarm(LONGEST)
        try:
            row = examine(subject)
        except TooLong:
            row = {"library": subject.library, "name": subject.name, "left_out": "takes too long"}
        except Exception as error:  # ours: this is what the zoo is for
            row = {"library": subject.library, "name": subject.name, "crash": line(error)}
        finally:
            signal.alarm(0)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        said = row.get("crash") or row.get("left_out") or f"{len(row['sites'])} sites"
        print(f"{subject.library} {subject.name}: {said[:100]}", file=sys.stderr, flush=True)


def _stop(*_: object) -> None:
    raise TooLong


def rows(out: Path) -> list[dict[str, Any]]:
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def mutants(out: Path) -> list[dict[str, Any]]:
    """What `benchmarks.zoo.mutants` has written, if it ran."""
    return json.loads(out.read_text("utf-8")) if out.exists() else []


def prepare() -> None:
    """Nothing but rows is printed, and times hang on no other threads."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def command(
    words: str | None, out: Path, examine: Examine, page: Callable[[list[dict[str, Any]]], str]
) -> None:
    """Read what is asked, run it, and write the page."""
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("libraries", nargs="*", default=["torch", "transformers"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    prepare()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for library in args.libraries:
        wanted = (s for s in LIBRARIES[library]() if not args.only or s.name in args.only)
        run(wanted, args.out, examine)
    if args.write:
        args.write.write_text(page(rows(args.out)), "utf-8")


if __name__ == "__main__":
    command(__doc__, CENSUS, examined, lambda found: page(found, mutants(MUTANTS)))
