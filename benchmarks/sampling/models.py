"""Small models with random weights, one for each kind of site; and hand-written draws of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.zoo.subjects import declare_operators
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
"""What does something else in training than at inference, and is no dropout."""


@dataclass(frozen=True)
class Kind:
    """A kind of site: a model that has it, and what it is called with."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    axis: int = 0
    """The axis of the batch, in the inputs and in the outputs."""
    needs: str = ""
    """A package that it is made with."""

    def made(self) -> tuple[nn.Module, Tensor]:
        """The model, as it is at inference, and its inputs: the same ones at each call."""
        torch.manual_seed(0)
        model = self.build()
        return model.eval(), self.inputs()


def switched_on(model: nn.Module) -> nn.Module:
    """Let all that drops in training drop, and nothing else change: the reference, and the loop."""
    model.train()
    for module in model.modules():
        if isinstance(module, NORMS):
            module.eval()
    return model


def truth(kind: Kind, draws: int, key: int = 1) -> Tensor:
    """(draws, *output): many copies of the batch in passes of torch's own dropout.

    Copies are put side by side along the axis that is known, by hand, to be that of the batch.
    """
    model, x = kind.made()
    model = switched_on(copy.deepcopy(model))
    torch.manual_seed(key)
    copies, size = 500, x.shape[kind.axis]
    found = []
    with torch.no_grad():
        for _ in range(-(-draws // copies)):
            y = model(torch.cat([x] * copies, kind.axis))
            found.append(y.unflatten(kind.axis, (copies, size)).movedim(kind.axis, 0))
    return torch.cat(found)[:draws]


# ---- modules written as users write them


class Functional(nn.Module):
    """Dropout as a call, as in the ResNets of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.first(x)), 0.4, training=self.training)
        return self.last(x)


class Attention(nn.Module):
    """Dropout as an argument of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.last = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        rate = 0.4 if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return self.last(y.transpose(1, 2).flatten(2))


class DropPath(nn.Module):
    """Stochastic depth, as timm writes it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)


class Paths(nn.Module):
    """Residual blocks that are skipped at random."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.path, self.last = DropPath(0.3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + self.path(torch.tanh(block(x)))
        return self.last(x)


class Recurrent(nn.Module):
    """The steps of a recurrent network, and a linear layer."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__()
        self.body, self.last = body, nn.Linear(body.hidden_size, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x)[0])


class SelfAttention(nn.Module):
    """torch's attention over itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.MultiheadAttention(8, 2, 0.4, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x, x, x, need_weights=False)[0])


class First(nn.Module):
    """A model of Transformers as one of tensors, which is what other tools can call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)[0]


def bert(attention: str, **sizes: Any) -> nn.Module:
    """BERT with its own rates of dropout, unless others are given."""
    declare_operators()
    from transformers import BertConfig, BertModel

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        **{"vocab_size": 100, "intermediate_size": 32, **small, **sizes},
        attn_implementation=attention,
    )
    return First(BertModel(config, add_pooling_layer=False))


def _encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True)


def _small_bert(attention: str) -> nn.Module:
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.5}
    return bert(attention, initializer_range=0.5, **rates)


def convolutional(drop: nn.Module, rank: int) -> nn.Module:
    """A convolution of so many axes, a dropout, and a linear layer."""
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    last = nn.Linear(6 * 4**rank, 3)
    return nn.Sequential(layer(2, 6, 3, padding=1), nn.ReLU(), drop, nn.Flatten(), last)


def with_batch_norm() -> nn.Module:
    """A small CNN, whose batch norms have seen other data than they will be asked about."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3)),
        *(nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(64, 3)),
    )
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(16, 2, 4, 4) * 2 + 1)
    return model


def _dense(drop: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), drop, nn.Linear(16, 3))


def _rows(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape)


def _tokens() -> Tensor:
    return torch.arange(3, 15).view(2, 6)


