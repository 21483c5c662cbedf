"""Models that drop in every way, for the map to find; none of them written for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Path(nn.Module):
    """Stochastic depth as Transformers writes it: floor(keep + uniform)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = 0.75 + torch.rand((len(x), *[1] * (x.dim() - 1)), device=x.device)
        return x.div(0.75) * mask.floor_()


class Everything(nn.Module):
    """One site of each kind, in an order that the test knows."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.3)
        self.path = Path()
        self.attention = nn.MultiheadAttention(8, 2, 0.1, batch_first=True)
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.2, batch_first=True)
        self.dropout = 0.4
        self.layerdrop = 0.15
        self.idle = nn.Dropout(0.6)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.up(x)))
        x = x + self.path(x)
        x = x + self.attention(x, x, x)[0]
        x = self.lstm(x)[0]
        if not self.training or torch.rand([]) >= self.layerdrop:
            x = x + torch.tanh(x)
        mask = (torch.rand_like(x) > 0.25).float() / 0.75 if self.training else 1.0
        x = x * mask
        x = F.dropout(x, self.dropout, self.training)
        query = x.unsqueeze(1)
        x = F.scaled_dot_product_attention(query, query, query, dropout_p=0.05).squeeze(1)
        return self.head(x.mean(1))


class Steps(nn.Module):
    """A recurrence that draws its mask anew at each step, or once."""

    def __init__(self, locked: bool) -> None:
        super().__init__()
        self.locked = locked
        self.cell = nn.GRUCell(4, 6)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        mask = self.drop(torch.ones_like(state))
        for step in x.unbind(1):
            state = self.cell(step, state)
            state = state * mask if self.locked else self.drop(state)
        return self.head(state)


class Shared(nn.Module):
    """One block, run many times in depth: no steps in time."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = x + self.block(x)
        return x


class Writes(nn.Module):
    """Changes all that it can reach."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(()))
        self.norm = nn.BatchNorm1d(4)
        self.calls = 0
        self.log: list[int] = []
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.log.append(self.calls)
        self.seen += 1  # type: ignore[operator]
        self.weight.data.mul_(0.5)
        self.extra = nn.Linear(4, 4)
        self.drop.p = 0.9
        x.mul_(2)
        if not self.training:
            raise RuntimeError("enough")
        return self.norm(self.drop(x * self.weight))
