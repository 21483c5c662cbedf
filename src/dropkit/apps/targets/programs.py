"""Exported programs (.pt2), read as the JSON that they are: nothing in them is loaded or run."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dropkit.apps.targets import frozen
from dropkit.apps.targets.target import Frozen, Target
from dropkit.errors import InputError
from dropkit.inspection.showing import printable
from dropkit.records import Place, Site, SiteKind

LARGEST = 1 << 30
"""Bytes of a program's graph; above what any has, below what exhausts a machine."""

_GRAPH = re.compile(r"(.*/)?(models/.*\.json|serialized_exported_program\.json)")
_FRAME = re.compile(r'File "([^"]*)", line (\d+), in (\S+)')
_SWITCHED: dict[str, tuple[SiteKind, str]] = {
    "dropout": ("dropout", "p"),
    "dropout_": ("dropout", "p"),
    "native_dropout": ("dropout", "p"),
    "feature_dropout": ("feature_dropout", "p"),
    "feature_dropout_": ("feature_dropout", "p"),
    "alpha_dropout": ("alpha_dropout", "p"),
    "feature_alpha_dropout": ("alpha_dropout", "p"),
    "lstm": ("recurrent", "dropout"),
    "gru": ("recurrent", "dropout"),
    "rnn_tanh": ("recurrent", "dropout"),
    "rnn_relu": ("recurrent", "dropout"),
}
"""Operators with a switch `train`: what they are, and the name of their rate."""

_DRAWS = re.compile(r"(rand|bernoulli|normal|uniform|multinomial|poisson|exponential)\w*")


def program(path: Path) -> Target:
    """The program of a file that `torch.export.save` wrote.

    Raises:
        InputError: it is no such file.
    """
    graphs = list(_graphs(path))
    if not graphs:
        raise InputError(
            f"expected a program that torch.export.save wrote; {printable(path)} is a zip file "
            "without one"
        )
    sites = tuple(found for graph in graphs for found in _sites(graph))
    name = f"exported program {printable(path, 120)}"
    return Target(name, artifact=str(path), frozen=Frozen(sites))


def _graphs(path: Path) -> Iterator[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if _GRAPH.fullmatch(entry.filename):
                    if entry.file_size > LARGEST:
                        raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes")
                    yield json.loads(archive.read(entry))
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError, KeyError) as error:
        raise InputError(
            f"expected a program that torch.export.save wrote; {printable(path)}: "
            f"{printable(error)}"
        ) from error


def _sites(value: Any) -> Iterator[Site]:
    """All that draws, in this graph and in those within it."""
    if isinstance(value, dict):
        nodes = value.get("nodes")
        shapes = value.get("tensor_values")
        if isinstance(nodes, list):
            for node in nodes:
                if isinstance(node, dict):
                    yield from _site(node, shapes if isinstance(shapes, dict) else {})
        for key, part in value.items():
            if key != "tensor_values":
                yield from _sites(part)
    elif isinstance(value, list):
        for part in value:
            yield from _sites(part)


def _site(node: dict[str, Any], shapes: dict[str, Any]) -> Iterator[Site]:
    operator = str(node.get("target", "")).removeprefix("torch.ops.aten.").partition(".")[0]
    given = {
        part.get("name"): next(iter(part["arg"].values()), None)
        for part in node.get("inputs") or ()
        if isinstance(part, dict) and isinstance(part.get("arg"), dict)
    }
    kind: SiteKind
    if operator in _SWITCHED:
        kind, name = _SWITCHED[operator]
        rate, switch = given.get(name), given.get("train")
        rate = float(rate) if isinstance(rate, int | float) else None
        acts = switch is not False and rate != 0
        if kind == "recurrent" and rate == 0:
            return
    elif "scaled_dot_product" in operator:
        kind, rate = "attention", given.get("dropout_p", 0.0)
        rate = float(rate) if isinstance(rate, int | float) else None
        acts = rate != 0
        if not acts:
            return
    elif _DRAWS.fullmatch(operator):
        kind, rate, acts = "random", None, True
    else:
        return
    path, owner = _module(node)
    if kind == "random" and "drop" in f"{path}.{owner}".lower():
        kind = "mask"
    yield frozen.site(
        path=path,
        owner=owner,
        kind=kind,
        rate=rate,
        operation=operator,
        acts=acts,
        place=_place(node),
        shape=_shape(given, shapes),
    )


def _module(node: dict[str, Any]) -> tuple[str, str]:
    """Path and class of the innermost module, as the export noted them."""
    stack = str(_noted(node, "nn_module_stack")).split(";")
    parts = stack[-1].split(",")
    if len(parts) < 3:
        return "", ""
    return parts[1], parts[2].rpartition(".")[2]


def _place(node: dict[str, Any]) -> Place | None:
    """The innermost line that is not torch's own."""
    frames = _FRAME.findall(str(_noted(node, "stack_trace")))
    own = [frame for frame in frames if not re.search(r"[/\\]torch[/\\]", frame[0])]
    return Place(own[-1][0], int(own[-1][1]), own[-1][2]) if own else None


def _noted(node: dict[str, Any], name: str) -> Any:
    metadata = node.get("metadata")
    return metadata.get(name, "") if isinstance(metadata, dict) else ""


def _shape(given: dict[Any, Any], shapes: dict[str, Any]) -> tuple[int, ...]:
    first = next((value for value in given.values() if isinstance(value, dict)), {})
    about = shapes.get(str(first.get("name")), {})
    sizes = about.get("sizes", ()) if isinstance(about, dict) else ()
    found = [size.get("as_int") for size in sizes if isinstance(size, dict)]
    return tuple(size for size in found if isinstance(size, int))
