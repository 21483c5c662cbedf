"""Modules that hold one bug each. All take (batch, time, features) and give the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOW = 0.1
"""A rate that is usual everywhere, so that nothing is found but the bug."""

# ---- mode


class NoMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, LOW)


class StaysOn(nn.Dropout):
    def train(self, mode: bool = True) -> StaysOn:
        return super().train(True)


class OwnMask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= LOW) / (1 - LOW)


class Builds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Dropout(LOW)(x)


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drops = [nn.Dropout(LOW)]

    def forward(self, x: Tensor) -> Tensor:
        for drop in self.drops:
            x = drop(x)
        return x


class Ungated(nn.Module):
    """Attention over what comes in, with a rate that no mode reaches."""

    def __init__(self, heads: int = 0) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        if self.heads:
            y = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            y = F.scaled_dot_product_attention(y, y, y, None, LOW, is_causal=True)
            return y.transpose(1, 2).flatten(2)
        return F.scaled_dot_product_attention(x, x, x, dropout_p=LOW)


class ZeroedByForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = LOW

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.dropout = 0.0
        return F.dropout(x, self.dropout, self.training)


# ---- placement


class BeforeNorm(nn.Module):
    def __init__(self, size: int, *, far: bool = False) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.15)
        self.between = nn.Linear(size, size) if far else nn.Identity()
        self.norm = nn.BatchNorm1d(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.between(self.drop(x)).transpose(1, 2)).transpose(1, 2)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(LOW)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.drop(x))


class Maps(nn.Module):
    """A convolution over the sequence, and a dropout of its maps."""

    def __init__(self, size: int, drop: nn.Module, *, norm: bool = False) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv1d(size, size, 3, padding=1), drop
        self.norm = nn.BatchNorm1d(size) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(torch.relu(self.norm(self.conv(x.transpose(1, 2))))).transpose(1, 2)


class Steps(nn.Module):
    """A recurrence that draws at each step."""

    def __init__(self, size: int, kind: str) -> None:
        super().__init__()
        self.kind, self.drop = kind, nn.Dropout(LOW)
        cells = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "rnn": nn.RNNCell}
        self.cell = cells[kind](size, size)

    def forward(self, x: Tensor) -> Tensor:
        state = memory = torch.zeros_like(x[:, 0])
        given = []
        for step in x.unbind(1):
            if self.kind == "lstm":
                state, memory = self.cell(step, (state, memory))
            else:
                state = self.cell(step, state)
            state = self.drop(state)
            given.append(state)
        return torch.stack(given, 1)


class WholeSteps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout2d(x, LOW, self.training)


class Scores(nn.Module):
    """Attention that drops its scores."""

    def __init__(self, size: int, mask: str) -> None:
        super().__init__()
        self.mix, self.mask, self.drop = nn.Linear(size, 3 * size), mask, nn.Dropout(LOW)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).chunk(3, dim=-1)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if self.mask == "own" and self.training:
            scores = scores * (torch.rand_like(scores) >= LOW) / (1 - LOW)
        elif self.mask != "own":
            scores = self.drop(scores)
        if self.mask == "filled":
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        return scores.softmax(-1) @ v


class TwiceApart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.05)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.05, self.training)
        return self.drop(x.transpose(0, 1)).transpose(0, 1)


# ---- rate


class KeepProb(nn.Module):
    def __init__(self, keep_prob: float = 0.7) -> None:
        super().__init__()
        self.keep_prob, self.drop = keep_prob, nn.Dropout(keep_prob)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x)


class Bottleneck(nn.Module):
    """A few units for all of a sequence."""

    def __init__(self, size: int, units: int, rate: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, units), nn.Linear(units, size)
        self.drop = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.relu(self.down(x.mean(1)))
        return self.up(self.drop(summary)).unsqueeze(1).expand_as(x)


class OneLayer(nn.Module):
    """A recurrence of one layer, with a rate for what is between layers."""

    def __init__(self, size: int, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.rnn = kind(size, size, batch_first=True)
        self.rnn.dropout = 0.2  # the constructor would warn

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class ToldNot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.alpha_dropout(x, LOW)


class OneKnob(nn.Module):
    """The same rate for attention and before a head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mix, self.up, self.rate = nn.Linear(size, 3 * size), nn.Linear(size, size), 0.4
        self.drop = nn.Dropout(self.rate)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mix(x).chunk(3, dim=-1)
        weights = self.drop((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1))
        return self.drop(torch.relu(self.up(weights @ v)))


# ---- scaling


class Unscaled(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.how == "uniform":
            return x * (torch.rand_like(x) >= 0.3)
        if self.how == "filled":
            return x.masked_fill(torch.rand_like(x) < 0.3, 0.0)
        return x * torch.bernoulli(torch.full_like(x, 0.7))


class ScaledTwice(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.how == "mask":
            mask = torch.bernoulli(torch.full_like(x, 0.7)) / 0.7
            return x * mask / 0.7
        return F.dropout(x, 0.15) / (1 - 0.15)


class WrongFraction(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.dropout = how, 0.2

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.how == "turned":
            return x * (torch.rand_like(x) < self.dropout) / self.dropout
        return x * (torch.randn_like(x) >= self.dropout) / (1 - self.dropout)


# ---- combination


class Dropped(nn.Module):
    """A softmax whose result is dropped."""

    def __init__(self, *, log: bool = False) -> None:
        super().__init__()
        self.squash = nn.LogSoftmax(-1) if log else nn.Softmax(-1)
        self.drop = nn.Dropout(LOW)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.squash(x))


class Smoothed(nn.Module):
    """A loss that smooths labels, and hands them to another that does so too."""

    def __init__(self) -> None:
        super().__init__()
        self.smoothing, self.inner = 0.1, nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        soft = F.one_hot(labels, logits.shape[1]) * (1 - self.smoothing)
        return self.inner(logits, soft + self.smoothing / logits.shape[1])
