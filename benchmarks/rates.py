"""What a plan of rates costs: to be made, applied and proven, and at each step of training.

    python benchmarks/rates.py [--json FILE]

BERT-base with 2 x 16 tokens, and Llama-3-70B's shape without memory. Building the models is not
counted. The steps of training are of BERT-base with 4 x 64 tokens and SGD, with a plan that halves
every rate by attributes, with one that sets each rate at its call, and without one at the same
rates; interleaved, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dropkit
from dropkit.planning.plan import Plan

REPEATS, STEPS = 5, 15
WANTED = {"BERT-base": 2.0, "Llama-3-70B on meta": 5.0, "a step with a plan / without": 1.02}

Made = tuple[torch.nn.Module, torch.Tensor]


def bert(*size: int) -> Made:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig()).train(), torch.randint(0, 30_000, size)


def llama() -> Made:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
    more = {"num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape, **more, attention_dropout=0.1))
        return model, torch.zeros(1, 16, dtype=torch.long)


def planned(make: Callable[[], Made]) -> tuple[list[float], int]:
    """Seconds to read a plan, halve it, apply and prove it; and the sites."""
    model, x = make()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        plan = dropkit.rates(model, x)
        plan.scale(0.5)
        done = plan.apply()
        times.append(time.perf_counter() - began)
        assert done.proof is not None and done.proof.holds
        plan.restore()
    return times, len(plan)


def steps() -> dict[str, float]:
    """Seconds of a training step: median ratios against one without a plan."""
    model, x = bert(4, 64)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    plan = dropkit.rates(model, x)
    plan.scale(0.5)

    def step() -> float:
        began = time.perf_counter()
        model(x).last_hidden_state.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    ways: dict[str, Callable[[], object]] = {
        "without": lambda: halved(plan),
        "by attributes": lambda: plan.apply(prove=False, compiled=False),
        "at each call": lambda: plan.apply(prove=False, compiled=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(STEPS):
        for name, begin in ways.items():
            begin()
            times[name].append(step())
            plan.restore()
            doubled(plan)
    base = times["without"]
    return {
        name: statistics.median(a / b for a, b in zip(mine, base, strict=True))
        for name, mine in times.items()
        if name != "without"
    }


def halved(plan: Plan) -> None:
    """The rates of the plan, written by hand."""
    for lever in plan:
        assert lever.number is not None
        lever.number.write(lever.rate / 2)


def doubled(plan: Plan) -> None:
    """What the model had."""
    for lever in plan:
        assert lever.number is not None
        lever.number.write(lever.rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    planned(lambda: (torch.nn.Sequential(torch.nn.Dropout(0.5)), torch.ones(2, 2)))
    found: dict[str, Any] = {"torch": torch.__version__, "processor": platform.machine()}
    for name, make in (("BERT-base", lambda: bert(2, 16)), ("Llama-3-70B on meta", llama)):
        times, sites = planned(make)
        found[name] = statistics.median(times)
        print(f"{name}: {found[name]:.2f} s for {sites} sites (wanted {WANTED[name]:g} s)")
    found |= {f"step {name}": ratio for name, ratio in steps().items()}
    for name in ("by attributes", "at each call"):
        print(f"a training step, {name}: {found[f'step {name}']:.3f} times one without a plan")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
