"""The model folder: plain files, no pickle, saved all or nothing, checked before it is believed.

::

    NAME.dropkit/
    ├── model.json            format, version, checksums, the model's description, how it was made
    ├── model.safetensors     its numbers
    ├── history.json          the whole fit: trials with their curves, the holdout, the baselines
    ├── test_predictions.csv  what it predicted for the rows set aside; absent without a holdout
    └── report.html

Checksums find damage and careless edits. They prove nothing about who made a folder, so every
size is bounded and every field checked as if a stranger had written it; nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkit import __version__
from dropkit.apps import codec, saving
from dropkit.errors import DropkitWarning, FolderError, InputError, ModelFolderError
from dropkit.records import Fit, Schema
from dropkit.training.wording import shown

if TYPE_CHECKING:
    from torch import Tensor

    from dropkit.training.model import Model

FORMAT = 2
"""1 did not keep the dropout rates of the networks, nor what a sampled prediction says."""
MODEL, TENSORS, HISTORY = "model.json", "model.safetensors", "history.json"
PREDICTIONS, REPORT, SEARCH = "test_predictions.csv", "report.html", ".search"

_OURS = {MODEL, TENSORS, HISTORY, PREDICTIONS, REPORT, SEARCH}
_SEARCHED = {".json", ".safetensors", ".saving"}
"""What is in a search, or in one whose first checkpoint was not completed."""
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""File browsers drop these anywhere; they are nobody's work."""
_LARGEST = {MODEL: 1 << 30, HISTORY: 1 << 30, TENSORS: 4 << 30}
"""Bytes; above what a fit writes (see `check_holdout`), below what exhausts a machine."""
_PREDICTED = 25 * 3
"""Bytes in the history per row set aside and class: of the model and of two baselines."""
_VERSION = re.compile(r"[0-9A-Za-z.+!-]{1,40}", re.ASCII)
"""What a version may look like; it is printed, and must not steer a terminal."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a model folder holds."""

    model: Model
    fit: Fit
    ids: tuple[str, ...]
    """Columns that name a row: kept in predictions, never used."""
    estimator: dict[str, Any] | None
    """What an estimator that was saved needs to be itself again; None after `dropkit fit`."""


def check_destination(path: Path) -> None:
    """Raise `FolderError` unless a model folder may be written at `path`.

    It may if there is nothing, an empty folder, or a folder in which everything is dropkit's.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise FolderError(f"expected a folder to write to; {path} is a file. Choose another --out.")
    names = {entry.name for entry in path.iterdir()} - _LITTER if path.is_dir() else set()
    foreign = sorted(names - _OURS)
    if foreign or (names and not _is_ours(path)):
        some = ", ".join((foreign or sorted(names))[:3])
        raise FolderError(
            f"{path} is not empty and holds what dropkit did not write ({some}); "
            "nothing was changed. Choose another --out, or empty the folder."
        )
    saving.check_writable(path)


def check_holdout(rows: int, classes: int) -> None:
    """Raise `InputError` if so many rows set aside would not fit into a folder that can be read."""
    numbers = rows * max(1, classes)
    if numbers * _PREDICTED > _LARGEST[HISTORY] // 2:
        raise InputError(
            f"{rows:,} rows set aside would be {numbers:,} predicted numbers, more than a model "
            "folder holds. Judge by fewer: a smaller --test-size, or a part of the --test file."
        )


def exists(path: Path) -> bool:
    """Whether a model was saved at `path`."""
    return (path / MODEL).is_file()


def save(
    path: Path,
    tensors: dict[str, Tensor],
    description: dict[str, object],
    fit: Fit,
    *,
    ids: tuple[str, ...],
    report: str,
    predictions: str | None,
    estimator: dict[str, Any] | None = None,
    beside: Callable[[Path], None] | None = None,
) -> None:
    """Write a model folder, all or nothing; an older one at `path` survives any failure.

    `beside` writes what else goes into the folder. Raises `FolderError` if it cannot be written.
    """
    from safetensors.torch import save as packed

    check_destination(path)
    # Without its text a tensor file's bytes depend on nothing but the numbers in it.
    numbers = packed({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    history = codec.canonical(codec.encode(fit))
    kept = {"ids": list(ids), "estimator": estimator, "description": description}
    model = _sealed(kept, fit, {TENSORS: numbers, HISTORY: history})

    def fill(folder: Path) -> None:
        (folder / TENSORS).write_bytes(numbers)
        (folder / HISTORY).write_bytes(history)
        (folder / REPORT).write_text(report, encoding="utf-8")
        if predictions is not None:
            (folder / PREDICTIONS).write_text(predictions, encoding="utf-8", newline="")
        (folder / MODEL).write_text(json.dumps(model, indent=1), encoding="utf-8")
        if beside is not None:
            beside(folder)

    saving.write_folder(path, fill)


def load(path: Path) -> Stored:
    """Read a model folder.

    Raises `ModelFolderError` if it is no model folder, damaged, altered, or of a later format.
    Warns with `DropkitWarning` if another version of dropkit made it.
    """
    from dropkit.apps.uncertainty import check

    path = _present(path)
    about = _description(path)
    with believing(path):
        _verify(about)
        numbers, history = (_content(path, name, about["files"]) for name in (TENSORS, HISTORY))
        description, told = _modern(about, json.loads(history))
        stored = Stored(
            _model(numbers, description),
            codec.decode(Fit, told),
            codec.decode(_Ids, {"names": about["ids"]}).names,
            about["estimator"],
        )
        check(stored.fit.uncertainty, stored.model.schema)
        if stored.fit.threads < 1:
            raise ValueError(f"its number of threads is {stored.fit.threads}")
    if about["dropkit"] != __version__:
        warnings.warn(
            f"{path} was made by dropkit {about['dropkit']}; this is {__version__}. "
            "It reads that format, so it was loaded.",
            DropkitWarning,
            stacklevel=2,
        )
    return stored


@contextmanager
def believing(path: Path) -> Iterator[None]:
    """Turn what goes wrong when a folder's content contradicts itself into a `ModelFolderError`."""
    try:
        yield
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ModelFolderError(
            f"{path} is no usable model folder: {_short(error)}. Make it anew with `dropkit fit`."
        ) from error


