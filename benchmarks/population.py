"""32 networks trained as one population against 32 plain PyTorch loops, one after another.

Both train the same networks (input 16 numbers in 8 pieces each, hidden layers of one width, SiLU,
dropout 0.2 after each activation, AdamW) on the same rows with the same batch size. A repeat times
some steps of the population and as many of one plain loop, in turn; the figure is the median over
repeats of (plain time x members) / population time, with its range.

    python benchmarks/population.py [--repeats 7] [--threads 1 2] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dropkit.apps.devices import held_memory
from dropkit.kernel import Stream
from dropkit.records import Cocktail
from dropkit.training.encoding import Encoded, Layout
from dropkit.training.network import Bins, Shape, encode
from dropkit.training.population import Material, Member, Pace, Population

MEMBERS, ROWS, NUMBERS, PIECES, LAYERS = 32, 2048, 16, 8, 2
COCKTAIL = Cocktail(hidden_dropout=0.2, weight_decay=0.1, learning_rate=1e-3)
SETTINGS = ((64, 32, 8.0), (256, 128, 1.5))
"""Hidden width, batch, and the ratio that is asked for."""


def material(hidden: int) -> Material:
    """Random rows with a target that can be learned."""
    numbers = Stream(0).normal((ROWS, NUMBERS))
    truth = numbers[:, 0] * numbers[:, 1] + numbers[:, 2].sin()
    starts = torch.linspace(-2, 1.5, PIECES).repeat(NUMBERS)
    slope = torch.block_diag(*[torch.full((1, PIECES), 2.0) for _ in range(NUMBERS)])
    return Material(
        rows=Encoded(numbers, torch.zeros(ROWS, 0), torch.zeros(ROWS, 0, dtype=torch.int64)),
        truth=truth,
        layout=Layout(tuple(range(NUMBERS)), (), (), ()),
        bins=Bins(slope, -2.0 * starts),
        shape=Shape(NUMBERS, NUMBERS * PIECES, 0, (), (hidden,) * LAYERS, 1),
        prior=torch.zeros(1),
    )


def population(hidden: int, batch: int) -> Callable[[], None]:
    """One step of all members."""
    pace = Pace(epochs=1000, batch=batch, evaluations=1, patience=1.0)
    members = [Member(COCKTAIL, 0, key) for key in range(MEMBERS)]
    folds = [torch.arange(0, ROWS, 8)]
    trained = Population(material(hidden), folds, members, pace, key=0)

    def step() -> None:
        trained.advance()

    return step


def plain(hidden: int, batch: int) -> Callable[[], None]:
    """One step of one network, as most people write it; its inputs are encoded beforehand."""
    stuff = material(hidden)
    inputs = torch.cat([stuff.rows.numbers, encode(stuff.rows.numbers, stuff.bins)], -1)
    layers: list[nn.Module] = []
    for fan_in in (inputs.shape[1], *(hidden,) * (LAYERS - 1)):
        layers += [nn.Linear(fan_in, hidden), nn.SiLU(), nn.Dropout(COCKTAIL.hidden_dropout)]
    model = nn.Sequential(*layers, nn.Linear(hidden, 1))
    optimizer = torch.optim.AdamW(model.parameters(), COCKTAIL.learning_rate, (0.9, 0.95))
    loss_of, order, place = nn.MSELoss(), torch.randperm(ROWS), 0

    def step() -> None:
        nonlocal place
        rows = order[place : place + batch]
        place = (place + batch) % ROWS
        loss = loss_of(model(inputs[rows])[:, 0], stuff.truth[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    """Time of one step, averaged over some."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def ratios(hidden: int, batch: int, repeats: int) -> list[float]:
    """(plain x members) / population, one figure per repeat."""
    one, all_ = plain(hidden, batch), population(hidden, batch)
    seconds(one, 20), seconds(all_, 5)
    return [MEMBERS * seconds(one, 100) / seconds(all_, 25) for _ in range(repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    lines = [
        "| hidden | batch | threads | asked | median | range |",
        "|---|---|---|---|---|---|",
    ]
    for threads in options.threads:
        torch.set_num_threads(threads)
        for hidden, batch, asked in SETTINGS:
            with held_memory():  # as for the command
                found = ratios(hidden, batch, options.repeats)
            middle, low, high = statistics.median(found), min(found), max(found)
            lines.append(
                f"| {hidden} | {batch} | {threads} | {asked}x | {middle:.1f}x "
                f"| {low:.1f}x to {high:.1f}x |"
            )
    lines += [
        "",
        f"torch {torch.__version__}, {platform.machine()}, Python "
        f"{platform.python_version()}, {options.repeats} repeats, interleaved.",
    ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
