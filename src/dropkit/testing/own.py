"""dropkit's own dropouts as subjects, each with all that it claims."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dropkit.testing.laws import Block, Gaussian, Subset
from dropkit.testing.subject import STANDARD, Claim, Subject

_SEQUENCE = (8, 16, 9)
_PLANES = (8, 16, 7, 5)
_SELECTING: frozenset[Claim] = STANDARD | {"selects"}
_UNSHARDED = _SELECTING - {"shard"}
_UNPLACED = _UNSHARDED - {"offset"}

_INPLACE: dict[str, dict[str, Any]] = {
    "Dropout": {"shape": _SEQUENCE},
    "Dropout1d": {"shape": _SEQUENCE, "shared": (2,)},
    "Dropout2d": {"shape": _PLANES, "shared": (2, 3)},
    "Dropout3d": {"shape": (8, 6, 3, 4, 5), "shared": (2, 3, 4)},
    "SpatialDropout": {"shape": _PLANES, "shared": (2, 3)},
    "AlphaDropout": {"shape": _SEQUENCE, "scaling": "alpha"},
    "FeatureAlphaDropout": {"shape": _SEQUENCE, "shared": (2,), "scaling": "alpha"},
}
_LAYERS: dict[str, dict[str, Any]] = {
    "LockedDropout": {"shape": (9, 8, 16), "shared": (0,)},
    "DropPath": {"shape": (64, 5, 3), "shared": (1, 2)},
    "StochasticDepth": {"shape": (64, 5, 3), "shared": (1, 2)},
    "HeadDropout": {"shape": (6, 8, 5, 3), "shared": (2, 3)},
    "TokenDropout": {
        "shape": (8, 16, 5),
        "shared": (2,),
        "claims": _SELECTING - {"integer"},  # they are ids, and get another one
    },
    "GaussianDropout": {"shape": _SEQUENCE, "law": Gaussian(), "claims": STANDARD},
    "GaussianNoise": {
        "shape": _SEQUENCE,
        "law": Gaussian(std=lambda p: p, additive=True),
        "claims": STANDARD,
    },
}
_BLOCKS: dict[str, tuple[int, ...]] = {
    "DropBlock1d": (6, 4, 40),
    "DropBlock2d": (4, 4, 14, 12),
    "DropBlock3d": (2, 3, 8, 7, 9),
}
_BLOCK_SIZE = 5


def dropkit_layers() -> list[Subject]:
    """The layers of `dropkit.nn` that are a function of one tensor."""
    nn = importlib.import_module("dropkit.nn")
    subjects = [_layer(getattr(nn, name), **row) for name, row in _LAYERS.items()]
    for name, row in _INPLACE.items():
        kind = getattr(nn, name)
        subjects.append(_layer(kind, inplace=partial(_in_place, kind), **row))
    for name, shape in _BLOCKS.items():
        law = Block(tied=tuple(range(2, len(shape))), size=_BLOCK_SIZE)
        make = partial(getattr(nn, name), block_size=_BLOCK_SIZE)
        subjects.append(_layer(make, name=name, shape=shape, law=law, sizes="batch"))
    return sorted(subjects, key=lambda subject: subject.name)


def dropkit_functions() -> list[Subject]:
    """Functions of `dropkit.functional` that no layer above is a face of."""
    return [_function(adapter, **settings) for adapter, settings in _FUNCTIONS]


def _layer(make: Callable[..., Any], **settings: Any) -> Subject:
    settings = {"claims": _SELECTING} | settings
    name = settings.pop("name", getattr(make, "__name__", ""))
    return Subject(
        make=make,
        name=f"dropkit.nn.{name}",
        keyed=lambda p: make(p).train(),
        generator=lambda p: lambda x, source: make(p).train()(x, generator=source),
        **settings,
    )


def _function(adapter: Callable[..., Tensor], **settings: Any) -> Subject:
    function = partial(adapter, importlib.import_module("dropkit.functional"))
    return Subject(
        make=lambda p: lambda x, training: function(x, p, training),
        keyed=lambda p: lambda x, **named: function(x, p, **named),
        generator=lambda p: lambda x, source: function(x, p, generator=source),
        **{"claims": _SELECTING, "name": _title(adapter.__name__), **settings},
    )


def _title(name: str) -> str:
    return f"dropkit.functional.{name.removeprefix('_')}"


def _in_place(kind: Callable[..., Any], p: float) -> Any:
    return kind(p, inplace=True)


# Functions of more than one tensor, as functions of one: from (functional, x, p, training, ...).


def _classic_dropout(
    functional: Any, x: Tensor, p: float, training: bool = True, **named: Any
) -> Any:
    return functional.dropout(x, p, training, scaling="classic", **named)


def _dropout_add(functional: Any, x: Tensor, p: float, training: bool = True, **named: Any) -> Any:
    """Added to nothing."""
    return functional.dropout_add(x, torch.zeros_like(x), p, training, **named)


def _zoneout(functional: Any, x: Tensor, p: float, training: bool = True, **named: Any) -> Any:
    """From a state of zeros."""
    return functional.zoneout(x, torch.zeros_like(x), p, training, **named)


def _variational_dropout(
    functional: Any, x: Tensor, p: float, training: bool = True, **named: Any
) -> Any:
    """With the variance of a rate."""
    alpha = x.new_tensor(math.log(p / (1 - p)) if p else 0.0)
    return functional.variational_dropout(x, alpha, training and p > 0, **named)


def _embedding_dropout(
    functional: Any, x: Tensor, p: float, training: bool = True, **named: Any
) -> Any:
    """Of words that all differ, so that each is dropped on its own."""
    words = x.shape[0] * x.shape[1]
    ids = torch.arange(words, device=x.device).view(x.shape[:2])
    return functional.embedding_dropout(x, ids, words, p, training, **named)


def _patch_dropout(
    functional: Any, x: Tensor, p: float, training: bool = True, **named: Any
) -> Any:
    """The kept patches back in their places, among zeros."""
    kept, places = functional.patch_dropout(x, p, training, prefix=0, **named)
    if places is None:
        return kept
    return torch.zeros_like(x).scatter(1, places[..., None].expand(kept.shape), kept)


def _drop_connect(functional: Any, x: Tensor, p: float, training: bool = True, **named: Any) -> Any:
    """Of weights x, seen through inputs of one 1 each."""
    inputs = torch.eye(len(x), dtype=x.dtype, device=x.device)
    return functional.drop_connect(inputs, x.T, None, p, training, **named)


_FUNCTIONS: list[tuple[Callable[..., Tensor], dict[str, Any]]] = [
    (
        _classic_dropout,
        {"shape": _SEQUENCE, "scaling": "classic", "name": _title("dropout, classic")},
    ),
    (_dropout_add, {"shape": _SEQUENCE, "claims": _UNSHARDED}),
    (_zoneout, {"shape": _SEQUENCE, "scaling": "classic"}),
    (
        _variational_dropout,
        {"shape": _SEQUENCE, "law": Gaussian(), "claims": STANDARD - {"half"}},
    ),
    (
        _embedding_dropout,
        {"shape": (8, 12, 5), "shared": (2,), "sizes": "fixed", "claims": _UNPLACED},
    ),
    (
        _patch_dropout,
        {
            "shape": (8, 10, 5),
            "shared": (2,),
            "law": Subset(tied=(1,), count=lambda p, n: n - max(1, round(n * (1 - p)))),
            "scaling": "none",
            "claims": _UNPLACED - {"rate one"},
        },
    ),
    (
        _drop_connect,
        {
            "shape": (16, 12),
            "sizes": "fixed",
            "claims": _UNPLACED - {"integer", "nan and inf"},  # a product of matrices adds up
        },
    ),
]
