"""dropkit beside its peers on nine small tables: `make bench-tables`.

Every method runs with its default settings and the same number of threads, each fit in a process
of its own. One exception to "default": scikit-learn's MLP gets the usual preprocessing, and for
regression a standardised target, because without both it is hopeless on most of these tables.

    python benchmarks/tables.py                      # run what is not in the results yet
    python benchmarks/tables.py --redo dropkit       # run one method again
    python benchmarks/tables.py --table              # the summary, from the results alone
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from table_data import METHODS, SPLITS, TABLES, Job, Method, load

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]
Key = tuple[str, str, int]

GRACE_S = 120.0  # for imports and prediction, which the limit on a fit does not count
ERROR_CHARS = 2000  # the end of a traceback, enough to see the cause
BASE_OF_TIMES = "realmlp-td"  # the peer nearest in kind: a network with tuned defaults
NONE = "-"  # a cell of the summary without a result
COLUMNS = ["method", "dataset", "split", "log_loss", "rmse", "accuracy", "fit_s"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NOTES = """
- default settings, each fit in a process of its own; only fit and predict are timed
- sklearn-mlp: one-hot categories, median imputation, standardised numbers and regression target
- realmlp-td, tabm-d: refuse missing numbers, which became the median of the train rows
- realmlp-td: its default, smoothed labels and the epoch of best accuracy, costs it log-loss
- catboost: refuses missing categories, which became a level of their own
- dropkit-capped: its time budget is what realmlp-td took to fit on the same table and split
- the UCI tables are the five smallest of Gal & Ghahramani 2016, with the publisher's splits 0 to 4
- adult: split 0 is the publisher's, 1 to 4 are stratified with the same sizes; the others: 80/20
""".strip()


def fit_and_score(job: Job) -> Record:
    """Fit one method on one split, in this process; only `fit` and `predict` are timed."""
    method = METHODS[job.method]
    for module in method.imports:
        importlib.import_module(module)
    split = method.prepare(load(job.dataset, job.split, Path(job.data)))
    model = method.build(job)
    texts = list(split.X_train.select_dtypes("category"))
    named = {"cat_features": texts} if method.names_categories else {}
    start = time.perf_counter()
    model.fit(split.X_train, split.y_train, **named)
    fitted = time.perf_counter()
    predict = model.predict if job.regression else model.predict_proba
    predicted = np.asarray(predict(split.X_test))
    times = {"fit_s": fitted - start, "predict_s": time.perf_counter() - fitted}
    size = {"train_rows": len(split.y_train), "test_rows": len(split.y_test)}
    scores = split.score(predicted, getattr(model, "classes_", None))
    return {"status": "ok", **scores, **times, **size}


def run_apart(job: Job, limit_s: float) -> Record:
    """Fit in a fresh process, so that no method pays for, or dies of, another."""
    env = os.environ | {name: str(job.threads) for name in THREAD_VARIABLES}
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "errors", "w+") as errors:
        command = [sys.executable, __file__, "--one", json.dumps(vars(job)), folder]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": errors}
        try:
            done = subprocess.run(command, env=env, timeout=limit_s + GRACE_S, **pipes)
        except subprocess.TimeoutExpired:
            return {"status": "over the limit", "limit_s": limit_s}
        if done.returncode:
            errors.seek(0)
            return {"status": "error", "code": done.returncode, "error": shortened(errors.read())}
        result = json.loads((Path(folder) / "result.json").read_text())
    late = {"status": "over the limit", "limit_s": limit_s} if result["fit_s"] > limit_s else {}
    return result | late


def shortened(error: str) -> str:
    """The end of a traceback, without the folders of this machine."""
    return re.sub(r'File ".*/(.+)"', r'File "\1"', error)[-ERROR_CHARS:]


def version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The state of this repository: for dropkit under work the version alone says too little."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        return None


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def provenance(job: Job) -> Record:
    return {
        "library": METHODS[job.method].library,
        "version": version(METHODS[job.method].library),
        "threads": job.threads,
        "cap_s": job.cap_s,
        "torch": version("torch"),
        "python": platform.python_version(),
        "commit": commit(),
        "cpu": cpu_model(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def read_records(path: Path) -> dict[Key, Record]:
    """The latest record of each (method, dataset, split)."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.strip()]
    return {(r["method"], r["dataset"], r["split"]): r for r in records}


