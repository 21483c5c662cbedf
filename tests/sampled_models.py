"""Small models with each kind of site, as people write them; and that a model stays as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit.nn

Made = tuple[nn.Module, tuple[Tensor, ...]]


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(torch.relu(self.first(x)), 0.3, training=self.training))


class DropPath(nn.Module):
    """As timm writes it: in evaluation mode nothing is called."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.path = nn.Linear(8, 8), DropPath(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(self.inner(x))


class FloorPath(nn.Module):
    """Stochastic depth as Transformers writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.training:
            mask = 0.7 + torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype)
            y = y.div(0.7) * mask.floor_()
        return x + y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.2 if self.training else 0.0)


class Slices(nn.Module):
    """Writes what was dropped into parts of a tensor that was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.inner(x))
        out = torch.zeros(x.shape[0], x.shape[1], 8)
        for step in range(x.shape[1]):
            out[:, step] = hidden[:, step] * 2
        hidden.relu_()
        out[:, 0] += hidden[:, 0]
        return out


class Into(nn.Module):
    """Writes into tensors that are given by name: whole, and in part."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x, out = self.drop(x), torch.ones(2, *x.shape)
        torch.mul(x, 2, out=out[1])
        return torch.add(out[0], out[1], out=torch.empty_like(x))


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.inner = kind(8, 8, 2, dropout=0.4, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


class SelfAttention(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.inner, self.weights = (
            nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True),
            weights,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=self.weights)[0]


def _convolutions(drop: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), drop, nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )


def _layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "module": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
    "in_place": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.Linear(8, 3)
    ),
    "root": lambda: nn.Dropout(0.5),
    "dropout1d": lambda: nn.Dropout1d(0.5),
    "dropout2d": lambda: _convolutions(nn.Dropout2d(0.5)),
    "dropout3d": lambda: nn.Dropout3d(0.5),
    "alpha": lambda: nn.AlphaDropout(0.5),
    "feature_alpha": lambda: nn.FeatureAlphaDropout(0.5),
    "functional": Functional,
    "attention": Attention,
    "lstm": lambda: Recurrent(nn.LSTM),
    "lstm_both_ways": lambda: Recurrent(nn.LSTM, bidirectional=True, batch_first=True),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
    "multihead": lambda: SelfAttention(weights=False),
    "multihead_weights": lambda: SelfAttention(weights=True),
    "encoder_layer": _layer,
    "encoder": lambda: nn.TransformerEncoder(_layer(), 2),
    "drop_path": Residual,
    "floor_path": FloorPath,
    "slices": Slices,
    "into": Into,
    "ours": lambda: nn.Sequential(
        nn.Linear(8, 8), dropkit.nn.Dropout(0.5), nn.Linear(8, 8), dropkit.nn.DropPath(0.3)
    ),
}
"""By kind of site."""


def two() -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).eval()


_IMAGES = {"dropout2d": (4, 2, 8, 8), "dropout3d": (2, 3, 2, 2, 2)}


def made(kind: str) -> Made:
    """A model in evaluation mode, and what it is called with; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = MODELS[kind]().eval()
        return model, (torch.randn(_IMAGES.get(kind, (4, 5, 8))),)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """The model and all generators are afterwards what they were, bit by bit."""
    tensors = {name: (x, x.detach().clone(), x._version) for name, x in _tensors(model)}
    modes = [part.training for part in model.modules()]
    own = [dict(vars(part)) for part in model.modules()]
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    try:
        yield
    finally:
        for name, x in _tensors(model):
            same, content, version = tensors[name]
            assert x is same and torch.equal(x, content) and x._version == version, name
            assert x.grad is None
        assert modes == [part.training for part in model.modules()]
        for part, before in zip(model.modules(), own, strict=True):
            assert vars(part).keys() == before.keys()
            assert all(vars(part)[name] is before[name] for name in before)
            assert not part._forward_hooks and not part._forward_pre_hooks
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1:] == (random.getstate(), str(np.random.get_state()))


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
