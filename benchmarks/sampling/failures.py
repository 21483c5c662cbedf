"""Two failures that nobody is told of: a model that predicting has spoilt, and batches that mix."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
from benchmarks.sampling.tools import Tool
from torch import Tensor, nn
from torch.nn import functional as F

DRAWS = 50


def spoilt(tools: Sequence[Tool]) -> Iterator[str]:
    """The error of a trained network, before and after it was sampled."""
    model, test, target = trained()
    rows = 4 * test[:8] + 6  # of another place, as one asks for uncertainty about
    before = error(model, test, target)
    yield f"### Error on test rows after {DRAWS} draws for 8 other rows\n"
    yield (
        "A network with batch norm and dropout, trained on 512 made-up rows; then it is asked how "
        "sure it is of 8 rows from elsewhere; then its squared error is measured once more.\n"
    )
    yield "| tool | before | after |"
    yield "|---|---|---|"
    for tool in tools:
        if tool.missing:
            continue
        own = copy.deepcopy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tool.sample(own, rows, DRAWS)
            except Exception as problem:  # a tool may fail as it likes: it is a row of the table
                said = str(problem).strip().splitlines()[0][:60]
                yield f"| {tool.name} | {before:.3f} | refused: {said} |"
                continue
        after = error(own.eval(), test, target)
        yield f"| {tool.name} | {before:.3f} | {_told(before, after)} |"


def _told(before: float, after: float) -> str:
    return f"{after:.3f}" if after == before else f"**{after:.3f}**"


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A network that has learnt something, and rows to try it on."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1)),
        *(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2)),
    )
    x = torch.randn(1024, 4)
    y = x[:, :2] * x[:, 1:3] + x[:, 2:].sin()
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(600):
        at = torch.arange(step * 64, step * 64 + 64) % 512
        adam.zero_grad()
        F.mse_loss(model(x[at]), y[at]).backward()
        adam.step()
    return model.eval(), x[512:], y[512:]


def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The mean squared error in evaluation mode."""
    with torch.no_grad():
        return F.mse_loss(model(x), y).item()
