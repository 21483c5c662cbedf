"""Reads an exported program: what its graph says that it does, it does at each run.

Such a program has no modes. So what is seen stands for a training pass and for an evaluation pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node as Operation

from dropkit.inspection.passes import Passes
from dropkit.intercept.facts import LIKE, TORCH, Facts, facts
from dropkit.intercept.noise import application, drawn, is_application, noticed, origin
from dropkit.intercept.trace import INPUT, PARAMETER, Call, Draw, Node, Trace, Where
from dropkit.records import Place

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def passes_of(program: torch.export.ExportedProgram) -> Passes:
    """What a program does, as passes of a model."""
    trace = _Reader(program).read()
    return Passes([trace], trace, meta=True, modes={}, rates={}, rates_later={})


class _Reader:
    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.trace = Trace()
        self.values: dict[Operation, Node] = {}
        signature = program.graph_signature
        self.parameters = {*signature.inputs_to_parameters}
        self.constants = {*signature.inputs_to_buffers}
        self.constants |= {*signature.inputs_to_lifted_tensor_constants}

    def read(self) -> Trace:
        """The whole graph, in its order."""
        for operation in self.program.graph.nodes:
            if operation.op == "placeholder":
                self._given(operation)
            elif operation.op == "call_function":
                self._ran(operation)
            elif operation.op == "output":
                found = (self.values.get(value) for value in operation.all_input_nodes)
                self.trace.outputs += [node for node in found if node is not None]
        return self.trace

    def _given(self, operation: Operation) -> None:
        name, origin = "input", INPUT
        if operation.name in self.parameters:
            name, origin = "parameter", PARAMETER
        elif operation.name in self.constants:
            name, origin = "constant", 0
        self._add(operation, name, (), origin)

    def _ran(self, operation: Operation) -> None:
        target: Any = operation.target
        sources = [self.values[x] for x in operation.all_input_nodes if x in self.values]
        if not isinstance(target, torch._ops.OpOverload):  # getitem, sizes, a control flow's body
            if sources:
                self.values[operation] = sources[0]
            return
        known = facts(target)
        if known.views and sources:
            self.values[operation] = sources[0]
            return
        inputs = tuple(dict.fromkeys(() if known.name in LIKE else sources))
        draws = known.draws(operation.args, dict(operation.kwargs))
        if draws and known.mutates:
            inputs = ()
        node = self._add(operation, known.name, inputs, origin(inputs))
        if known.drops and known.rate:
            self._dropped(operation, known, node)
        elif draws:
            draw = Draw(known.name, self._where(operation), None, node, None)
            self.trace.draws.append(draw)
            drawn(node, draw)
        elif any(source.is_noise for source in inputs):
            noticed(node)
            if is_application(node):
                values = ((x, _value(x)) for x in operation.all_input_nodes if x in self.values)
                pairs = [(self.values[x], value) for x, value in values if value is not None]
                met = application(node, pairs, count=False)
                self.trace.applications += [] if met is None else [met]

    def _dropped(self, operation: Operation, known: Facts, node: Node) -> None:
        """A dropout, switched on or off for good."""
        args: tuple[Any, ...] = operation.args
        kwargs: dict[str, Any] = operation.kwargs
        rate = known.dropped(args, kwargs)
        call = Call(
            name=known.name,
            where=self._where(operation),
            rate=_number(known.argument(known.rate, args, kwargs)),
            training=rate is not None,
            x=node.inputs[0] if node.inputs else None,
            shape=node.shape,
            result=node,
            drew=rate is not None,
        )
        self.trace.calls.append(call)

    def _add(self, operation: Operation, name: str, inputs: tuple[Node, ...], origin: int) -> Node:
        path, owner = _module(operation.meta)
        value = _value(operation)
        node = Node(
            number=len(self.trace.nodes),
            name=name,
            inputs=inputs,
            origin=origin,
            shape=() if value is None else tuple(int(n) for n in value.shape if type(n) is int),
            path=path,
            owner=owner,
            scalars=tuple(_number(x) for x in operation.args if type(x) in (int, float)),
        )
        for source in inputs:
            source.users.append(node)
        self.trace.nodes.append(node)
        self.values[operation] = node
        return node

    def _where(self, operation: Operation) -> Where:
        path, owner = _module(operation.meta)
        place = _place(operation.meta)
        number = len(self.trace.nodes)
        return Where(path, owner, place, 0, False, number)


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) else float("nan")


def _module(meta: Mapping[str, Any]) -> tuple[str, str]:
    """Path and class of the innermost module, as the export noted them."""
    stack = list((meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1]
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return re.sub(r"@\d+$", "", path), name.rpartition(".")[2]


def _place(meta: Mapping[str, Any]) -> Place | None:
    """The innermost line that is not torch's own."""
    frames = _FRAME.findall(meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(TORCH)]
    return Place(own[-1][0], int(own[-1][1]), own[-1][2]) if own else None


def _value(operation: Operation) -> Tensor | None:
    """What stands in for the value of an operation: it has a shape, and no memory."""
    value = operation.meta.get("val")
    value = value[0] if isinstance(value, tuple | list) and value else value
    return value if isinstance(value, Tensor) else None
