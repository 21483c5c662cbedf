"""The model folder: whole or not at all, and believed only as far as it was checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import pickle
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from command import dropkit, fit, rows
from dropkit.apps import checkpoint, codec, fitting, folder, saving
from dropkit.errors import ColumnError, DropkitWarning, FolderError, ModelFolderError
from dropkit.records import Fit
from dropkit.training.model import Model

INDEX = "model.json"


def edit(model: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    """Change `model.json`; with `seal`, as a forger who knows how digests are made."""
    about = json.loads((model / INDEX).read_text())
    change(about)
    for name, entry in about["files"].items():
        if seal and (model / name).exists():
            content = (model / name).read_bytes()
            entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if seal:
        about["digest"] = codec.digest(about)
    (model / INDEX).write_text(json.dumps(about))


def refused(model: Path, words: str) -> None:
    with pytest.raises(ModelFolderError) as caught:
        folder.load(model)
    message = str(caught.value)
    assert words in message, message
    assert len(message) < 500


# Reading


def test_what_was_saved_is_read(fitted: Path) -> None:
    stored = folder.load(fitted)
    assert stored.ids == ("key",)
    assert stored.fit.schema.classes == ("blue", "red")
    assert stored.fit.command.startswith("dropkit fit ")
    again = codec.decode(Fit, json.loads((fitted / "history.json").read_bytes()))
    assert codec.encode(again) == codec.encode(stored.fit)


def test_nothing_is_unpickled(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    folder.load(fitted)
    assert not any(b"\x80\x04" in path.read_bytes()[:2] for path in fitted.iterdir())


@pytest.mark.parametrize("name", [INDEX, "model.safetensors", "history.json"])
def test_a_missing_file(model: Path, name: str) -> None:
    (model / name).unlink()
    refused(model, f"has no {name}")


@pytest.mark.parametrize("name", [INDEX, "model.safetensors", "history.json"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file(model: Path, name: str, kept: float) -> None:
    content = (model / name).read_bytes()
    (model / name).write_bytes(content[: int(kept * len(content))])
    refused(model, "damaged")


@pytest.mark.parametrize("name", ["model.safetensors", "history.json"])
def test_an_altered_file(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    refused(model, "was altered or damaged")


def test_an_altered_description(model: Path) -> None:
    edit(model, lambda about: about["made"].update(target="price"), seal=False)
    refused(model, "was altered or damaged")


def test_a_future_format(model: Path) -> None:
    edit(model, lambda about: about.update(format=3, dropkit="9.0"))
    refused(model, "Upgrade dropkit")


@pytest.mark.parametrize("version", ["0.0.1", "9.0"])
def test_another_version_of_the_same_format(model: Path, version: str) -> None:
    edit(model, lambda about: about.update(dropkit=version))
    with pytest.warns(DropkitWarning, match=f"was made by dropkit {version}"):
        folder.load(model)


def test_no_folder_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "does not exist")
    refused(tmp_path, "has no model.json")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file")


# A forger's folders: every digest is right, the content is not


DEEP: Any = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"dropkit": 1}', '{"dropkit": "0.1.0"}', DEEP, "\x00", "9" * 9999],
)
def test_nonsense_for_a_description(model: Path, text: str) -> None:
    (model / INDEX).write_text(text)
    refused(model, "")


@pytest.mark.parametrize("number", [None, "1", 0, -1, True, 1.5, [1]])
def test_a_format_that_is_no_number(model: Path, number: object) -> None:
    edit(model, lambda about: about.update(format=number))
    refused(model, "format")


def test_a_history_that_is_none(model: Path) -> None:
    (model / "history.json").write_text('{"table": 3}')
    edit(model, lambda about: None)
    refused(model, "no usable model folder")


@pytest.mark.parametrize("field", ["format", "files", "ids", "description"])
def test_a_field_that_is_missing(model: Path, field: str) -> None:
    about = json.loads((model / INDEX).read_text())
    del about[field]
    about["digest"] = codec.digest(about)
    (model / INDEX).write_text(json.dumps(about))
    refused(model, "")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers, texts and flags of a JSON value are."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:3]):
            yield from leaves(item, (*path, index))
    else:
        yield path


@pytest.mark.parametrize("nonsense", [10**12, -1, "x", None, [], {}])
def test_a_forged_description_is_refused_or_harmless(model: Path, nonsense: object) -> None:
    """Each value of the description in turn: refused in our words, or of no consequence."""
    table = pd.DataFrame(rows())
    original = (model / INDEX).read_text()
    for path in leaves(json.loads(original)["description"]):

        def forge(about: dict[str, Any], path: tuple[Any, ...] = path) -> None:
            place = about["description"]
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = nonsense

        (model / INDEX).write_text(original)
        edit(model, forge)
        try:
            predicts(folder.load(model).model, table)
        except ModelFolderError as error:
            assert len(str(error)) < 500


def predicts(one: Model, table: pd.DataFrame) -> None:
    """Assert that rows get probabilities, or a word about their columns."""
    with warnings.catch_warnings(), contextlib.suppress(ColumnError):
        warnings.simplefilter("ignore", DropkitWarning)
        shares = one.predict(table)
        assert shares.shape == (len(table), 2)
        assert all(math.isclose(share, 1.0) for share in shares.sum(axis=1))


def test_numbers_of_other_shapes(model: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    for name in tensors:
        for other in (torch.zeros(0), torch.zeros(3, 1, 2), torch.zeros(1, dtype=torch.bool)):
            save_file({**tensors, name: other}, model / "model.safetensors")
            edit(model, lambda about: None)
            refused(model, "")
        save_file({n: t for n, t in tensors.items() if n != name}, model / "model.safetensors")
        edit(model, lambda about: None)
        refused(model, "")


@pytest.mark.parametrize("header", [2**60, 2**63, 0, 8])
def test_a_tensor_file_that_claims_an_absurd_size(model: Path, header: int) -> None:
    (model / "model.safetensors").write_bytes(header.to_bytes(8, "little") + b"{}      ")
    edit(model, lambda about: None)
    refused(model, "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in the file system are of Unix")
@pytest.mark.parametrize("name", [INDEX, "model.safetensors"])
def test_a_pipe_in_place_of_a_file(model: Path, name: str) -> None:
    (model / name).unlink()
    os.mkfifo(model / name)
    refused(model, "no regular file")


def test_an_endless_file(model: Path) -> None:
    (model / "model.safetensors").unlink()
    os.symlink("/dev/zero", model / "model.safetensors")
    refused(model, "no regular file")


def test_a_huge_file(model: Path) -> None:
    with open(model / INDEX, "r+b") as file:
        file.truncate(1 << 40)
    refused(model, "more than any model of ours")


# Writing


def test_what_is_not_ours_is_not_touched(tmp_path: Path, people: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    ran = fit(people, "colour", "--out", out)
    assert ran.code == 2
    assert "chapter.tex" in ran.err
    assert [path.name for path in out.iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize(
    "content", ["{}", '{"format": "layers-model"}', "not json", '{"name": "dropkit"}']
)
def test_a_model_of_another_program_is_not_touched(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(FolderError, match=r"did not write \(model.json\)"):
        folder.check_destination(tmp_path)


def test_a_note_beside_our_model_is_not_lost(model: Path) -> None:
    (model / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"notes\.txt"):
        folder.check_destination(model)


def test_places_that_may_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "browsed").mkdir()
    (tmp_path / "browsed" / ".DS_Store").write_bytes(b"")
    for place in (
        model,
        tmp_path / "empty",
        tmp_path / "new",
        tmp_path / "a" / "b",
        tmp_path / "browsed",
    ):
        before = sorted(tmp_path.rglob("*"))
        folder.check_destination(place)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="is a file"):
        folder.check_destination(tmp_path / "file")
    with pytest.raises(FolderError, match="not a directory"):
        folder.check_destination(tmp_path / "file" / "model")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that nobody may write")
def test_a_place_that_may_not_be_written() -> None:
    with pytest.raises(FolderError, match="cannot write to /proc/model"):
        folder.check_destination(Path("/proc/model"))


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> list[int]:
    """Let the call `number` of a function find the disk full."""
    real, count = getattr(owner, name), [0]

    def maybe(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            raise FULL
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, maybe)
    return count


def test_a_holdout_that_no_folder_could_hold_is_refused_before_the_work(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: hours of work that end in a folder which is too large to be read."""
    monkeypatch.setitem(folder._LARGEST, folder.HISTORY, 2000)
    ran = fit(people, "colour", "--out", tmp_path / "model")
    assert ran.code == 2
    assert "16 rows set aside" in ran.err and "--test-size" in ran.err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        *((Path, "write_bytes", number) for number in (1, 2)),
        *((Path, "write_text", number) for number in (1, 2, 3)),
        *((os, "fsync", number) for number in (1, 4, 6)),
        *((os, "rename", number) for number in (1, 2)),
    ],
)
def test_the_old_model_survives_a_full_disk(
    owner: object,
    name: str,
    number: int,
    model: Path,
    people: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(
            fitting, "keep", lambda *_: None
        )  # a slow run's checkpoint would be met first
        count = fail_at(patch, owner, name, number)
        ran = fit(people, "colour", "--out", model, "--seed", 5)
        assert count[0] >= number
    assert ran.code == 2
    assert "no space left on device" in ran.err
    assert "untouched" in ran.err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert sorted(path.name for path in model.parent.iterdir()) == ["model", "people.csv"]
    assert dropkit("predict", model, people).code == 0


@pytest.fixture
def tiny_disk(tmp_path: Path, fitted: Path) -> Iterator[Path]:
    """A file system that holds one model, but not two."""
    size = sum(path.stat().st_size + 8192 for path in fitted.iterdir()) * 3 // 2
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_the_old_model_survives_a_disk_that_is_really_full(
    tiny_disk: Path, people: Path, fitted: Path
) -> None:
    model = Path(shutil.copytree(fitted, tiny_disk / "model"))
    ran = fit(people, "colour", "--out", model, "--seed", 5)
    assert ran.code == 2
    assert "no space left on device" in ran.err
    assert [path.name for path in tiny_disk.iterdir()] == ["model"]
    assert dropkit("predict", model, people).code == 0


def test_a_crash_between_the_renames_loses_nothing(model: Path, people: Path) -> None:
    spare = saving.previous_of(model)
    model.rename(spare)
    folder.load(model)
    ran = fit(people, "colour", "--out", model)
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in model.parent.iterdir()) == ["model", "people.csv"]


