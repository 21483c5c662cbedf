"""What 50 draws cost, as a ratio to a loop with the same sites switched on.

In each of many rounds each contender draws once, in another order each time; the figure is the
median of the rounds' ratios. All give mean and deviation over the draws.
"""

from __future__ import annotations

import copy
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from benchmarks.sampling import models
from benchmarks.sampling.tools import KEYS, Tool, naive
from torch import Tensor, nn

import dropkit

DRAWS = 50
HEADING = f"## What {DRAWS} draws cost"
WORDS = (
    "The loop is the usual one, with all that drops switched on: passes, `torch.stack`, mean and "
    "deviation. A cell is the median of the ratios of interleaved rounds in one process, and its "
    "quartiles; one thread is timed by the processor's clock, two by the one on the wall, which "
    "other work on the machine lengthens. The spread is what the deviations are, as a part of the "
    "loop's: at another one a tool does other work, and its speed says nothing. The first call of "
    "dropkit finds the sites, and tries which way of running is fastest for inputs of this size; "
    "it is not in the ratios.\n"
)
Run = Callable[[], Tensor]
"""Gives the deviations over the draws."""


@dataclass(frozen=True)
class Case:
    """A model that is timed, and what is wanted of it."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    wanted: float
    rounds: int


def _tokens() -> Tensor:
    return torch.randint(0, 1000, (8, 64))


CASES = (
    Case(
        "ResNet-18, dropout at its head, 8 x 3 x 64 x 64", models.resnet18,
        lambda: torch.randn(8, 3, 64, 64), 30, 5,
    ),
    Case(
        "ResNet-18, dropout at its head, 8 x 3 x 32 x 32", models.resnet18,
        lambda: torch.randn(8, 3, 32, 32), 30, 9,
    ),
    Case("MLP, 3 x 512, p = 0.5, 256 rows", models.mlp, lambda: torch.randn(256, 512), 2.5, 15),
    Case("the same, 1 row", models.mlp, lambda: torch.randn(1, 512), 4, 31),
    Case("BERT, 4 layers of 256, 8 x 64 tokens", models.bert_of_four, _tokens, 1.5, 5),
)  # fmt: skip


def seconds(run: Callable[[], object]) -> float:
    """Of the processor, for one thread: then other work on the machine counts less."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one that does not count."""
    order = random.Random(0)
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in order.sample(list(runs), len(runs)):
            found[name].append(seconds(runs[name]))
    return found


def quartiles(ratios: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def ratios(found: Mapping[str, Sequence[float]], name: str) -> list[float]:
    """How many times faster than the loop, in each round."""
    return [slow / fast for slow, fast in zip(found["loop"], found[name], strict=True)]


def of_tool(tool: Tool, model: nn.Module, x: Tensor) -> Run:
    """Draws of a tool, and their moments."""
    own = copy.deepcopy(model)

    def run() -> Tensor:
        drawn = tool.sample(own, x, DRAWS)
        drawn.mean(0)
        return drawn.std(0)

    return run


def of_dropkit(model: nn.Module, x: Tensor, strategy: str = "auto") -> Run:
    """The same of dropkit's own."""

    def run() -> Tensor:
        draws = dropkit.sample(model, x, draws=DRAWS, key=next(KEYS), strategy=strategy)
        _ = draws.mean
        deviation: Tensor = draws.std
        return deviation

    return run


def contenders(case: Case, tools: Sequence[Tool]) -> dict[str, Run]:
    """Whatever draws from the model of a case at all; the loop first."""
    torch.manual_seed(0)
    model, x = case.build().eval(), case.inputs()
    runs = {"loop": of_tool(Tool("loop", naive), model, x), "dropkit": of_dropkit(model, x)}
    for strategy in ("loop", "prefix", "fold"):
        runs[f"dropkit, strategy={strategy!r}"] = of_dropkit(model, x, strategy)
    for tool in tools:
        run = of_tool(tool, model, x)
        try:
            run()
        except Exception:  # one that refuses has its row in the table of sites
            continue
        runs[tool.name] = run
    return runs


def first_call(case: Case, rounds: int) -> list[float]:
    """Seconds of the first call, for a model that was not seen before."""
    torch.manual_seed(0)
    model, x = case.build().eval(), case.inputs()
    return [seconds(of_dropkit(copy.deepcopy(model), x)) for _ in range(rounds)]


def table(tools: Sequence[Tool], quick: bool = False) -> Iterator[str]:
    """All cases, each with its contenders."""
    threads = torch.get_num_threads()
    tools = [tool for tool in tools if not tool.missing]
    of_dropkit(nn.Dropout(0.5), torch.ones(8))()  # what is loaded once is no model's cost
    for case in CASES[1:] if quick else CASES:
        rounds = 3 if quick else case.rounds
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = statistics.median(first_call(case, 3))
            runs = contenders(case, tools)
            found = interleaved(runs, rounds)
            spreads = {name: run().square().mean().sqrt().item() for name, run in runs.items()}
        yield f"### {case.name}, {threads} thread{'s' * (threads > 1)}\n"
        yield f"Wanted: {case.wanted:g} times the loop. First call: {1e3 * first:.0f} ms.\n"
        yield "| | ms | times faster than the loop | spread / the loop's |"
        yield "|---|---|---|---|"
        for name, times in found.items():
            yield (
                f"| {name} | {1e3 * statistics.median(times):.2f} | "
                f"{quartiles(ratios(found, name))} | {spreads[name] / spreads['loop']:.2f} |"
            )
        yield ""
