"""The discovered space against what is searched elsewhere, at the same time on the clock.

    python -m benchmarks.search.compare [--seconds N] [--seeds N] [--jobs N] [--write PAGE]

Three tables: 1,000 images of MNIST, and Concrete and Kin8nm of UCI (of the latter 1,000 rows). A
network of two hidden layers that drops its inputs and hidden units is trained with AdamW; a fifth
of its rows validates, and says which epoch and which trial are the best. Four ways of choosing:

- dropkit: `dropkit.search` over the space that is discovered from the model;
- random: draws from the same space;
- defaults: what Transformers and Lightning search by default, learning rate and batch size, with
  Optuna's sampler; the rates are the model's own;
- grid: the guide's, hidden rates of 0, 0.1, 0.2, 0.3 and 0.5, again and again with other seeds.

Each runs for the same time in a process of one thread, interleaved with the others. What is
compared is the best trial's model on the test rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
OUT = Path("build/search.jsonl")
EPOCHS = 40
TABLES = ("mnist-1000", "concrete", "kin8nm-1000")
WAYS = ("dropkit", "random", "defaults", "grid")
SECONDS = {"mnist-1000": 1.0, "concrete": 0.45, "kin8nm-1000": 0.45}
"""Of the time that is given, how much each table gets."""


@dataclass(frozen=True)
class Table:
    x: Any
    y: Any
    valid_x: Any
    valid_y: Any
    test_x: Any
    test_y: Any
    classes: int


def table(name: str, seed: int) -> Table:
    import torch

    if name == "mnist-1000":
        held = np.load(DATA / "mnist" / "mnist.npz")
        rows = np.arange(seed * 1000, seed * 1000 + 1000)
        x = torch.tensor(held["train_images"][rows].reshape(1000, -1), dtype=torch.float32) / 255
        y = torch.tensor(held["train_labels"][rows].astype(np.int64))
        test = torch.tensor(held["test_images"].reshape(-1, 784), dtype=torch.float32) / 255
        test_y = torch.tensor(held["test_labels"].astype(np.int64))
        mean, spread, classes = x.mean(), x.std(), 10
    else:
        folder = DATA / "uci" / name.removesuffix("-1000")
        values = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1)
        order = np.random.RandomState(seed).permutation(len(values))
        rows = (
            min(1000, int(0.8 * len(values))) if name.endswith("1000") else int(0.8 * len(values))
        )
        data = torch.tensor(values[order], dtype=torch.float32)
        train, rest = data[:rows], data[rows:][:2000]
        centre, wide = train.mean(0), train.std(0) + 1e-9
        train, rest = (train - centre) / wide, (rest - centre) / wide
        x, y, test, test_y = train[:, :-1], train[:, -1:], rest[:, :-1], rest[:, -1:]
        mean, spread, classes = torch.tensor(0.0), torch.tensor(1.0), 0
    x, test = (x - mean) / spread, (test - mean) / spread
    cut = len(x) * 4 // 5
    return Table(x[:cut], y[:cut], x[cut:], y[cut:], test, test_y, classes)


def network(of: Table) -> Any:
    from torch import nn

    wide = 256 if of.classes else 128
    return nn.Sequential(
        nn.Dropout(0.1),
        *(nn.Linear(of.x.shape[1], wide), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(wide, wide), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(wide, of.classes or 1),
    )


@dataclass(frozen=True, order=True)
class Trained:
    """What the best epoch of a network gave."""

    score: float
    weights: dict[str, Any] = field(compare=False)


def trained(
    of: Table, settings: dict[str, Any], rates: dict[str, float], seed: int, trial: Any = None
) -> Trained:
    """Train one network; of its epochs the best on the validation rows."""
    import torch

    import dropkit

    torch.manual_seed(seed)
    model = network(of)
    plan = dropkit.rates(model, of.x[:2])
    plan.update(rates)
    plan.apply(prove=False)
    decay, smoothing = settings.get("weight_decay", 0.0), settings.get("label_smoothing", 0.0)
    optimizer = torch.optim.AdamW(model.parameters(), settings.get("lr", 1e-3), weight_decay=decay)
    batch = settings.get("batch", 64)
    best = Trained(float("inf"), model.state_dict())
    for epoch in range(EPOCHS):
        model.train()
        for part in torch.randperm(len(of.x)).split(batch):
            optimizer.zero_grad()
            loss(of, model(of.x[part]), of.y[part], smoothing).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            score = float(loss(of, model(of.valid_x), of.valid_y))
        if score < best.score:
            best = Trained(score, {n: w.clone() for n, w in model.state_dict().items()})
        if not np.isfinite(score):
            break
        if trial is not None and epoch % 4 == 3:
            trial.report(best.score, epoch)
            if trial.should_stop():
                break
    return best


def loss(of: Table, out: Any, y: Any, smoothing: float = 0.0) -> Any:
    from torch.nn import functional as F

    if of.classes:
        return F.cross_entropy(out, y, label_smoothing=smoothing)
    return F.mse_loss(out, y)


def searched(name: str, way: str, seed: int, seconds: float) -> dict[str, Any]:
    """Search in one way: the best trial's score and test score, and how many were tried."""
    import torch

    of = table(name, seed)
    found: list[Trained] = []
    trained(of, {}, {}, 0)  # what loads late is loaded
    end = time.monotonic() + seconds
    ROUTES[way](of, seed, end, found)
    best, model = min(found), network(of).eval()
    model.load_state_dict(best.weights)
    with torch.no_grad():
        test = float(loss(of, model(of.test_x), of.test_y))
    row = {"table": name, "way": way, "seed": seed, "seconds": seconds, "trials": len(found)}
    return row | {"valid": best.score, "test": test}


