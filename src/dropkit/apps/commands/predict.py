"""`dropkit predict`: what a model folder says of new rows."""

from __future__ import annotations

from pathlib import Path

import click

from dropkit.apps.commands.telling import told
from dropkit.errors import SettingError


@click.command(short_help="Predict the rows of a table.")
@click.argument("model_dir")
@click.argument("table")
@click.option(
    "--out",
    metavar="FILE",
    help="CSV, TSV, Parquet, Feather or JSON lines.  [default: CSV on standard output]",
)
@click.option(
    "--draws",
    type=int,
    metavar="N",
    help="Sample N passes with dropout on, and add columns on how far to trust each row.",
)
@click.option("--seed", type=int, metavar="N", help="Names the draws.  [default: 0]")
@click.option(
    "--interval",
    type=float,
    metavar="SHARE",
    help="How often intervals, or sets of classes, shall hold the truth.  [default: 0.9]",
)
def predict(
    model_dir: str,
    table: str,
    out: str | None,
    draws: int | None,
    seed: int | None,
    interval: float | None,
) -> None:
    """Predict each row of TABLE with the model in MODEL_DIR: probabilities, or values.

    Rows come back in their order with their ids. In CSV and TSV, text that a spreadsheet would run
    as a formula gets an apostrophe in front.

    With --draws there are further columns. Values: mean, std, epistemic, low, high. Classes:
    entropy, mutual_information, variation_ratio, set.
    """
    _check_alone(draws, seed=seed, interval=interval)
    from dropkit.apps.predicting import Sampling, check_target, deliver, predictions

    target = None if out is None else Path(out)
    if target is not None:
        check_target(target, table)
    level = 0.9 if interval is None else interval
    sampling = None if draws is None else Sampling(draws, seed or 0, level)
    with told(lambda line: click.echo(line, err=True)):
        deliver(predictions(Path(model_dir), table, sampling), target)


def _check_alone(draws: int | None, **others: float | None) -> None:
    """Raise `SettingError` for options that mean something of draws, without draws."""
    given = [f"--{name}" for name, value in others.items() if value is not None]
    if draws is None and given:
        raise SettingError(
            f"expected --draws beside {given[0]}, which is about draws; got none. Try --draws 100"
        )
