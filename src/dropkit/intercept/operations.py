"""The functions of torch that drop, and a call of one with all of its arguments by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_REQUIRED = object()


class _Signature(NamedTuple):
    """What a function of torch takes."""

    name: str
    defaults: Mapping[str, Any]
    """By parameter, in order; in place of its own name, the one in torch.nn.functional."""


class Operation:
    """A dropout that a model is about to run, with all of its arguments by name.

    The names are those of `torch.nn.functional`: input, p, training and inplace; of attention,
    which drops its weights, query, key, value, attn_mask, dropout_p and so on.
    """

    def __init__(self, function: Callable[..., Any], name: str, arguments: dict[str, Any]) -> None:
        self.function = function
        self.name = name
        self.arguments = arguments

    @property
    def is_attention(self) -> bool:
        """Whether this is attention, which drops its weights."""
        return self.name == "scaled_dot_product_attention"

    @property
    def x(self) -> Tensor:
        """What is dropped; of attention, the query."""
        x: Tensor = self.arguments["query" if self.is_attention else "input"]
        return x

    @property
    def rate(self) -> float:
        """The fraction dropped; 0 outside of training."""
        if self.is_attention:
            return float(self.arguments["dropout_p"])
        return float(self.arguments["p"]) if self.arguments["training"] else 0.0

    def run(self, **changes: Any) -> Any:
        """What torch makes of it, with other values for some arguments."""
        arguments = self.arguments | changes
        if SIGNATURES[self.function].defaults is _BUILTIN:
            return self.function(arguments["input"], arguments["p"], arguments["training"])
        return self.function(**arguments)


Handler = Callable[[Operation], Any]
"""Gives the result of an operation. `operation.run()` is torch's."""

_DROPOUT = {"input": _REQUIRED, "p": 0.5, "training": True, "inplace": False}
_ALPHA = _DROPOUT | {"training": False}
_BUILTIN = {"input": _REQUIRED, "p": _REQUIRED, "training": _REQUIRED}
_ATTENTION = {
    "query": _REQUIRED,
    "key": _REQUIRED,
    "value": _REQUIRED,
    "attn_mask": None,
    "dropout_p": 0.0,
    "is_causal": False,
    "scale": None,
    "enable_gqa": False,
}


def _signatures() -> Iterator[tuple[Callable[..., Any], _Signature]]:
    """The functions of torch that drop."""
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d"):
        yield getattr(functional, name), _Signature(name, _DROPOUT)
    for name in ("alpha_dropout", "feature_alpha_dropout"):
        yield getattr(functional, name), _Signature(name, _ALPHA)
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"):
        yield getattr(torch, name), _Signature(name, _BUILTIN)
        yield getattr(torch, f"{name}_"), _Signature(f"{name}_", _BUILTIN)
    attention = functional.scaled_dot_product_attention
    yield attention, _Signature("scaled_dot_product_attention", _ATTENTION)


SIGNATURES = dict(_signatures())


def operation(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Operation | None:
    """A call as an operation; None if it is none, or torch has to complain of it."""
    signature = SIGNATURES.get(function)
    if signature is None:
        return None
    arguments = dict(signature.defaults)
    arguments.update(zip(signature.defaults, args, strict=False))
    arguments.update(kwargs)
    if "train" in arguments:
        arguments["training"] = arguments.pop("train")
    found = Operation(function, signature.name, arguments)
    fits = len(arguments) == len(signature.defaults)
    given = fits and not any(value is _REQUIRED for value in arguments.values())
    return found if given and isinstance(found.x, Tensor) else None
