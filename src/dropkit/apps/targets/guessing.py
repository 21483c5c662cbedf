"""Inputs for a model that nobody described: what the first of its layers says that it takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dropkit.apps.targets.inputs import sized, values
from dropkit.apps.targets.target import Inputs
from dropkit.apps.targets.telling import required
from dropkit.errors import InputError
from dropkit.intercept import uncompiled, untouched

BATCH, LENGTH = 8, 16
"""More than one of each, so that what is shared along an axis can be seen."""
SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 16)
"""Of pictures: the first that goes through is taken; 224 is what most networks are built for."""

_Shape = tuple[int, ...]


def guess(model: nn.Module) -> Inputs:
    """Inputs that the model takes, as far as its layers say.

    Raises:
        InputError: they do not say it.
    """
    model = uncompiled(model)
    needed = required(model.forward)
    several = _of_several(model)
    if several is not None:
        return _inputs([values(shape, torch.float32) for shape in several], needed)
    first = next((module for module in model.modules() if _shapes(module)), None)
    if len(needed) != 1 or first is None:
        says = (
            f"forward takes {', '.join(needed)}" if needed else "forward does not say what it takes"
        )
        examples = " ".join(f"--input {name}={BATCH}x{LENGTH}" for name in needed[:3])
        raise InputError(
            f"what {type(model).__name__} takes could not be guessed: {says}. "
            f"Try {examples or f'--input {BATCH}x{LENGTH}'}, with its real shapes, or --inputs "
            "module:function"
        )
    tried = [_tensor(first, shape) for shape in _shapes(first)]
    fits = (tensor for tensor in tried if len(tried) == 1 or _goes_through(model, tensor))
    return _inputs([next(fits, tried[0])], needed)


def _inputs(tensors: list[Tensor], names: list[str]) -> Inputs:
    said = ", ".join(
        f"{name}={sized(tensor.shape)}" for name, tensor in zip(names, tensors, strict=False)
    )
    return Inputs(tuple(tensors), {}, said)


def _of_several(model: nn.Module) -> list[_Shape] | None:
    """Of torch's own models that take more than one tensor."""
    if isinstance(model, nn.Transformer):
        batched = (BATCH, LENGTH) if model.batch_first else (LENGTH, BATCH)
        return [(*batched, model.d_model)] * 2
    if isinstance(model, nn.TransformerDecoder | nn.TransformerDecoderLayer):
        return [(LENGTH, BATCH, _width(model))] * 2
    if isinstance(model, nn.MultiheadAttention):
        sizes = (model.embed_dim, model.kdim, model.vdim)
        return [(LENGTH, BATCH, size) for size in sizes]
    if isinstance(model, nn.Bilinear):
        return [(BATCH, model.in1_features), (BATCH, model.in2_features)]
    return None


def _width(model: nn.Module) -> int:
    found = (m.embed_dim for m in model.modules() if isinstance(m, nn.MultiheadAttention))
    return int(next(found))


def _shapes(module: nn.Module) -> list[_Shape]:
    """What a layer takes, the likeliest first; empty: it does not say."""
    features = getattr(module, "in_features", None)
    if isinstance(features, int) and "Linear" in type(module).__name__:  # quantized ones, too
        return [(BATCH, features), (BATCH, LENGTH, features)]
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return [(BATCH, LENGTH), (BATCH,)]
    if isinstance(module, nn.RNNBase):
        return [(BATCH, LENGTH, module.input_size)]
    if isinstance(module, nn.MultiheadAttention):
        return [(BATCH, LENGTH, module.embed_dim)]
    if isinstance(module, nn.LayerNorm):
        sizes = tuple(module.normalized_shape)
        return [(BATCH, LENGTH, *sizes), (BATCH, *sizes)]
    return list(_of_pictures(module))


def _of_pictures(module: nn.Module) -> Iterator[_Shape]:
    channels = getattr(module, "in_channels", None) or getattr(module, "num_features", None)
    if not isinstance(channels, int):
        return
    name = type(module).__name__
    if "Conv" not in name and "BatchNorm" not in name and "InstanceNorm" not in name:
        return
    if "1d" in name:
        yield from ((BATCH, channels, length) for length in (64, 1024, 16_000))
        if "BatchNorm" in name:
            yield (BATCH, channels)
    elif "2d" in name:
        yield from ((BATCH // 2, channels, side, side) for side in SIDES)
    elif "3d" in name:
        yield from ((2, channels, 16, side, side) for side in (112, 32, 16))


def _tensor(module: nn.Module, shape: _Shape) -> Tensor:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return values(shape, torch.int64, module.num_embeddings)
    weight: Any = getattr(module, "weight", None)
    floating = isinstance(weight, Tensor) and weight.is_floating_point()
    return values(shape, weight.dtype if floating else torch.float32)


def _goes_through(model: nn.Module, tensor: Tensor) -> bool:
    """Whether a model takes it, found without values: on the meta device, and without a trace."""
    named = (*model.named_parameters(), *model.named_buffers())
    state = {name: torch.empty_like(value, device="meta") for name, value in named}
    with untouched(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            functional_call(model, state, (tensor.to("meta"),))
        except Exception:  # it does not fit, or its way hangs on values, which nobody can tell
            return False
    return True
