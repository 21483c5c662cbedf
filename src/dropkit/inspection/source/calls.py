"""The calls of torch that drop, and where each takes its rate and its mode."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Signature:
    """How a call that drops takes what matters."""

    rate: tuple[int | None, str]
    """Position (None: by name alone) and name."""
    mode: tuple[int | None, str] | None = None
    """None: it has no switch, and acts whenever its rate is above 0."""
    mode_default: bool | None = None


_F, _T = "torch.nn.functional", "torch"
_PLAIN = Signature((1, "p"), (2, "training"), True)
_ALPHA = Signature((1, "p"), (2, "training"), False)
_LOW = Signature((1, "p"), (2, "train"))

FUNCTIONAL = {
    **{f"{_F}.{name}": _PLAIN for name in ("dropout", "dropout1d", "dropout2d", "dropout3d")},
    **{f"{_F}.{name}": _ALPHA for name in ("alpha_dropout", "feature_alpha_dropout")},
    **{
        f"{_T}.{name}{end}": _LOW
        for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
        for end in ("", "_")
    },
}
"""Functions that drop what they are given."""

ATTENTION = {
    f"{_F}.scaled_dot_product_attention": Signature((4, "dropout_p")),
    f"{_F}.multi_head_attention_forward": Signature((10, "dropout_p"), (13, "training"), True),
    "flash_attn.flash_attn_func": Signature((3, "dropout_p")),
    "flash_attn.flash_attn_qkvpacked_func": Signature((1, "dropout_p")),
    "flash_attn.flash_attn_kvpacked_func": Signature((2, "dropout_p")),
    "flash_attn.flash_attn_varlen_func": Signature((7, "dropout_p")),
    "flash_attn.flash_attn_varlen_qkvpacked_func": Signature((3, "dropout_p")),
    "flash_attn.flash_attn_varlen_kvpacked_func": Signature((6, "dropout_p")),
    "xformers.ops.memory_efficient_attention": Signature((4, "p")),
}
"""Functions that drop weights of attention on their way."""
ATTENTION |= {
    name.replace("flash_attn.", "flash_attn.flash_attn_interface."): signature
    for name, signature in ATTENTION.items()
    if name.startswith("flash_attn.")
}

_ELEMENT = Signature((0, "p"))
MODULES = {
    f"torch.nn.{name}": _ELEMENT
    for name in (
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "AlphaDropout",
        "FeatureAlphaDropout",
    )
}
"""Modules that drop what they are given."""
MODULES |= {name.replace("torch.nn.", "torch.nn.modules.dropout."): _ELEMENT for name in MODULES}

RECURRENT = {
    "torch.nn.LSTM": Signature((5, "dropout")),
    "torch.nn.GRU": Signature((5, "dropout")),
    "torch.nn.RNN": Signature((6, "dropout")),
}
"""Networks that drop between their layers; the third argument is how many there are."""

Absent = Literal["absent", "unknown"]


def argument(call: ast.Call, where: tuple[int | None, str]) -> ast.expr | Absent:
    """What a call hands over; unknown where a star may hide it."""
    position, name = where
    for word in call.keywords:
        if word.arg == name:
            return word.value
    before = call.args if position is None else call.args[: position + 1]
    if any(isinstance(arg, ast.Starred) for arg in before):
        return "unknown"
    if position is not None and position < len(call.args):
        return call.args[position]
    return "unknown" if any(word.arg is None for word in call.keywords) else "absent"


def number(node: ast.expr | Absent) -> float | None:
    """The value of a number, a minus before it included; None for all else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = number(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return None if isinstance(node.value, bool) else float(node.value)
    return None


def truth(node: ast.expr | Absent) -> bool | None:
    """True and False, and 1 and 0; None for all else."""
    if isinstance(node, ast.Constant) and node.value in (0, 1) and node.value is not None:
        return bool(node.value)
    return None
