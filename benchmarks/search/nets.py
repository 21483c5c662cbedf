"""What the searches are compared on: three tables, a network that drops, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit.planning.discovering import discover
from dropkit.records import Space


@dataclass(frozen=True)
class Table:
    """Rows to train on, to choose by, and to judge by; standardized by the first two."""

    x: Tensor
    y: Tensor
    valid_x: Tensor
    valid_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int


def table(data: Path, name: str, seed: int) -> Table:
    """Another split for each seed; of MNIST other training images."""
    if name == "mnist-1000":
        held = np.load(data / "mnist" / "mnist.npz")
        rows = np.arange(seed * 1000, seed * 1000 + 1000)
        x = torch.tensor(held["train_images"][rows].reshape(1000, -1), dtype=torch.float32) / 255
        y = torch.tensor(held["train_labels"][rows].astype(np.int64))
        test = torch.tensor(held["test_images"].reshape(-1, 784), dtype=torch.float32) / 255
        test_y = torch.tensor(held["test_labels"].astype(np.int64))
        mean, spread, classes = x.mean(), x.std(), 10
    else:
        folder = data / "uci" / name.removesuffix("-1000")
        values = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1)
        order = np.random.RandomState(seed).permutation(len(values))
        rows = int(0.8 * len(values))
        if name.endswith("-1000"):
            rows = min(1000, rows)
        held = torch.tensor(values[order], dtype=torch.float32)
        train, rest = held[:rows], held[rows:][:2000]
        centre, wide = train.mean(0), train.std(0) + 1e-9
        train, rest = (train - centre) / wide, (rest - centre) / wide
        x, y, test, test_y = train[:, :-1], train[:, -1:], rest[:, :-1], rest[:, -1:]
        mean, spread, classes = torch.tensor(0.0), torch.tensor(1.0), 0
    x, test = (x - mean) / spread, (test - mean) / spread
    cut = len(x) * 4 // 5
    return Table(x[:cut], y[:cut], x[cut:], y[cut:], test, test_y, classes)


def network(of: Table) -> nn.Module:
    """Two hidden layers, with the rates that the guide begins with."""
    wide = 256 if of.classes else 128
    return nn.Sequential(
        nn.Dropout(0.1),
        *(nn.Linear(of.x.shape[1], wide), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(wide, wide), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(wide, of.classes or 1),
    )


def space(of: Table) -> Space:
    """What dropkit makes of the network."""
    return discover(dropkit.rates(network(of), of.x[:2]), classes=bool(of.classes))


def loss(of: Table, out: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of classes, else the squared error."""
    if of.classes:
        return F.cross_entropy(out, y, label_smoothing=smoothing)
    return F.mse_loss(out, y)


@dataclass(frozen=True, order=True)
class Trained:
    """What the best epoch of a network gave."""

    score: float
    weights: dict[str, Tensor] = field(compare=False)

    def test(self, of: Table) -> float:
        """Its loss on the test rows."""
        model = network(of).eval()
        model.load_state_dict(self.weights)
        with torch.no_grad():
            return float(loss(of, model(of.test_x), of.test_y))


class Training:
    """One network, epoch by epoch."""

    def __init__(
        self,
        of: Table,
        settings: dict[str, Any],
        rates: dict[str, float],
        seed: int,
        *,
        learns: bool = False,
    ) -> None:
        self.of = of
        torch.manual_seed(seed)
        self.model = network(of)
        self.plan = dropkit.rates(self.model, of.x[:2])
        self.plan.update(rates)
        self.plan.apply(prove=False)
        self.batch = settings.get("batch", 64)
        self.smoothing = settings.get("label_smoothing", 0.0)
        decay = settings.get("weight_decay", 0.0)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.get("lr", 1e-3), weight_decay=decay
        )
        self.learned = dropkit.LearnedRates(self.plan, **_regularized(of)) if learns else None
        if self.learned is not None:
            logits = {"params": [*self.learned.parameters()], "lr": 0.02, "weight_decay": 0.0}
            self.optimizer.add_param_group(logits)
        self.best = Trained(float("inf"), self.model.state_dict())

    def epoch(self) -> float:
        """Train once on every row; the loss on the validation rows."""
        of = self.of
        self.model.train()
        for part in torch.randperm(len(of.x)).split(self.batch):
            self.optimizer.zero_grad()
            found = loss(of, self.model(of.x[part]), of.y[part], self.smoothing)
            if self.learned is not None:
                found = found + self.learned.penalty()
            found.backward()
            self.optimizer.step()
        self.model.eval()
        with torch.no_grad():
            score = float(loss(of, self.model(of.valid_x), of.valid_y))
        if score < self.best.score:
            weights = {name: held.clone() for name, held in self.model.state_dict().items()}
            self.best = Trained(score, weights)
        return score

    def go_on_from(self, other: Training) -> None:
        """With the weights and the optimizer of another network."""
        self.model.load_state_dict(other.model.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())


def _regularized(of: Table) -> dict[str, Any]:
    """The weight of concrete dropout's penalty: by the paper; noise is .3 of the target's."""
    rows, precision = len(of.x), 1 / 0.3**2
    return {"rows": rows} if of.classes else {"rows": rows, "regularizer": 2 / (precision * rows)}
