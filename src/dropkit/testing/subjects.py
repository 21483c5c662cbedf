"""Dropouts of the field as subjects: PyTorch's, torchvision's, timm's, Transformers', dropkit's.

Each library is a function that returns its subjects, and none where it is not installed. What a
row does not say is the default of `Subject`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.testing.laws import Block
from dropkit.testing.subject import STANDARD, Subject

SEQUENCE = (8, 16, 9)
PLANES = (8, 16, 7, 5)
VOLUMES = (8, 6, 3, 4, 5)
MAPS = (4, 4, 14, 12)

_TORCH: dict[str, dict[str, Any]] = {
    "Dropout": {"shape": SEQUENCE},
    "Dropout1d": {"shape": SEQUENCE, "shared": (2,)},
    "Dropout2d": {"shape": PLANES, "shared": (2, 3)},
    "Dropout3d": {"shape": VOLUMES, "shared": (2, 3, 4)},
    "AlphaDropout": {"shape": SEQUENCE, "scaling": "alpha"},
    "FeatureAlphaDropout": {"shape": SEQUENCE, "shared": (2,), "scaling": "alpha"},
}
_FUNCTIONS = {
    "dropout": "Dropout",
    "dropout1d": "Dropout1d",
    "dropout2d": "Dropout2d",
    "dropout3d": "Dropout3d",
    "alpha_dropout": "AlphaDropout",
    "feature_alpha_dropout": "FeatureAlphaDropout",
}
_PATH: dict[str, Any] = {"shape": (64, 5, 3), "shared": (1, 2)}
_BLOCK: dict[str, Any] = {
    "shape": MAPS,
    "shared": (1,),
    "law": Block(tied=(2, 3), size=5),
    "scaling": "normalized",
    "sizes": "batch",
}


def torch_layers() -> list[Subject]:
    """The six layers of `torch.nn`; with their in-place twins."""
    return [
        Subject(name=f"torch.nn.{name}", make=_made(nn, name), inplace=_made(nn, name, True), **row)
        for name, row in _TORCH.items()
    ]


def torch_functions() -> list[Subject]:
    """The six functions of `torch.nn.functional`."""
    return [
        Subject(name=f"torch.nn.functional.{name}", make=_called(name), **_TORCH[layer])
        for name, layer in _FUNCTIONS.items()
    ]


def torchvision_layers() -> list[Subject]:
    """`StochasticDepth` and `DropBlock2d`."""
    ops = _found("torchvision.ops")
    if ops is None:
        return []
    return [
        Subject(
            name="torchvision.ops.StochasticDepth",
            make=lambda p: ops.StochasticDepth(p, "row"),
            **_PATH,
        ),
        Subject(
            name="torchvision.ops.DropBlock2d",
            make=lambda p: ops.DropBlock2d(p, 5),
            **{**_BLOCK, "shared": (), "law": Block(tied=(2, 3), size=5, clipped=False)},
        ),
    ]


def timm_layers() -> list[Subject]:
    """`DropPath` and `DropBlock2d`."""
    layers = _found("timm.layers")
    if layers is None:
        return []
    return [
        Subject(name="timm.layers.DropPath", make=layers.DropPath, **_PATH),
        Subject(
            name="timm.layers.DropBlock2d",
            make=lambda p: layers.DropBlock2d(p, block_size=5),
            **_BLOCK,
        ),
    ]


def transformers_layers() -> list[Subject]:
    """A `DropPath` (most models have their own copy), the eager attention, DeBERTa's dropout."""
    swin = _found("transformers.models.swin.modeling_swin")
    bert = _found("transformers.models.bert.modeling_bert")
    sew = _found("transformers.models.sew_d.modeling_sew_d")
    subjects = []
    if swin is not None:
        subjects.append(Subject(name="transformers SwinDropPath", make=swin.SwinDropPath, **_PATH))
    if bert is not None:
        subjects.append(
            Subject(
                name="transformers eager attention (BERT)",
                make=lambda p: _attention(bert.eager_attention_forward, p),
                shape=(4, 3, 6, 8),
                claims=STANDARD - {"integer", "empty", "scalar"},
                sizes="batch",
            )
        )
    if sew is not None:
        subjects.append(
            Subject(name="transformers StableDropout", make=sew.StableDropout, shape=SEQUENCE)
        )
    return subjects


def _attention(forward: Callable[..., tuple[Tensor, Tensor]], p: float) -> Callable[..., Tensor]:
    """x times the dropout of attention weights: 1/8 of one-hot values each, so that it is exact."""

    def factor(x: Tensor, training: bool) -> Tensor:
        module = nn.Module().train(training)
        query, key = x.new_zeros(*x.shape[:-1], 1), x.new_zeros(*x.shape[:-2], x.shape[-1], 1)
        value = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand(*x.shape[:-2], -1, -1)
        output, _ = forward(module, query, key, value, None, scaling=1.0, dropout=p)
        return x * output.transpose(1, 2) * x.shape[-1]

    return factor


def _made(module: Any, name: str, inplace: bool = False) -> Callable[[float], nn.Module]:
    kind = getattr(module, name)
    return lambda p: kind(p, inplace=True) if inplace else kind(p)


def _called(name: str) -> Callable[[float], Callable[[Tensor, bool], Tensor]]:
    function = getattr(nn.functional, name)
    return lambda p: lambda x, training: function(x, p, training)


def _found(module: str) -> Any:
    """A module that may not be installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
