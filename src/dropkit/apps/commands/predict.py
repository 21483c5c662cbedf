"""`dropkit predict`: what a model folder says of new rows."""

from __future__ import annotations

from pathlib import Path

import click

from dropkit.apps.commands.telling import told


@click.command(short_help="Predict the rows of a table.")
@click.argument("model_dir")
@click.argument("table")
@click.option(
    "--out",
    metavar="FILE",
    help="CSV, TSV, Parquet, Feather or JSON lines.  [default: CSV on standard output]",
)
def predict(model_dir: str, table: str, out: str | None) -> None:
    """Predict each row of TABLE with the model in MODEL_DIR: probabilities, or values.

    Rows come back in their order with their ids. In CSV and TSV, text that a spreadsheet would run
    as a formula gets an apostrophe in front.
    """
    from dropkit.apps.predicting import check_target, deliver, predictions

    target = None if out is None else Path(out)
    if target is not None:
        check_target(target, table)
    with told(lambda line: click.echo(line, err=True)):
        deliver(predictions(Path(model_dir), table), target)
