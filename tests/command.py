"""The command run in this process, and small tables to run it on."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dropkit.apps.cli import execute

BUDGET = 400
"""Member-epochs: enough for a model, too few to wait for."""

FILES = {"history.json", "model.json", "model.safetensors", "report.html", "test_predictions.csv"}
"""What is in a model folder after a fit with a holdout."""

CITIES = ("Oslo", "Rome", "Lima")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def dropkit(*arguments: object) -> Ran:
    """Run `dropkit` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = execute([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def fit(table: object, target: str, *options: object) -> Ran:
    """Run `dropkit fit` with a small budget."""
    return dropkit("fit", table, "--target", target, "--budget", BUDGET, *options)


def rows(count: int = 80) -> list[dict[str, object]]:
    """People with a colour to be told from their size, and a price; the same for the same count."""
    made = []
    for number in range(count):
        size = round(3 * math.sin(1.7 * number), 3)
        city = CITIES[number * 7 % 3]
        colour = "red" if size + 0.7 * (city == "Oslo") + math.sin(9.1 * number) > 0 else "blue"
        price = round(10 + 2 * size + 3 * (city == "Rome") + math.cos(5.3 * number), 2)
        made.append(
            {"key": f"k{number:04d}", "size": size, "city": city, "price": price, "colour": colour}
        )
    return made


def write(path: Path, table: Sequence[dict[str, object]]) -> Path:
    """Write a table as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def read(text: str) -> list[dict[str, str]]:
    """Read CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


def files(folder: Path) -> set[str]:
    """Names of what lies in a folder."""
    return {path.name for path in folder.iterdir()}
