"""`package.module:factory` and `file.py:factory`."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dropkit.apps.targets.target import Target
from dropkit.apps.targets.telling import last_line, required
from dropkit.errors import InputError
from dropkit.inspection.showing import printable

if TYPE_CHECKING:
    from torch import nn


def factory_target(text: str, *, meta: bool) -> Target:
    """The model that a factory gives, made on the meta device if asked."""
    place, name = _parts(text)
    module = module_at(place)
    found = attribute(module, name, place)
    model = _model(found, text, meta=meta)
    file = _file(found) or getattr(module, "__file__", None) or ""
    return Target(f"{type(model).__name__} of {printable(text, 120)}", model, artifact=file)


def called(text: str, *args: Any) -> Any:
    """What a function gives: example inputs, or what trains a model."""
    place, name = _parts(text)
    function = attribute(module_at(place), name, place)
    if not callable(function):
        return function
    try:
        return function(*args)
    except Exception as error:  # whatever a user's function may raise
        raise InputError(f"{printable(text)} raised {last_line(error)}") from error


def _parts(text: str) -> tuple[str, str]:
    place, colon, name = text.rpartition(":")
    if not colon or not place or not name:
        raise InputError(
            "expected package.module:factory, file.py:factory, the config.json of a Transformers "
            "model, a .pt2 or .onnx file, or a model folder of dropkit fit; got "
            f"{printable(text)!r}. Try {printable(_example(text))}"
        )
    return place, name


def _example(text: str) -> str:
    """What could have been meant: a file has names in it that may build a model."""
    try:
        tree = ast.parse(Path(text).read_bytes()) if text.endswith(".py") else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        tree = ast.Module([], [])
    made = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"
    ]
    of = text if made else "package.module"
    return " or ".join(f"{of}:{name}" for name in made[:3] or ["factory"])


def module_at(place: str) -> ModuleType:
    """The module of that name, which may be the name of a file."""
    if place.endswith(".py"):
        place = _importable(Path(place))
    elif str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(error.name + ".")):
            raise InputError(
                f"there is no module {printable(place)} here. Run dropkit where it can be "
                "imported, or name its file: path/to/file.py:factory"
            ) from error
        raise InputError(f"{printable(place)} cannot be imported: {last_line(error)}") from error
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(f"{printable(place)} cannot be imported: {last_line(error)}") from error


def _importable(path: Path) -> str:
    """The name under which a file can be imported, with where it stands on Python's path."""
    if not path.is_file():
        raise InputError(f"there is no file {printable(path)}")
    path = path.resolve()
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        names.insert(0, folder.name)
        folder = folder.parent
    sys.path.insert(0, str(folder))
    name = ".".join(names)
    known = sys.modules.get(name)
    if known is None or getattr(known, "__file__", None) == str(path):
        return name
    spec = importlib.util.spec_from_file_location(f"dropkit_target_{path.stem}", path)
    if spec is None:
        raise InputError(f"{printable(path)} is no module of Python")
    sys.modules.pop(spec.name, None)
    sys.meta_path.insert(0, _Finder(spec.name, path))
    return spec.name


class _Finder:
    """Finds the file of a target whose name another module has already."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Python's question for a module."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path)


def attribute(module: ModuleType, name: str, place: str) -> Any:
    """What stands in a module under a name, which may have dots in it."""
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [other for other in dir(found) if not other.startswith("_")]
            near = difflib.get_close_matches(part, names, n=3, cutoff=0.4) or names[:5]
            hint = f"; it has {', '.join(map(printable, near))}" if near else ""
            raise InputError(
                f"{printable(place)} has no {printable(name)}{hint}. Expected the name of a "
                "torch.nn.Module, or of a function or class that gives one without arguments"
            ) from None
    return found


def _model(found: Any, text: str, *, meta: bool) -> nn.Module:
    import torch
    from torch import nn

    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise _no_model(found, text)
    needed = required(found)
    if needed:
        raise InputError(
            f"{printable(text)} cannot be called without {', '.join(needed)}. Name a function that "
            f"takes nothing: def build(): return {printable(text.rpartition(':')[2])}(...)"
        )
    try:
        with torch.device("meta" if meta else "cpu"):
            model = found()
    except (Exception, SystemExit) as error:  # a factory may raise anything
        hint = ". Try --device real: it may need values" if meta else ""
        raise InputError(f"{printable(text)} raised {last_line(error)}{hint}") from error
    if not isinstance(model, nn.Module):
        raise _no_model(model, text)
    return model


def _no_model(found: object, text: str) -> InputError:
    return InputError(
        f"expected {printable(text)} to be a torch.nn.Module, or to give one; got "
        f"{printable(repr(found), 60)} of type {printable(type(found).__name__)}"
    )


def _file(found: object) -> str | None:
    try:
        return inspect.getsourcefile(found if callable(found) else type(found))
    except (TypeError, OSError):
        return None
