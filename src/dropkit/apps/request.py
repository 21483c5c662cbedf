"""What a person asked `dropkit fit` for: checked, and written back as the command to type again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path

from dropkit.errors import SettingError

STANDARD_INPUT = "-"
_PACKED = {".gz"}
_TABLES = {
    ".csv",
    ".tsv",
    ".tab",
    ".txt",
    ".parquet",
    ".pq",
    ".feather",
    ".arrow",
    ".jsonl",
    ".ndjson",
    ".json",
}


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of one fit. Raises `SettingError` for a value outside its range."""

    table: str
    target: str
    out: str = ""
    """The folder to write; empty: named after the table, in the current folder."""
    test: str | None = None
    test_size: float = 0.2
    """Share of the rows that is set aside; 0 for none."""
    task: str = "auto"
    metric: str = "auto"
    budget: str = "auto"
    """`auto`, `quick`, `standard`, `thorough`, or a number of member-epochs."""
    time: float | None = None
    """Cap in seconds, for everything from the start of the process to its end."""
    seed: int = 0
    threads: int | None = None
    device: str = "auto"
    types: tuple[tuple[str, str], ...] = ()
    drop_unlabelled: bool = False
    id: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.test_size < 1:
            raise SettingError(
                f"expected --test-size from 0 (no holdout) to below 1; got {self.test_size:g}"
            )
        if self.threads is not None and self.threads < 1:
            raise SettingError(f"expected --threads of 1 or more; got {self.threads}")
        if self.seed < 0:
            raise SettingError(f"expected --seed of 0 or more; got {self.seed}")
        if self.id is not None and self.id == self.target:
            raise SettingError(f"--id and --target are both {self.id!r}; they must differ")
        self.work  # noqa: B018 - a budget that is no number is refused now, not after the table was read

    @property
    def folder(self) -> Path:
        """Where the model folder goes."""
        return Path(self.out or f"{stem(self.table)}.dropkit")

    @property
    def work(self) -> str | float:
        """The budget as the search wants it: a word, or a number of member-epochs."""
        if self.budget in ("auto", "quick", "standard", "thorough"):
            return self.budget
        try:
            number = float(self.budget)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise SettingError(
                "expected --budget auto, quick, standard, thorough or a number of member-epochs "
                f"above zero; got {self.budget!r}"
            )
        return number

    @property
    def command(self) -> str:
        """What to type into a shell to ask for the same again.

        >>> Request("my table.csv", target="y", seed=3, types=(("zip", "category"),)).command
        "dropkit fit 'my table.csv' --target y --seed 3 --type zip=category"
        """
        table = f"./{self.table}" if self.table[:1] == "-" != self.table else self.table
        words = ["dropkit", "fit", table, "--target", self.target]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if field.name != "seed" and value == field.default:
                continue
            words += _option(field.name, value)
        return shlex.join(words)


def stem(table: str) -> str:
    """The name of a table without folders and endings.

    >>> stem("data/adult.csv.gz")
    'adult'
    """
    if table == STANDARD_INPUT:
        return "stdin"
    path = Path(Path(table).name)
    for endings in (_PACKED, _TABLES):
        if path.suffix.lower() in endings:
            path = path.with_suffix("")
    return path.name


def _option(name: str, value: object) -> list[str]:
    if name == "types" and isinstance(value, tuple):
        return [word for column, kind in value for word in ("--type", f"{column}={kind}")]
    flag = "--" + name.replace("_", "-")
    if value is True:
        return [flag]
    if isinstance(value, float):
        value = f"{Decimal(str(value)):f}".removesuffix(".0")
    return [flag, f"{value}s" if name == "time" else str(value)]
