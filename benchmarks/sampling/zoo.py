"""Whether `strategy="auto"` is ever slower than a loop: models of torch and of Transformers."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from benchmarks.sampling.models import switched_on
from benchmarks.sampling.speed import DRAWS, interleaved, quartiles, ratios, seconds
from benchmarks.sampling.tools import KEYS
from benchmarks.zoo.hosts import subjects
from benchmarks.zoo.subjects import declare_operators
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import dropkit
from dropkit.errors import DropkitError

ROUNDS = 9
BOUND = 0.95
CACHES = ("past_key_values", "mems", "cache_params")
HEADING = '## Any model, `strategy="auto"`'
WORDS = (
    f"{DRAWS} draws of small models that `make zoo` has, too, each with its own rates. The first "
    "call finds the sites and tries what is fastest; its cost is given in loops.\n"
)


def looped(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The deviations of what a model gives, in a loop with all that drops switched on."""
    switched_on(model)
    with torch.no_grad():
        passes = [_floats(model(*args, **kwargs)) for _ in range(DRAWS)]
    model.eval()
    drawn = [torch.stack(values) for values in zip(*passes, strict=True)]
    return [(one.mean(0), one.std(0))[1] for one in drawn]


def sampled(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The same by `dropkit.sample`."""
    draws = dropkit.sample(model, *args, draws=DRAWS, key=next(KEYS), **kwargs)
    drawn = _floats(draws.samples)
    return [(one.mean(0), one.std(0))[1] for one in drawn]


def _floats(outputs: Any) -> list[Tensor]:
    """What is predicted; what a model keeps for its next call is not."""
    if isinstance(outputs, Mapping):
        outputs = {name: outputs[name] for name in outputs if name not in CACHES}
    leaves = tree_flatten(outputs)[0]
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def row(name: str, build: Callable[[], Any], rounds: int) -> tuple[str, list[float]] | None:
    """A row of the table, and the ratios in it; None: nothing drops."""
    torch.manual_seed(0)
    model, args, kwargs = build()
    model.eval()
    loop, own = copy.deepcopy(model), copy.deepcopy(model)
    try:
        first = seconds(lambda: sampled(own, args, kwargs))
    except DropkitError as error:
        if not any(site.fired_in_train and site.rate for site in _sites(own, args, kwargs)):
            return None
        return f"| {name} | refused: {str(error)[:80]} | | |", [0.0]
    found = interleaved(
        {"loop": lambda: looped(loop, args, kwargs), "ours": lambda: sampled(own, args, kwargs)},
        rounds,
    )
    gained = ratios(found, "ours")
    return (
        f"| {name} | {1e3 * statistics.median(found['loop']):.0f} | {quartiles(gained)} | "
        f"{first / statistics.median(found['loop']):.1f} |",
        gained,
    )


def _sites(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return dropkit.sites(model, *args, **kwargs)


def table(quick: bool = False) -> Iterator[str]:
    """Small models of torch and Transformers, each with its own rates."""
    declare_operators()
    threads = torch.get_num_threads()
    yield f"#{HEADING}, {threads} thread{'s' * (threads > 1)}\n"
    yield "| model | loop, ms | times faster than the loop | first call / loop |"
    yield "|---|---|---|---|"
    sampled(nn.Dropout(0.5), (torch.ones(8),), {})  # what is loaded once is no model's cost
    medians, still = [], []
    for at, subject in enumerate(subjects()):
        if quick and at % 6:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = row(subject.name, subject.build, 3 if quick else ROUNDS)
        if made is None:
            still.append(subject.name)
            continue
        medians.append(statistics.median(made[1]))
        yield made[0]
    good = sum(median >= BOUND for median in medians)
    yield (
        f"\n{good} of {len(medians)} are at {BOUND} of the loop or above; the least is "
        f"{min(medians):.2f}. Nothing drops in {', '.join(still) or 'none'}.\n"
    )
