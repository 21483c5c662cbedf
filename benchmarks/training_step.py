"""A training step with dropout by dropkit, by torch, and with none: what dropout costs a model.

    python benchmarks/training_step.py [--compile]

Steps of all variants take turns in one process; a cell is the median of the ratios of neighbours to
the step with p = 0, and its quartiles. benchmarks/kernel.py puts the table on its page.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from dropkit import accelerate

Step = Callable[[], None]


def bert(p: float) -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """Four layers of BERT, 16 x 128 tokens, dropout everywhere that BERT has it."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        hidden_dropout_prob=p, attention_probs_dropout_prob=p, attn_implementation="sdpa",
    )  # fmt: skip
    tokens = torch.randint(config.vocab_size, (16, 128))
    labels = torch.randint(2, (16,))
    model = BertForSequenceClassification(config)
    return model, lambda run: run(input_ids=tokens, labels=labels).loss


def mlp(p: float) -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    """Three hidden layers of 1024, a batch of 256, dropout 0.5 after each."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(p)]
    model = nn.Sequential(*layers, nn.Linear(1024, 10))
    x, y = torch.randn(256, 1024), torch.randint(10, (256,))
    return model, lambda run: nn.functional.cross_entropy(run(x), y)


MODELS = {"bert": (bert, 0.1), "mlp": (mlp, 0.5)}


def variants(name: str, optimizer: str, compiled: bool) -> dict[str, Step]:
    build, p = MODELS[name]
    steps: dict[str, Step] = {}
    for label, rate in (("p = 0", 0.0), ("dropkit", p), ("torch", p)):
        torch.manual_seed(0)
        model, loss = build(rate)
        model.train()
        if label == "dropkit":
            accelerate(model)
        steps[label] = step(model, loss, optimizer)
        if compiled:
            steps[f"{label}, compiled"] = step(torch.compile(model), loss, optimizer)
    return steps


def step(model: nn.Module, loss: Callable[[nn.Module], torch.Tensor], optimizer: str) -> Step:
    if optimizer == "sgd":
        update: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    else:
        update = torch.optim.AdamW(model.parameters(), 1e-4)

    def run() -> None:
        update.zero_grad()
        loss(model).backward()
        update.step()

    return run


def measured(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; the order turns, so that none is always the first."""
    for run in steps.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {label: [] for label in steps}
    labels = list(steps)
    gc.disable()
    for turn in range(rounds):
        for label in labels[turn % len(labels) :] + labels[: turn % len(labels)]:
            start = time.perf_counter()
            steps[label]()
            times[label].append(time.perf_counter() - start)
        gc.collect()
    gc.enable()
    return times


def table(
    models: Sequence[str] = tuple(MODELS),
    threads: Sequence[int] = (1, 2),
    optimizer: str = "sgd",
    rounds: int = 31,
    compiled: bool = False,
) -> Iterator[str]:
    yield "### A training step / the same with p = 0\n"
    yield "| model | threads | step | ms | / p = 0 |"
    yield "|---|---|---|---|---|"
    for name in models:
        for count in threads:
            torch.set_num_threads(count)
            times = measured(variants(name, optimizer, compiled), rounds)
            for label, taken in times.items():
                base = times["p = 0, compiled" if label.endswith("compiled") else "p = 0"]
                ratios = [mine / other for mine, other in zip(taken, base, strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                yield (
                    f"| {name} | {count} | {label} | {statistics.median(taken) * 1e3:.1f} | "
                    f"{middle:.3f} ({low:.3f} to {high:.3f}) |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    for line in table(
        options.models, options.threads, options.optimizer, options.rounds, options.compile
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