def by_dropkit(of: Table, seed: int, end: float, found: list[Trained]) -> None:
    import dropkit

    def objective(trial: Any) -> float:
        found.append(trained(of, trial.params, trial.rates, trial.seed, trial))
        return found[-1].score

    with tempfile.TemporaryDirectory() as out:
        left = end - time.monotonic()
        dropkit.search(objective, space=space(of), seconds=left, out=out, key=seed)


def by_random(of: Table, seed: int, end: float, found: list[Trained]) -> None:
    draw, knobs = np.random.RandomState(seed), space(of)
    while time.monotonic() < end:
        values = {}
        for knob in knobs:
            low, high = (np.log(knob.low), np.log(knob.high)) if knob.log else (knob.low, knob.high)
            value = draw.uniform(low, high)
            off = knob.optional and draw.uniform() < 0.5
            values[knob.name] = 0.0 if off else float(np.exp(value) if knob.log else value)
        rates = {name: values.pop(name) for name in knobs.rates}
        found.append(trained(of, values, rates, int(draw.randint(2**31))))


def by_defaults(of: Table, seed: int, end: float, found: list[Trained]) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

    def objective(trial: Any) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        batch = trial.suggest_categorical("batch", [4, 8, 16, 32, 64])
        found.append(trained(of, {"lr": lr, "batch": batch}, {}, trial.number))
        return found[-1].score

    study.optimize(objective, timeout=end - time.monotonic())


def by_grid(of: Table, seed: int, end: float, found: list[Trained]) -> None:
    for again, rate in ((a, r) for a in count() for r in (0.0, 0.1, 0.2, 0.3, 0.5)):
        if time.monotonic() >= end:
            return
        found.append(trained(of, {}, {"hidden": rate}, seed * 1000 + again))


def space(of: Table) -> Any:
    import dropkit
    from dropkit.planning.discovering import discover

    return discover(dropkit.rates(network(of), of.x[:2]), classes=bool(of.classes))


ROUTES: dict[str, Callable[[Table, int, float, list[Trained]], None]] = {
    "dropkit": by_dropkit,
    "random": by_random,
    "defaults": by_defaults,
    "grid": by_grid,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, way, seed = args.one
        print(json.dumps(searched(name, way, int(seed), args.seconds * SECONDS[name])))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.out.open()] if args.out.exists() else []
    done = {(row["table"], row["way"], row["seed"]) for row in rows}
    todo = [one for one in product(range(args.seeds), TABLES, WAYS)]
    for at in range(0, len(todo), args.jobs):
        running = [
            _started(name, way, seed, args.seconds)
            for seed, name, way in todo[at : at + args.jobs]
            if (name, way, seed) not in done
        ]
        for process in running:
            said, _ = process.communicate()
            row = json.loads(said.splitlines()[-1])
            rows.append(row)
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, file=sys.stderr, flush=True)
    print(page(rows))
    if args.write:
        args.write.write_text(page(rows), "utf-8")


def _started(name: str, way: str, seed: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.search.compare", "--seconds", str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--one", name, way, str(seed)],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    """Test loss by table and way, and how much dropkit's is below the others'."""
    lines = [f"| table | {' | '.join(WAYS)} | trials |", f"|---|{'---|' * len(WAYS)}---|"]
    for name in dict.fromkeys(row["table"] for row in rows):
        mine = {way: _tests(rows, name, way) for way in WAYS}
        trials = (
            str(
                round(
                    np.mean([r["trials"] for r in rows if r["table"] == name and r["way"] == way])
                )
            )
            for way in WAYS
        )
        cells = [f"{np.mean(list(of.values())):.4f}" for of in mine.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(trials)} |")
    lines += [
        "",
        "| table | against | dropkit is below by (95 % interval over seeds) |",
        "|---|---|---|",
    ]
    for name in dict.fromkeys(row["table"] for row in rows):
        ours = _tests(rows, name, "dropkit")
        for way in WAYS[1:]:
            theirs = _tests(rows, name, way)
            gaps = np.array([theirs[seed] - ours[seed] for seed in ours if seed in theirs])
            half = (
                _T95[len(gaps)] * gaps.std(ddof=1) / len(gaps) ** 0.5 if len(gaps) > 1 else np.nan
            )
            lines.append(f"| {name} | {way} | {gaps.mean():+.4f} ± {half:.4f} |")
    return "\n".join(lines) + "\n"


_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def _tests(rows: list[dict[str, Any]], name: str, way: str) -> dict[int, float]:
    return {r["seed"]: r["test"] for r in rows if (r["table"], r["way"]) == (name, way)}


if __name__ == "__main__":
    main()
