"""Runs a model in training and in evaluation mode, looks on, and gives it back as it was."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.intercept import forgetting, untouched, watching
from dropkit.intercept.numbers import is_called_rate
from dropkit.intercept.trace import Application, Node, Trace

_MOST = 8
"""Training passes, where layers are skipped at random, or masks are few."""
_ENOUGH = 4096
"""Draws of a mask that somebody wrote, after which its rate is known well enough."""
_PATIENCE = 0.5
"""Seconds in which another training pass has to end, as far as the first one tells."""


@dataclass(slots=True)
class Passes:
    """What a model did, in both modes."""

    train: list[Trace]
    evaluation: Trace
    meta: bool
    """Whether it ran without values, on the meta device."""
    modes: dict[str, bool]
    """By path: the mode in which the model was handed over."""
    rates: dict[str, float]
    """By path of an attribute: the rates that its modules held in training mode."""
    rates_later: dict[str, float]
    """The same, after evaluation mode and back."""
    moved: frozenset[str] = frozenset()
    """Those rates that a training pass itself changes, as a schedule does."""
    zeroed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By name of a parameter: elements that a pass set to 0, and how many it has."""
    unseen: list[str] = field(default_factory=list)
    still: Trace | None = None
    """A training pass in which nothing was dropped, where a batch norm was seen beside dropout."""


def run(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, gradients: bool = True
) -> Passes:
    """A training pass and an evaluation pass; more of the former where chance decides what runs.

    The first error of a pass ends it; what came before was seen, and the trace says why. What a
    training pass leaves in attributes, the next does not find; what an evaluation pass leaves is
    what training then finds.
    """
    modes = {path: module.training for path, module in model.named_modules()}
    meta = any(x.is_meta for x in (*model.parameters(), *model.buffers()))
    unseen: list[str] = []
    moved: set[str] = set()

    def trained(*, still: bool = False) -> Trace:
        with forgetting(model):
            trace = _pass(
                model, args, kwargs, train=True, meta=meta, still=still, gradients=gradients
            )
            moved.update(name for name, rate in held_rates(model) if rates.get(name, rate) != rate)
        return trace

    with untouched(model) as before, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _switch(model, True, unseen)
        rates = dict(held_rates(model))
        began = perf_counter()
        train = [trained()]
        each = perf_counter() - began
        while len(train) < min(_MOST, 1 + _PATIENCE / each) and _wants_more(train):
            train.append(trained())
        _switch(model, False, unseen)
        evaluation = _pass(model, args, kwargs, train=False, meta=meta)
        _switch(model, True, unseen)
        later = dict(held_rates(model))
        zeroed, still = before.zeroed(), None
        if _drops_before_batch_norm(train[0]):
            still = trained(still=True)
        if any(trace.threads for trace in (*train, evaluation)):
            unseen.append("what the model ran in threads of its own")
        if before.random.moved_elsewhere:
            unseen.append(
                "draws of Python's or NumPy's generator: the model uses one, and which way it goes "
                "may hang on it"
            )
    return Passes(
        train, evaluation, meta, modes, rates, later, frozenset(moved), zeroed, unseen, still
    )


def _drops_before_batch_norm(trace: Trace) -> bool:
    """Whether a batch norm ran on values, after a dropout that can be kept from dropping."""
    norms = [number for number, normed in trace.normed.items() if normed.variances]
    drops = [draw.node.number for draw in trace.draws if draw.rate is not None or draw.call]
    return trace.failed is None and bool(norms and drops) and min(drops) < max(norms)


def _switch(model: nn.Module, training: bool, unseen: list[str]) -> None:
    try:
        if training:
            model.train()
        else:
            model.eval()  # which calls train(False), and may do more
    except Exception as error:  # whatever a user's `train` or `eval` may raise
        unseen.append(f"the model in {_mode(training)} mode: {said(error)}")


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def said(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _pass(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    train: bool,
    meta: bool,
    still: bool = False,
    gradients: bool = True,
) -> Trace:
    """One pass, with gradients in training as in training, and without as at inference."""
    device = torch.device("meta") if meta else None
    args, kwargs = copied((args, dict(kwargs)), device)
    with (
        torch.set_grad_enabled(train and gradients),
        watching(model, calls=train, still=still) as watch,
    ):
        for tensor in tensors((args, kwargs)):
            watch.given(tensor)
        try:
            result = model(*args, **kwargs)
        except Exception as error:  # a user's model may raise anything
            watch.trace.failed = error
        else:
            for tensor in tensors(result):
                watch.gave(tensor)
    return watch.trace


def is_elementwise(met: Application) -> bool:
    """Whether the law of a mask is known, so that each element is a draw of its own."""
    return met.noise.chance is not None and met.noise.chance.nonzero is not None


def units(met: Application) -> int:
    """Draws of a mask that are surely independent: elements, or else images, or rows."""
    shape = met.noise_shape
    if is_elementwise(met):
        return 0 if met.counts is None else met.counts[0]
    return math.prod(shape[:2]) if len(shape) >= 4 else (shape or (1,))[0]


def _wants_more(traces: list[Trace]) -> bool:
    """Whether another pass may show what those before could not."""
    last = traces[-1]
    if last.failed is not None:
        return False
    drawn: dict[object, int] = {}
    for trace in traces:
        for met in trace.applications:
            if met.counts is not None and met.noise.draws[0].call is None:
                key = met.noise.draws[0].where.key
                drawn[key] = drawn.get(key, 0) + units(met) * (1 if is_elementwise(met) else 4)
    few = any(count < _ENOUGH for count in drawn.values())
    return few or any(map(_is_open, last.choices))


def _is_open(choice: Node) -> bool:
    """Whether a choice can go either way; at a rate of 0 it cannot."""
    known = [node.chance for node in choice.inputs if node.chance is not None]
    return not any(chance.nonzero in (0.0, 1.0) for chance in known)


def held_rates(model: nn.Module) -> Iterator[tuple[str, float]]:
    """(path of an attribute, value) of the numbers in modules that are called a dropout's rate."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if is_called_rate(module, name) and type(value) in (float, int):
                yield f"{path}.{name}" if path else name, float(value)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value of containers, dataclasses and models' outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from tensors(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for named in dataclasses.fields(value):
            yield from tensors(getattr(value, named.name, None))


def copied(value: Any, device: torch.device | None) -> Any:
    """A value with all that is in it copied, so that a pass cannot write into it.

    A tensor that is given twice is one in the copy too.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors(value):
        fresh = tensor.detach().to(device) if device is not None else tensor.detach().clone()
        memo[id(tensor)] = fresh.requires_grad_(tensor.requires_grad)
    try:
        return copy.deepcopy(value, dict(memo))
    except Exception:  # a generator, a lock: what cannot be copied is given as it is
        return mapped(value, lambda tensor: memo[id(tensor)])


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A value of tuples, lists and dictionaries with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(part, change) for part in value))
    if type(value) in (tuple, list):
        return type(value)(mapped(part, change) for part in value)
    if type(value) is dict:
        return {key: mapped(part, change) for key, part in value.items()}
    return value