def run_all(args: argparse.Namespace) -> None:
    records = read_records(args.out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for dataset in args.datasets:
        for split in args.splits:
            for name in args.methods:  # innermost, so that a drift of the machine hits all alike
                if (name, dataset, split) not in records or name in args.redo:
                    capper = (METHODS[name].capped_by or "", dataset, split)
                    cap = records.get(capper, {}).get("fit_s")
                    job = Job(name, dataset, split, args.threads, str(args.data), cap)
                    run_one(job, records, args)


def run_one(job: Job, records: dict[Key, Record], args: argparse.Namespace) -> None:
    label = f"{job.dataset} {job.split} {job.method}"
    if why := hindrance(METHODS[job.method], job.cap_s):  # leaves no record: a rerun tries again
        print(f"{label}: {why}", flush=True)
        return
    result = run_apart(job, args.limit)
    key = {"method": job.method, "dataset": job.dataset, "split": job.split}
    record = {**key, **result, **provenance(job)}
    with args.out.open("a") as out:
        out.write(json.dumps(record) + "\n")
    records[job.method, job.dataset, job.split] = record
    print(f"{label}: {brief(result)}", flush=True)


def hindrance(method: Method, cap: float | None) -> str:
    for package in {name.partition(".")[0]: None for name in method.imports}:
        if not importlib.util.find_spec(package):
            return f"not run: {package} is not installed"
    needy = method.capped_by and cap is None
    return f"not run: needs a result of {method.capped_by} first" if needy else ""


def brief(result: Record) -> str:
    if result["status"] == "error":
        return failure(result)
    texts = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in result.items()}
    return ", ".join(f"{k} {v}" for k, v in texts.items())


def report(args: argparse.Namespace) -> None:
    asked = [(m, d, n) for m in args.methods for d in args.datasets for n in args.splits]
    records = read_records(args.out)
    text = summary({key: records[key] for key in asked if key in records}, asked)
    print(text)
    if args.markdown:
        args.markdown.write_text(text + "\n")


def summary(records: dict[Key, Record], asked: list[Key]) -> str:
    """Markdown tables from the records, and only from them."""
    methods = [m for m in METHODS if any(method == m for method, _, _ in records)]
    good = [r for r in records.values() if r["status"] == "ok"]
    parts = comparisons(pd.DataFrame(good).reindex(columns=COLUMNS), methods) if good else {}
    parts["Missing"] = missing(records, asked)
    parts["Provenance"] = origins(list(records.values()), methods) if records else ""
    return "\n\n".join(f"**{title}**\n\n{body}" for title, body in parts.items() if body)


def comparisons(good: pd.DataFrame, methods: list[str]) -> dict[str, str]:
    good["error"] = good["log_loss"].fillna(good["rmse"])
    error, fit_s, accuracy = (cells(good, v, methods) for v in ("error", "fit_s", "accuracy"))
    return {
        "Test error (log-loss or RMSE): mean ± sd (splits)": by_table(error, spread),
        "Mean rank by test error among the methods with a result (dataset x split cells), "
        "and median ratio of fit times": rank_table(error, fit_s),
        "Fit: median seconds": by_table(fit_s, median),
        "Accuracy: mean ± sd (splits)": by_table(accuracy.dropna(how="all"), spread),
        "Test error of dropkit minus that of scikit-learn, paired by split: mean ± standard error "
        "(splits). Below 0 dropkit is better; splits share rows, so the true standard error is "
        "larger": by_table(own_minus_sklearn(error), paired),
    }


def cells(good: pd.DataFrame, value: str, methods: list[str]) -> pd.DataFrame:
    """One row for each (dataset, split), one column for each method; NaN: there is no result."""
    wide = good.pivot(index=["dataset", "split"], columns="method", values=value)
    known = [d for d in TABLES if d in wide.index.levels[0]]
    return wide.reindex(columns=methods).reindex(known, level="dataset")


def give_or_take(deviation: float) -> str:
    """A deviation for a mean of four digits: plain where that is short, `?` for a single split."""
    if np.isnan(deviation):
        return "?"
    return f"{deviation:.0f}" if deviation >= 100 else f"{deviation:.2g}"


def spread(values: pd.Series) -> str:
    return f"{values.mean():.4g} ± {give_or_take(values.std())} ({values.count()})"


def median(values: pd.Series) -> str:
    return f"{values.median():.3g}"


def paired(differences: pd.Series) -> str:
    se = give_or_take(differences.sem())
    return f"{differences.mean():+.3g} ± {se} ({differences.count()})"


def mean_rank(ranks: pd.Series) -> str:
    return f"{ranks.mean():.2f} ({ranks.count()})"


def or_none(show: Callable[[pd.Series], str]) -> Callable[[pd.Series], str]:
    return lambda values: show(values) if values.count() else NONE


def by_table(grid: pd.DataFrame, show: Callable[[pd.Series], str]) -> str:
    if grid.empty:
        return ""
    return markdown(grid.groupby(level=0, sort=False).agg(or_none(show)))


