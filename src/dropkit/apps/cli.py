"""The command `dropkit`: `fit` and `predict`.

Messages go to standard error, predictions to standard output. Exit codes: 0 done, 2 bad input
(one message, nothing half-written), 130 interrupted (after saving what there was), 1 a bug.

Nothing heavy is imported before a command has its arguments, so that `--help` is there at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click

    from dropkit import __version__
    from dropkit.apps.clock import Clock, process_clock, seconds
    from dropkit.apps.devices import sleepy_threads
    from dropkit.apps.request import Request
    from dropkit.errors import (
        DropkitWarning,
        FolderError,
        InputError,
        MissingExtraError,
        SettingError,
    )
except KeyboardInterrupt:  # most of the time before `main` goes by here
    sys.exit(130)

if TYPE_CHECKING:
    from dropkit.apps.checkpoint import Checkpoint
    from dropkit.records import Fit

BAD_INPUT, INTERRUPTED = 2, 130

_EXTRA = {"pandas", "pyarrow", "sklearn", "safetensors", "matplotlib", "jinja2", "rich"}
_FREE_AT_RESUME = {"table", "target", "time", "quiet", "resume"}
"""What may be given beside --resume: it leaves the result alone, or is compared with the old."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments` (default: those of the process) and exit with its code."""
    try:
        code = execute(arguments, process_clock())
    except KeyboardInterrupt:  # beside what `execute` guards: a second one, while it complains
        code = INTERRUPTED
    sys.exit(code)


def execute(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """Run the command and return its exit code; only bugs raise."""
    try:
        code = dropkit.main(
            args=None if arguments is None else list(arguments),
            prog_name="dropkit",
            standalone_mode=False,
            obj=clock or process_clock(),
        )
        return int(code or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (InputError, FolderError, MissingExtraError) as error:
        _complain(str(error))
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted.")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        _complain(f'this needs the package {missing}; try: pip install "dropkit[tables]"')
        return BAD_INPUT


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dropkit")
def dropkit() -> None:
    """Dropout done right: from a table to a well-regularized network and an honest report."""


@dropkit.command()
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
@click.option("--threads", type=int, metavar="N", help="Threads.  [default: all cores]")
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
    with interrupts() as stop, _told(show.say):
        try:
            sleepy_threads()
            from dropkit.apps import fitting  # torch, pandas and scikit-learn come with it

            _set_threads(request.threads)
            clock = Clock(context.obj.began, request.time)
            found = fitting.fit(fitting.Run(request, clock, show, stop, resumed))
        finally:
            show.close()
    if not quiet:
        _conclude(found, request)
    return INTERRUPTED if found.stopped == "interrupted" else 0


@dropkit.command()
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
    with _told(lambda line: click.echo(line, err=True)):
        deliver(predictions(Path(model_dir), table), target)


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


def _set_threads(threads: int | None) -> None:
    import torch

    from dropkit.apps.devices import cores

    torch.set_num_threads(threads or cores())


@contextmanager
def _told(say: Callable[[str], None]) -> Iterator[None]:
    """Show our warnings as notes; other libraries' are for programmers and stay with them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        say(f"dropkit: note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DropkitWarning)
        warnings.showwarning = show
        yield


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


def _complain(message: str) -> None:
    click.echo(f"dropkit: {message}", err=True)
