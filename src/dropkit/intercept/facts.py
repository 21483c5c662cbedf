"""What an operator of torch does, as far as randomness goes: read from its schema and its tags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

TORCH = tuple(f"{torch.__path__[0]}{separator}" for separator in "/\\")
"""With what the files of torch begin."""
_RATES = ("dropout_p", "p_dropout", "dropout", "dropout_prob", "p", "rate")
"""What operators call the fraction that they drop, torch's and others'."""
_KEEPS = {"_fused_dropout"}
"""Of these the number is the fraction that is kept."""
_DROPS = {
    "native_dropout",
    "_fused_dropout",
    "dropout",
    "dropout_",
    "feature_dropout",
    "feature_dropout_",
    "alpha_dropout",
    "alpha_dropout_",
    "feature_alpha_dropout",
    "feature_alpha_dropout_",
}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "_cudnn_rnn", "miopen_rnn"}
FUSED = {"_transformer_encoder_layer_fwd", "_native_multi_head_attention"}
"""Paths that torch takes in eval mode, with no dropout in them."""
BATCH_NORMS = (
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update", "batch_norm"),
    *("_batch_norm_no_update", "_native_batch_norm_legit_functional"),
)
LIKE = (
    *("empty", "zeros", "ones", "full", "scalar_tensor", "arange", "new_empty", "new_zeros"),
    *("new_ones", "new_full", "empty_like", "zeros_like", "ones_like", "full_like"),
    *("empty_strided", "new_empty_strided", "eye", "linspace"),
)
"""Operators whose result hangs on no value that they are given, but on a shape alone."""


_ESCAPES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one overload of an operator."""

    name: str
    seeded: bool
    """Whether it draws from a generator."""
    escapes: bool
    """Whether Python, or the shape of a result, hangs on values that it is given."""
    mutates: bool
    views: bool
    """Whether it gives what it was given, seen otherwise."""
    drops: bool
    """Whether it takes a value and gives it back with a part dropped."""
    rate: str
    """The name of its rate; empty: none."""
    train: str
    """The name of its switch; empty: none."""
    names: tuple[str, ...]
    """Of its arguments, in order."""
    defaults: tuple[Any, ...]
    """Of each; None where it has none. A dispatcher leaves out what is as by default."""

    def argument(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What was given for an argument, or its default."""
        if name in kwargs:
            return kwargs[name]
        at = self.names.index(name)
        return args[at] if at < len(args) else self.defaults[at]

    def draws(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this call draws, and only draws."""
        if not self.seeded or self.drops:
            return False
        return "training" not in self.names or self.argument("training", args, kwargs) is not False

    def dropped(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
        """The rate at which this call drops what it is given; None: it does not."""
        if not self.drops or not self.rate:
            return None
        rate = self.argument(self.rate, args, kwargs)
        on = self.argument(self.train, args, kwargs) if self.train else True
        if not isinstance(rate, float | int) or on is False:
            return None
        rate = 1.0 - rate if self.name in _KEEPS else float(rate)
        return rate if rate > 0 else None


def attends(name: str) -> bool:
    """Whether an operator is attention, torch's or another's."""
    return "attention" in name or "attn" in name


@cache
def facts(operator: Any) -> Facts:
    """The facts of an overload."""
    schema = operator._schema
    room, _, name = schema.name.partition("::")
    names = tuple(argument.name for argument in schema.arguments)
    kinds = {argument.name: str(argument.type) for argument in schema.arguments}
    ours = room == "dropkit" and name == "dropout"
    drops = name in _DROPS or name in _RECURRENT or attends(name) or ours
    rate = next((word for word in _RATES if word in names and kinds[word] == "float"), "")
    return Facts(
        name=name,
        seeded=torch.Tag.nondeterministic_seeded in operator.tags,
        escapes=any(tag in operator.tags for tag in _ESCAPES),
        mutates=schema.is_mutable,
        views=not schema.is_mutable and any(given.alias_info for given in schema.returns),
        drops=drops and "backward" not in name,
        rate=rate if drops else "",
        train="train" if "train" in names and not attends(name) else "",
        names=names,
        defaults=tuple(given.default_value for given in schema.arguments),
    )
