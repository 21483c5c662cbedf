"""ONNX files: the graph is read, and its weights are not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dropkit.apps.targets import frozen
from dropkit.apps.targets.target import Frozen, Target
from dropkit.errors import InputError, MissingExtraError
from dropkit.inspection.showing import printable
from dropkit.records import Site

SWITCHED = 12
"""The opset from which Dropout has an input that switches training on."""
SILENT = 7
"""The opset from which, and up to `SWITCHED`, Dropout does nothing at inference."""

_DRAWS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}


def onnx_file(path: Path) -> Target:
    """The program of an ONNX file.

    Raises:
        InputError: it is no such file.
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "ONNX files need the package onnx, which is not installed; "
            'try: pip install "dropkit[onnx]"'
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # onnx raises what its parser raises
        raise InputError(
            f"expected an ONNX file; {printable(path)} cannot be read: {printable(error, 200)}"
        ) from error
    opset = next(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1
    )
    unseen: list[str] = []
    sites = list(_sites(model.graph, opset, {}, unseen))
    for function in model.functions:
        sites += _sites(function, opset, {}, unseen)
    return Target(
        f"ONNX file {printable(path, 120)}",
        artifact=str(path),
        frozen=Frozen(tuple(sites), tuple(unseen)),
    )


def _sites(graph: Any, opset: int, outer: Mapping[str, Any], unseen: list[str]) -> Iterator[Site]:
    known = dict(outer) | _constants(graph)
    for node in graph.node:
        if node.op_type == "Dropout" and node.domain in ("", "ai.onnx"):
            yield _dropout(node, opset, known, unseen)
        elif node.op_type in _DRAWS or node.op_type == "Bernoulli":
            path, owner = _module(node)
            drops = node.op_type == "Bernoulli" and "drop" in f"{path}.{owner}".lower()
            yield frozen.site(
                path=path,
                owner=owner,
                kind="mask" if drops else "random",
                rate=None,
                operation=node.op_type,
                acts=True,
            )
        for attribute in node.attribute:
            inner: Iterable[Any] = (attribute.g, *attribute.graphs)
            for part in inner:
                if part.node:
                    yield from _sites(part, opset, known, unseen)


def _dropout(node: Any, opset: int, known: Mapping[str, Any], unseen: list[str]) -> Site:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    path, owner = _module(node)
    rate: float | None = 0.5
    if opset >= SWITCHED:
        names = [*node.input, "", ""]
        rate = float(known.get(names[1], 0.5)) if names[1] in known or not names[1] else None
        acts = bool(names[2]) and bool(known.get(names[2], True))
        if names[2] and names[2] not in known:
            unseen.append(
                f"whether {printable(path or node.name, 80)} drops: its training switch, "
                f"{printable(names[2], 80)}, is an input of the program"
            )
            acts = False
    else:
        rate = float(attributes["ratio"].f) if "ratio" in attributes else 0.5
        acts = opset < SILENT and not ("is_test" in attributes and attributes["is_test"].i)
    return frozen.site(
        path=path,
        owner=owner,
        kind="dropout",
        rate=rate,
        operation="Dropout",
        acts=acts and rate != 0,
    )


def _constants(graph: Any) -> dict[str, Any]:
    """Numbers that stand in the graph, by name."""
    from onnx import numpy_helper

    tensors = [(tensor.name, tensor) for tensor in getattr(graph, "initializer", ())]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
    small = ((name, t) for name, t in tensors if not t.external_data and len(t.dims) <= 1)
    return {
        name: numpy_helper.to_array(tensor).reshape(-1)[0].item()
        for name, tensor in small
        if all(size == 1 for size in tensor.dims)
    }


def _module(node: Any) -> tuple[str, str]:
    """Path of the module, as exporters write it into a node's name: /encoder/drop/Dropout."""
    parts = [part for part in node.name.split("/") if part]
    return (".".join(parts[:-1]), parts[-1]) if len(parts) > 1 else ("", node.name or node.op_type)
