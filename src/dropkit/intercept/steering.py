"""Brings what a model is about to do at random before somebody who decides, whatever its mode.

One mode of torch's functions sees the calls. While it is in force torch takes none of its fused
paths, which have no dropout in them; and nothing of the model is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dropkit.intercept.attaching import OPENED
from dropkit.intercept.operations import SIGNATURES, Operation, operation
from dropkit.intercept.process import Ends, eager
from dropkit.intercept.trace import Where
from dropkit.intercept.within import Within, hooked

Function = Callable[..., Any]

RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
"""Functions that hold dropout between their layers."""
RANDOM = frozenset(
    getattr(room, name)
    for room, names in (
        (torch, ("rand", "rand_like", "randn", "randn_like", "bernoulli")),
        (Tensor, ("bernoulli", "bernoulli_", "uniform_", "normal_")),
    )
    for name in names
)
"""Functions of which masks are made by hand."""
WEIGHED = frozenset((functional.linear, torch.conv1d, torch.conv2d, torch.conv3d))
"""Functions that weigh a value: dropout is put before them."""
READ = frozenset((Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr))
"""Functions that hand values to what is not torch."""


class Director:
    """Decides what becomes of a call; this one lets each run as it is.

    Where a model is, it asks for only if it has to know.
    """

    def drop(self, call: Operation, where: Callable[[], Where]) -> Any:
        """A dropout, or attention, switched on or not."""
        return call.run()

    def recur(self, function: Function, args: Sequence[Any], where: Callable[[], Where]) -> Any:
        """The layers of a recurrent network."""
        return function(*args)

    def draw(
        self,
        function: Function,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        where: Callable[[], Where],
    ) -> Any:
        """A draw that is not a dropout."""
        return function(*args, **kwargs)

    def normalize(
        self, function: Function, args: Sequence[Any], kwargs: dict[str, Any], inside: str
    ) -> Any:
        """A batch norm, inside the module of a path."""
        return function(*args, **kwargs)

    def weigh(
        self,
        function: Function,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        where: Callable[[], Where],
    ) -> Any:
        """A linear layer or a convolution."""
        return function(*args, **kwargs)

    def read(self, values: Tensor) -> None:
        """Values are handed to what is not torch."""


@contextmanager
def steering(
    model: nn.Module, director: Director, began: Callable[[str], None] | None = None
) -> Iterator[Within]:
    """Let somebody decide what a model does at random within the block, in this thread.

    `began` is told of each module that begins, by its path.
    """
    within = Within(model, began=began)
    with hooked(within), eager(), _Steering(within, director):
        yield within


class _Steering(Ends, TorchFunctionMode):
    def __init__(self, within: Within, director: Director) -> None:
        super().__init__()
        self.within, self.director = within, director

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, or ask the director to."""
        kwargs = kwargs or {}
        if func not in _SEEN or not self.within.here:
            return func(*args, **kwargs)
        director, where = self.director, self.within.where
        if func in SIGNATURES:
            found = operation(func, args, kwargs)
            return func(*args, **kwargs) if found is None else director.drop(found, where)
        if func is functional.multi_head_attention_forward:
            with self:  # whether its dropouts act is decided at each of them
                return OPENED(*args, **{**kwargs, "training": True})
        if func in RANDOM:
            return director.draw(func, args, kwargs, where)
        if func in WEIGHED:
            return director.weigh(func, args, kwargs, where)
        if func in READ:
            director.read(args[0])
            return func(*args, **kwargs)
        if func is functional.batch_norm:
            return director.normalize(func, args, dict(kwargs), self.within.innermost[0])
        return director.recur(func, args, where)


_SEEN = (
    frozenset(SIGNATURES)
    | RANDOM
    | WEIGHED
    | READ
    | frozenset(RECURRENT)
    | {functional.multi_head_attention_forward, functional.batch_norm}
)