def test_a_crash_after_the_renames_is_cleaned_up(model: Path, people: Path) -> None:
    shutil.copytree(model, saving.previous_of(model))
    shutil.copytree(model, model.with_name(".model.saving"))
    assert fit(people, "colour", "--out", model).code == 0
    assert sorted(path.name for path in model.parent.iterdir()) == ["model", "people.csv"]


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "predictions.csv"
    saving.write_file(out, b"old")
    with monkeypatch.context() as patch:
        fail_at(patch, os, "fsync", 1)
        with pytest.raises(FolderError, match="no space left on device"):
            saving.write_file(out, b"new")
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from dropkit.apps.request import Request

    def at(step: int) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(
            Request("t.csv", "y"), "mark", 1.5, {"w": torch.full((3,), float(step))}, {"step": step}
        )

    checkpoint.write(tmp_path, at(1))
    for number in (1, 2, 3, 4):
        with monkeypatch.context() as patch:
            fail_at(patch, os, "fsync", number)
            with contextlib.suppress(FolderError):
                checkpoint.write(tmp_path, at(2))
        found = checkpoint.read(tmp_path)
        assert found.tensors["w"][0] == found.description["step"]
        checkpoint.write(tmp_path, at(1))
    assert len(list((tmp_path / ".search").iterdir())) == 2
