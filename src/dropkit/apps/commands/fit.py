"""`dropkit fit`: from a table to a model folder with a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropkit.apps.clock import Clock, seconds
from dropkit.apps.commands.exits import INTERRUPTED
from dropkit.apps.commands.telling import told
from dropkit.apps.devices import sleepy_threads, threads, usual_threads
from dropkit.apps.request import Request
from dropkit.errors import SettingError

if TYPE_CHECKING:
    from dropkit.apps.checkpoint import Checkpoint
    from dropkit.records import Fit

_FREE_AT_RESUME = {"table", "target", "time", "quiet", "resume"}
"""What may be given beside --resume: it leaves the result alone, or is compared with the old."""


@click.command(short_help="Fit a network to a table, with a report.")
@click.argument("table", required=False)
@click.option("--target", metavar="COLUMN", help="The column to predict.")
@click.option("--out", metavar="DIR", default="", help="Model folder.  [default: TABLE.dropkit]")
@click.option("--test", metavar="FILE", help="Rows to judge by, in a file of their own.")
@click.option(
    "--test-size",
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Share of the rows to set aside and judge by; 0 for none.",
)
@click.option(
    "--task",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "classification", "regression"]),
    help="What the target is.",
)
@click.option(
    "--metric",
    default="auto",
    show_default=True,
    help="Score to choose by: log_loss, accuracy, balanced_accuracy, roc_auc; rmse, mae, r2.",
)
@click.option(
    "--budget",
    default="auto",
    show_default=True,
    help="Work to do: auto, quick, standard, thorough, or a number of member-epochs.",
)
@click.option("--time", metavar="DURATION", help="Cap on the whole run, such as 60s, 2m or 1h30m.")
@click.option("--seed", default=0, show_default=True, help="Names the random draws.")
@click.option(
    "--threads", type=int, metavar="N", help="Threads.  [default: all cores, or OMP_NUM_THREADS]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="NAME=KIND",
    help="Read a column as number, category, boolean or date, or leave it out as id or drop; "
    "may be repeated.",
)
@click.option("--drop-unlabelled", is_flag=True, help="Leave out rows without a target.")
@click.option("--id", metavar="COLUMN", help="Names the rows: kept in predictions, not used.")
@click.option("--resume", metavar="DIR", help="Continue the unfinished search in a model folder.")
@click.option("--quiet", is_flag=True, help="Print nothing unless something is wrong.")
@click.pass_context
def fit(context: click.Context, /, **options: Any) -> int:
    """Learn to predict a column of TABLE, and write a model folder with a report.

    TABLE is CSV or TSV (plain or gzipped), Parquet, Feather or JSON lines; - is standard input.
    """
    from dropkit.apps.interrupts import interrupts
    from dropkit.apps.progress import display

    given = {
        name
        for name in options
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    resume, quiet = options.pop("resume"), options.pop("quiet")
    cap = None if options["time"] is None else seconds(options["time"])
    resumed = _checkpoint(Path(resume), options, given, cap) if resume else None
    request = resumed.request if resumed else _request(options, cap)
    show = display(quiet=quiet)
    with interrupts() as stop, told(show.say):
        try:
            sleepy_threads()
            from dropkit.apps import fitting  # torch, pandas and scikit-learn come with it

            clock = Clock(context.obj.began, request.time)
            with threads(request.threads or usual_threads()):
                found = fitting.fit(fitting.Run(request, clock, show, stop, resumed))
        finally:
            show.close()
    if not quiet:
        _conclude(found, request)
    return INTERRUPTED if found.stopped == "interrupted" else 0


def _request(options: dict[str, Any], cap: float | None) -> Request:
    if options["table"] is None:
        raise click.UsageError("Missing argument 'TABLE'.")
    if options["target"] is None:
        raise click.UsageError("Missing option '--target': the column to predict.")
    types = tuple(_kind(pair) for pair in options["types"])
    return Request(**{**options, "time": cap, "types": types})


def _kind(pair: str) -> tuple[str, str]:
    name, equals, kind = pair.rpartition("=")
    if not equals or not name or not kind:
        raise SettingError(f"expected --type NAME=KIND, such as --type zip=category; got {pair!r}")
    return name, kind


def _checkpoint(
    out: Path, options: dict[str, Any], given: set[str], cap: float | None
) -> Checkpoint:
    """The checkpoint in `out`; a cap is this run's own, the old one is spent."""
    from dataclasses import replace

    from dropkit.apps.checkpoint import read

    fixed = sorted(given - _FREE_AT_RESUME)
    if fixed:
        names = ", ".join("--" + name.replace("_", "-").replace("types", "type") for name in fixed)
        raise SettingError(
            f"{names} cannot be changed by --resume: the search goes on as it was started"
        )
    found = read(out)
    if options["target"] not in (None, found.request.target):
        raise SettingError(
            f"expected --target {found.request.target}, as the search in {out} was started; "
            f"got {options['target']}. It may be left out with --resume."
        )
    table = options["table"] or found.request.table
    return replace(found, request=replace(found.request, table=table, time=cap, out=str(out)))


def _conclude(found: Fit, request: Request) -> None:
    import shlex
    import shutil
    import textwrap

    from dropkit.apps.checkpoint import exists
    from dropkit.apps.folder import REPORT
    from dropkit.apps.report import verdict

    width = min(88, shutil.get_terminal_size().columns)
    layout: Any = {"initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False}
    click.echo(err=True)
    for sentence in verdict(found):
        click.echo(textwrap.fill(sentence, width, **layout), err=True)
    click.echo(err=True)
    if exists(request.folder):
        place = shlex.quote(str(request.folder))
        click.echo(f"Continue with: dropkit fit --resume {place}", err=True)
    click.echo(f"Report: {(request.folder / REPORT).absolute()}", err=True)
