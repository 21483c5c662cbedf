"""A search that can be continued after a kill: `OUT/.search/`, written all or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkit import __version__
from dropkit.apps import codec, saving
from dropkit.apps.folder import SEARCH
from dropkit.apps.request import Request
from dropkit.errors import FolderError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

FORMAT = 1
_INDEX = "search.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a search stood, with everything that it needs to go on."""

    request: Request
    fingerprint: str
    """Of the tables that it was started on; see `fingerprint`."""
    seconds: float
    """Time spent before it was interrupted."""
    tensors: dict[str, Tensor]
    description: dict[str, Any]


def fingerprint(*tables: pd.DataFrame | None) -> str:
    """SHA-256 over the names, types and cells of tables."""
    from pandas.util import hash_pandas_object

    total = hashlib.sha256()
    for table in tables:
        if table is None:
            continue
        total.update(
            json.dumps([[str(name), str(kind)] for name, kind in table.dtypes.items()]).encode()
        )
        for _, column in table.items():
            try:
                hashes = hash_pandas_object(column, index=False)
            except TypeError:  # lists and other nested values
                hashes = hash_pandas_object(column.map(repr), index=False)
            total.update(hashes.to_numpy().tobytes())
    return total.hexdigest()


def write(out: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into `out`; the last one stands until this one is complete.

    Raises `FolderError` if it cannot be written.
    """
    from safetensors.torch import save as packed

    folder = out / SEARCH
    with saving.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = packed(
        {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    )
    checksum = hashlib.sha256(numbers).hexdigest()
    index: dict[str, Any] = {
        "format": FORMAT,
        "dropkit": __version__,
        "request": codec.encode(checkpoint.request),
        "fingerprint": checkpoint.fingerprint,
        "seconds": checkpoint.seconds,
        "tensors": {"sha256": checksum, "file": f"{checksum[:16]}.safetensors"},
        "description": checkpoint.description,
    }
    text = json.dumps(index | {"digest": _digest(index)}, indent=1)
    saving.write_file(folder / index["tensors"]["file"], numbers)
    saving.write_file(folder / _INDEX, text.encode())
    for stale in folder.glob("*.safetensors"):
        if stale.name != index["tensors"]["file"]:
            stale.unlink()


def read(out: Path) -> Checkpoint:
    """The checkpoint in `out`; `FolderError` if there is none, or none that can be continued."""
    from safetensors.torch import load as unpacked

    folder = out / SEARCH
    if not exists(out):
        raise FolderError(
            f"nothing to resume: {out} holds no unfinished search (no {SEARCH}/{_INDEX})."
        )
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        _verify(index, out)
        file = str(index["tensors"]["file"])
        numbers = (folder / Path(file).name).read_bytes()
        if hashlib.sha256(numbers).hexdigest() != index["tensors"]["sha256"]:
            raise ValueError("its numbers do not match their checksum")
        return Checkpoint(
            codec.decode(Request, index["request"]),
            str(index["fingerprint"]),
            float(index["seconds"]),
            unpacked(numbers),
            index["description"],
        )
    except (OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise FolderError(
            f"the unfinished search in {folder} is damaged ({error}). Start anew without --resume."
        ) from error


def exists(out: Path) -> bool:
    """Whether `out` holds an unfinished search."""
    return (out / SEARCH / _INDEX).is_file()


def clear(out: Path) -> None:
    """Remove the checkpoint from `out`, and `out` itself if nothing else is in it."""
    shutil.rmtree(out / SEARCH, ignore_errors=True)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def _digest(index: dict[str, Any]) -> str:
    # Unlike a model's description, a search's may hold NaN and infinities (losses that diverged).
    kept = {key: value for key, value in index.items() if key != "digest"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _verify(index: dict[str, Any], out: Path) -> None:
    if index["dropkit"] != __version__ or index["format"] != FORMAT:
        raise FolderError(
            f"the unfinished search in {out} is from dropkit {index['dropkit']}; this is "
            f"{__version__}, which cannot promise the same result. Start anew without --resume."
        )
    if index["digest"] != _digest(index):
        raise ValueError("its digest does not match")