@dataclass(frozen=True, slots=True)
class _Ids:
    names: tuple[str, ...]


def _is_ours(path: Path) -> bool:
    """Whether a folder with our names in it holds our marks too: `model.json` is a common name."""
    search = path / SEARCH
    if search.is_dir() and {entry.suffix for entry in search.iterdir()} <= _SEARCHED:
        return True
    try:
        about = json.loads(_read(path / MODEL, _LARGEST[MODEL]))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and "dropkit" in about and "format" in about


def _sealed(kept: dict[str, Any], fit: Fit, files: dict[str, bytes]) -> dict[str, Any]:
    about: dict[str, Any] = {
        "format": FORMAT,
        "dropkit": __version__,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
        "made": _made(fit),
        **kept,
    }
    return about | {"digest": codec.digest(about)}


def _made(fit: Fit) -> dict[str, Any]:
    """How the model came about, for a reader of `model.json`; `history.json` has it all."""
    return {
        "table": fit.table,
        "target": fit.schema.target,
        "task": fit.schema.task,
        "metric": fit.outcome.metric,
        "rows": fit.schema.rows,
        "command": fit.command,
        "seed": fit.seed,
        "stopped": fit.stopped,
        "versions": dict(fit.versions),
        "device": fit.device,
        "threads": fit.threads,
    }


def _present(path: Path) -> Path:
    if not path.is_dir() and saving.previous_of(path).is_dir():
        path = saving.previous_of(path)  # a crash fell between the two renames of a save
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ModelFolderError(f"expected a model folder made by `dropkit fit`; {path} {what}.")
    return path


def _description(path: Path) -> dict[str, Any]:
    if not (path / MODEL).exists():
        raise ModelFolderError(
            f"expected a model folder made by `dropkit fit`; {path} has no {MODEL}."
        )
    try:
        about = json.loads(_read(path / MODEL, _LARGEST[MODEL]))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(
            f"{path / MODEL} is damaged: it is not readable JSON ({_short(error)}). "
            "Copy the folder again, or make it anew with `dropkit fit`."
        ) from error
    if not isinstance(about, dict) or not isinstance(about.get("dropkit"), str):
        raise ModelFolderError(f"{path / MODEL} was not written by dropkit.")
    if not _VERSION.fullmatch(about["dropkit"]):
        raise ModelFolderError(
            f"{path / MODEL} was not written by dropkit: its version is {shown(about['dropkit'])}."
        )
    return about


def _verify(about: dict[str, Any]) -> None:
    number = about.get("format")
    if type(number) is not int or number < 1:
        raise ValueError(f"its format number is {number!r}")
    if number > FORMAT:
        raise ModelFolderError(
            f"this model folder has format {number}, made by dropkit {about['dropkit']}; this is "
            f"dropkit {__version__}, which reads up to format {FORMAT}. Upgrade dropkit."
        )
    if about.get("digest") != codec.digest(about):
        raise ModelFolderError(
            f"{MODEL} was altered or damaged after it was saved: its digest does not match. "
            "Copy the folder again, or make it anew with `dropkit fit`."
        )


def _modern(about: dict[str, Any], history: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The description and the history; what an older format did not keep is unknown."""
    description = about["description"]
    if about["format"] < 2:
        return {**description, "rates": None}, {**history, "uncertainty": None}
    return description, history


def _content(path: Path, name: str, files: dict[str, Any]) -> bytes:
    size, checksum = files[name]["bytes"], files[name]["sha256"]
    if not (path / name).exists():
        raise ModelFolderError(f"{path} has no {name}. Copy the folder again, whole.")
    try:
        content = _read(path / name, _LARGEST[name])
    except OSError as error:
        raise ModelFolderError(f"cannot read {path / name}: {_short(error)}.") from error
    if len(content) != size:
        raise ModelFolderError(
            f"{path / name} is damaged: expected {size} bytes, found {len(content)}. "
            "Copy the folder again, whole."
        )
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ModelFolderError(
            f"{path / name} was altered or damaged after it was saved: its checksum does not match."
        )
    return content


def _read(path: Path, largest: int) -> bytes:
    """The bytes of a regular file; a pipe or a device could go on for ever."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path.name} is no regular file")
        if status.st_size > largest:
            raise OSError(f"{path.name} has {status.st_size} bytes, more than any model of ours")
        return file.read(largest)


def _model(numbers: bytes, description: dict[str, Any]) -> Model:
    from safetensors import SafetensorError
    from safetensors.torch import load as unpacked

    from dropkit.training.model import Model
    from dropkit.training.network import Shape
    from dropkit.training.outputs import Readout

    # The types of fields are checked here, and what they mean where a part is restored.
    codec.decode(Schema, description["schema"])
    codec.decode(Shape, description["shape"])
    codec.decode(Readout, description["readout"])
    try:
        return Model.restore(unpacked(numbers), description)
    except (SafetensorError, IndexError, AttributeError, RuntimeError, MemoryError) as error:
        raise ValueError(_short(error)) from error


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"it lacks {text}"
    return text if len(text) <= 200 else text[:197] + "..."
