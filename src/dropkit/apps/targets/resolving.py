"""Finds out what a name on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from dropkit.apps.targets.target import Target
from dropkit.errors import InputError
from dropkit.inspection.showing import printable

_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib"}


def resolve(text: str, *, device: str = "auto") -> Target:
    """The target of a name.

    Raises:
        InputError: it stands for nothing, or for something that is refused.
    """
    path = Path(text)
    if path.is_dir():
        return _folder(path, device)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise InputError(
            f"{printable(text)}: files of that kind run whatever code they hold when they are "
            "loaded, and hold weights rather than a model. Name what builds the model: "
            "file.py:factory"
        )
    if suffix in (".json", ".pt2", ".onnx"):
        if not path.is_file():
            raise InputError(f"there is no file {printable(text)}")
        return _file(path, suffix, device)
    from dropkit.apps.targets.importing import factory_target

    return factory_target(text, meta=device == "meta")


def _file(path: Path, suffix: str, device: str) -> Target:
    if suffix == ".pt2":
        from dropkit.apps.targets.programs import program

        return program(path)
    if suffix == ".onnx":
        from dropkit.apps.targets.onnx_files import onnx_file

        return onnx_file(path)
    from dropkit.apps.targets.checkpoints import transformers_target

    return transformers_target(path, device=device)


def _folder(path: Path, device: str) -> Target:
    if (path / "config.json").is_file():
        from dropkit.apps.targets.checkpoints import transformers_target

        return transformers_target(path, device=device)
    if (path / "model.json").is_file():
        from dropkit.apps.targets.folders import folder_target

        return folder_target(path)
    raise InputError(
        f"expected a folder of Transformers, with a config.json, or of dropkit fit, with a "
        f"model.json; {printable(path)} has neither. For source without a model: dropkit lint"
    )