def rank_table(error: pd.DataFrame, fit_s: pd.DataFrame) -> str:
    classified = np.array([TABLES[dataset][0] == "classification" for dataset, _ in error.index])
    kinds = {"all": error, "log-loss sets": error[classified], "RMSE sets": error[~classified]}
    kinds["where all ran"] = error.dropna()
    columns = {kind: part.rank(axis=1).agg(or_none(mean_rank)) for kind, part in kinds.items()}
    if BASE_OF_TIMES in fit_s:
        ratios = fit_s.div(fit_s[BASE_OF_TIMES], axis=0)
        columns[f"fit time / {BASE_OF_TIMES}"] = ratios.agg(or_none(median))
    return markdown(pd.DataFrame(columns).rename_axis("method"))


def own_minus_sklearn(error: pd.DataFrame) -> pd.DataFrame:
    own = [m for m in error if METHODS[m].library == "dropkit"]
    others = [m for m in error if METHODS[m].library == "scikit-learn"]
    return pd.DataFrame({f"{a} - {b}": error[a] - error[b] for a in own for b in others})


def markdown(frame: pd.DataFrame) -> str:
    lines = [[frame.index.name, *frame.columns], ["---"] * (1 + frame.shape[1])]
    lines += frame.reset_index().to_numpy().tolist()
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def missing(records: dict[Key, Record], asked: list[Key]) -> str:
    """What has no result, and why: not run, over the limit, or failed."""
    gone: dict[str, dict[str, list[str]]] = {}
    for method, dataset, split in asked:
        record = records.get((method, dataset, split))
        if why := failure(record) if record else "not run":
            places = gone.setdefault(f"{method}: {why}", {})
            places.setdefault(dataset, []).append(str(split))
    lists = {
        why: "; ".join(f"{d} {','.join(n)}" for d, n in at.items()) for why, at in gone.items()
    }
    return "\n".join(f"- {why} (table and splits): {places}" for why, places in lists.items())


def failure(record: Record) -> str:
    if record["status"] == "error":
        said = record["error"].strip().splitlines()
        return f"error: {said[-1] if said else 'exit code ' + str(record['code'])}"
    return "" if record["status"] == "ok" else f"{record['status']} of {record['limit_s']:g} s"


def origins(records: list[Record], methods: list[str]) -> str:
    def distinct(name: str, of: list[Record]) -> str:
        return ", ".join(sorted({str(r[name]) for r in of if r.get(name)})) or "unknown"

    times = sorted(r["time"] for r in records)
    facts = [f"{name} {distinct(name, records)}" for name in ("cpu", "threads", "torch", "python")]
    lines = [f"- {'; '.join(facts)}; {len(records)} fits, {times[0]} to {times[-1]}"]
    for method in methods:
        of = [r for r in records if r["method"] == method]
        state = f", commit {distinct('commit', of)}" if "dropkit" in method else ""
        lines.append(f"- {method}: {distinct('library', of)} {distinct('version', of)}{state}")
    return "\n".join([*lines, NOTES])


def several(known: list[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        if wrong := ", ".join(word for word in text.split(",") if word not in known):
            raise argparse.ArgumentTypeError(f"expected among {', '.join(known)}; got {wrong}")
        return text.split(",")

    return read


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    methods, datasets, splits = list(METHODS), list(TABLES), [str(n) for n in range(SPLITS)]
    data, out = HERE.parent / "../shared/data", HERE / "results/tables.jsonl"
    add = parser.add_argument
    add("--data", type=Path, default=data, help="folder of the tables")
    add("--out", type=Path, default=out, help="the results, one JSON object a line")
    add("--methods", type=several(methods), default=methods, help=",".join(methods))
    add("--datasets", type=several(datasets), default=datasets, help=",".join(datasets))
    add("--splits", type=several(splits), default=splits, help=",".join(splits))
    add("--redo", type=several(methods), default=[], help="methods to run again")
    add("--threads", type=int, default=1, help="for every method")
    add("--limit", type=float, default=1800.0, help="seconds that a fit may take")
    add("--table", action="store_true", help="print the summary of the results; run nothing")
    add("--markdown", type=Path, help="with --table: write the summary to this file too")
    args = parser.parse_args()
    args.data, args.splits = args.data.resolve(), [int(n) for n in args.splits]
    if not (args.table or args.data.is_dir()):
        parser.error(f"expected the folder of the tables at {args.data}; try --data FOLDER")
    return args


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        job, folder = Job(**json.loads(sys.argv[2])), Path(sys.argv[3])
        os.chdir(folder)  # some peers leave logs where they stand
        (folder / "result.json").write_text(json.dumps(fit_and_score(job)))
        return
    args = parse()
    if args.table:
        report(args)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # ends the running fit too
    run_all(args)


if __name__ == "__main__":
    main()
