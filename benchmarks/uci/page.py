"""The page of the results: docs/uci.md."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.uci.published import PUBLISHED, Score
from benchmarks.uci.tables import SOURCE

Record = dict[str, Any]
TEXT = Path(__file__).with_name("page.md")
MEASURES = {"rmse": ("RMSE, in the target's units", -1), "log_likelihood": ("Log-likelihood", 1)}
"""Their titles, and the direction in which they are better."""


def page(folder: Path) -> str:
    """What is known of each table, beside what was published."""
    records = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in PUBLISHED
        if (folder / f"{name}.json").exists()
    }
    complete = {name: record for name, record in records.items() if tested(record)}
    return TEXT.read_text("utf-8").format(
        verdict=verdict(complete),
        tables="\n\n".join("\n".join(table(complete, measure)) for measure in MEASURES),
        misses="\n".join(misses(complete)),
        choices="\n".join(choices(complete)),
        made=made(complete),
        source=SOURCE,
    )


def tested(record: Record) -> dict[int, tuple[float, float]]:
    """RMSE and log-likelihood of each split; empty until all are there."""
    scores = {
        split: (rmse, likelihood)
        for one in record["tests"].values()
        for split, rmse, likelihood in zip(
            one["splits"], one["rmse"][0], one["log_likelihood"][0], strict=True
        )
    }
    splits = {split for one in record["grid"].values() for split in one["splits"]}
    return dict(sorted(scores.items())) if scores.keys() == splits else {}


def of_splits(record: Record, measure: str) -> np.ndarray:
    """What each split was tested with."""
    return np.array(list(tested(record).values()))[:, list(MEASURES).index(measure)]


def score(record: Record, measure: str) -> Score:
    """Mean over the splits, and its standard error as its publishers compute it."""
    values = of_splits(record, measure)
    return Score(float(values.mean()), float(values.std() / len(values) ** 0.5))


def lead(ours: Score, published: Score, measure: str) -> float:
    """How much better ours is, in the published standard errors; below -1 it is missed."""
    return MEASURES[measure][1] * (ours.mean - published.mean) / published.error


def verdict(records: dict[str, Record]) -> str:
    leads = [
        lead(score(record, measure), getattr(PUBLISHED[name], measure), measure)
        for name, record in records.items()
        for measure in MEASURES
    ]
    missed, better = sum(one < -1 for one in leads), sum(one >= 0 for one in leads)
    within = len(leads) - missed - better
    absent = ", ".join(one.title for name, one in PUBLISHED.items() if name not in records)
    return (
        f"Of {len(leads)} numbers, two for each of {len(records)} tables, {better} are as good as "
        f"those or better, {within} trail by less than one of their standard errors, and "
        f"{missed or 'none'} by more.{' Not run to the end: ' + absent + '.' if absent else ''}"
    )


def table(records: dict[str, Record], measure: str) -> Iterator[str]:
    yield f"### {MEASURES[measure][0]}"
    yield ""
    yield "| table | paper, 2016 | published, 2018 | dropkit | lead | |"
    yield "|---|---|---|---|---|---|"
    for name, record in records.items():
        published, ours = PUBLISHED[name], score(record, measure)
        theirs: Score = getattr(published, measure)
        ahead = lead(ours, theirs, measure)
        word = "better" if ahead >= 0 else "within" if ahead >= -1 else "**missed**"
        paper = published.paper[list(MEASURES).index(measure)]
        yield (
            f"| {published.title} | {paper} | {shown(theirs)} | {shown(ours)} "
            f"| {ahead:+.1f} | {word} |"
        )


def misses(records: dict[str, Record]) -> Iterator[str]:
    """What trails, by the error of the difference, and without the splits that are far out."""
    for name, record in records.items():
        for measure, (title, _) in MEASURES.items():
            ours, theirs = score(record, measure), getattr(PUBLISHED[name], measure)
            if lead(ours, theirs, measure) >= -1:
                continue
            both = Score(theirs.mean, float(np.hypot(ours.error, theirs.error)))
            median = float(np.median(of_splits(record, measure)))
            yield (
                f"- {PUBLISHED[name].title}, {title.partition(',')[0]}: "
                f"{-lead(ours, both, measure):.1f} standard errors of the difference behind; the "
                f"median of our splits is {shown(Score(median, ours.error)).partition(' ')[0]}."
            )


def shown(one: Score) -> str:
    """The mean with as many digits as the error has in two places."""
    places = max(2, 1 - int(np.floor(np.log10(one.error)))) if one.error > 0 else 4
    return f"{one.mean:.{places}f} ± {one.error:.{places}f}"


def choices(records: dict[str, Record]) -> Iterator[str]:
    yield "| table | splits | rates chosen | precisions chosen | minutes |"
    yield "|---|---|---|---|---|"
    for name, record in records.items():
        rates: Counter[float] = Counter()
        taus: Counter[float] = Counter()
        for rate, one in record["tests"].items():
            rates[float(rate)] += len(one["splits"])
            taus.update(one["taus"][0])
        seconds = sum(
            one["seconds"] for stage in ("grid", "tests") for one in record[stage].values()
        )
        yield (
            f"| {PUBLISHED[name].title} | {len(tested(record))} | {counted(rates)} "
            f"| {counted(taus)} | {seconds / 60:.1f} |"
        )


def counted(of: Counter[float]) -> str:
    return ", ".join(f"{value:g} ({count})" for value, count in sorted(of.items()))


def made(records: dict[str, Record]) -> str:
    """What the numbers were made with; each of the values that occur."""
    pieces = [
        one for record in records.values() for stage in ("grid", "tests")
        for one in record[stage].values()
    ]  # fmt: skip
    facts = {
        name: ", ".join(sorted({one["made"][name] for one in pieces}))
        for name in ("cpu", "torch", "python", "dropkit", "commit", "date")
    }
    settings = sorted({json.dumps(record["settings"]) for record in records.values()})
    asked = "; ".join(
        ", ".join(f"{name} {value}" for name, value in json.loads(one).items()) for one in settings
    )
    return (
        f"{facts.pop('cpu')}; "
        + ", ".join(f"{name} {value}" for name, value in facts.items())
        + f"; {asked}."
    )
