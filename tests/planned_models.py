"""A model in which each way of writing a rate down occurs, its plan, and what a plan may change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit.planning.plan import Plan

X = torch.linspace(-1, 1, 4 * 8 * 8).reshape(4, 8, 8)


class Config:
    def __init__(self) -> None:
        self.rate = 0.3


class Block(nn.Module):
    """Each way in which people write a rate down."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.keep_prob, self.zero, self.drop_prob, self.eps = 0.7, 0.0, 0.2, 1e-6
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.LSTM(8, 8, 2, dropout=0.1)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.15)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.25, self.training)
        x = F.dropout(x, 1 - self.keep_prob, self.training)
        if self.zero > 0:
            x = F.dropout(x, self.zero, self.training)
        x = F.dropout(x, self.config.rate, self.training)
        if self.training and self.drop_prob > 0:
            keep = 1 - self.drop_prob
            x = x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep).div(keep)
        return self.encoder(self.rnn(self.drop(x))[0])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = Config()
        self.blocks = nn.ModuleList(Block(config) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Literal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.dropout(x.relu(), 0.25, self.training))


def planned(model: nn.Module | None = None, *inputs: Tensor) -> Plan:
    return dropkit.rates(model or Model(), *(inputs or (X,)))


def state(model: nn.Module) -> list[Any]:
    """Everything of a model that a plan may change."""
    return [
        (
            path,
            module.training,
            sorted((k, str(v)) for k, v in vars(module).items() if k != "config"),
        )
        for path, module in model.named_modules()
    ] + [dict(vars(module.config)) for module in model.modules() if hasattr(module, "config")]