KINDS = (
    Kind("`nn.Dropout`", lambda: _dense(nn.Dropout(0.4)), _rows(2, 8)),
    Kind("`nn.Dropout1d`", lambda: convolutional(nn.Dropout1d(0.4), 1), _rows(2, 2, 4)),
    Kind("`nn.Dropout2d`", lambda: convolutional(nn.Dropout2d(0.4), 2), _rows(2, 2, 4, 4)),
    Kind("`nn.Dropout3d`", lambda: convolutional(nn.Dropout3d(0.4), 3), _rows(2, 2, 4, 4, 4)),
    Kind("`nn.AlphaDropout`", lambda: _dense(nn.AlphaDropout(0.4)), _rows(2, 8)),
    Kind(
        "`nn.FeatureAlphaDropout`",
        lambda: convolutional(nn.FeatureAlphaDropout(0.4), 2),
        _rows(2, 2, 4, 4),
    ),
    Kind("the model is an `nn.Dropout`", lambda: nn.Dropout(0.4), _rows(2, 6)),
    Kind("`F.dropout(training=self.training)`", Functional, _rows(2, 8)),
    Kind("`scaled_dot_product_attention(dropout_p=)`", Attention, _rows(2, 5, 8)),
    Kind(
        "`nn.LSTM`, sequence first",
        lambda: Recurrent(nn.LSTM(4, 8, 2, dropout=0.4)),
        _rows(5, 2, 4),
        axis=1,
    ),
    Kind(
        "`nn.GRU`, batch first",
        lambda: Recurrent(nn.GRU(4, 8, 2, dropout=0.4, batch_first=True)),
        _rows(2, 5, 4),
    ),
    Kind("`nn.MultiheadAttention`", SelfAttention, _rows(2, 5, 8)),
    Kind("`nn.TransformerEncoderLayer`", _encoder_layer, _rows(2, 5, 8)),
    Kind(
        "`nn.TransformerEncoder`",
        lambda: nn.TransformerEncoder(_encoder_layer(), 2),
        _rows(2, 5, 8),
    ),
    Kind("DropPath, as in timm", Paths, _rows(2, 8)),
    Kind(
        "Transformers' BERT, eager attention",
        lambda: _small_bert("eager"),
        _tokens,
        needs="transformers",
    ),
    Kind(
        "Transformers' BERT, sdpa attention",
        lambda: _small_bert("sdpa"),
        _tokens,
        needs="transformers",
    ),
    Kind("a CNN with batch norm", with_batch_norm, _rows(2, 2, 4, 4)),
)


# ---- models that are timed


class Block(nn.Module):
    """The basic block of a ResNet."""

    def __init__(self, wide: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(wide, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()),
            *(nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider)),
        )
        self.short: nn.Module = nn.Identity()
        if stride != 1 or wide != wider:
            layer = nn.Conv2d(wide, wider, 1, stride, bias=False)
            self.short = nn.Sequential(layer, nn.BatchNorm2d(wider))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def resnet18() -> nn.Module:
    """ResNet-18 with dropout before its last layer."""
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(
        *(*stem, nn.MaxPool2d(3, 2, 1)),
        *_blocks(64, (64, 128, 256, 512)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(512, 10)),
    )


def _blocks(wide: int, widths: tuple[int, ...]) -> Iterator[Block]:
    for wider in widths:
        yield Block(wide, wider, 1 if wider == wide else 2)
        yield Block(wider, wider, 1)
        wide = wider


def mlp() -> nn.Module:
    """Three layers of 512, each followed by dropout at one half."""
    layers = [(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5)) for _ in range(3)]
    return nn.Sequential(*(part for layer in layers for part in layer), nn.Linear(512, 10))


def bert_of_four() -> nn.Module:
    """BERT of four layers of 256, with dropout everywhere."""
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    return bert("sdpa", vocab_size=1000, intermediate_size=1024, **sizes)
