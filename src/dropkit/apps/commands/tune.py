"""`dropkit tune`: search for the settings that an objective likes best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropkit.apps.clock import seconds
from dropkit.apps.commands.exits import DONE, INTERRUPTED
from dropkit.apps.interrupts import Stop, interrupts
from dropkit.errors import SettingError

if TYPE_CHECKING:
    from dropkit.apps.tuning.results import Search


@click.command(short_help="Search for the settings that an objective likes best.")
@click.argument("objective", metavar="MODULE:OBJECTIVE")
@click.option(
    "--space",
    metavar="FILE.toml|MODULE:SPACE",
    help="What may be set.  [default: SPACE beside the objective]",
)
@click.option("--trials", type=int, metavar="N", help="Settings to try, in the whole study.")
@click.option("--time", "time_", metavar="DURATION", help="How long trials may begin: 90s, 10m.")
@click.option("--maximize", is_flag=True, help="More is better.")
@click.option("--workers", type=int, metavar="N", help="Processes; with Ray, tasks.")
@click.option("--timeout", metavar="DURATION", help="Kill a trial that takes longer.")
@click.option(
    "--storage",
    metavar="FILE|URL",
    help="Where the study is kept, such as postgresql://user@host/name; processes that name the "
    "same one share it.  [default: DIR/study.jsonl]",
)
@click.option("--study", default="search", show_default=True, help="Its name in the storage.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who runs the workers.",
)
@click.option("--address", metavar="HOST:PORT", help="The head of the Ray cluster, or auto.")
@click.option(
    "--out",
    metavar="DIR",
    default="dropkit-search",
    show_default=True,
    help="Folder for the study, the weights and the report.",
)
@click.option("--resume", is_flag=True, help="Continue or join a study that is there.")
@click.option(
    "--keep", default=3, show_default=True, metavar="N", help="Best trials whose weights are kept."
)
@click.option(
    "--ablate",
    default=0,
    metavar="N",
    help="At the end, try the best setting again and without each knob, N times each.",
)
@click.option("--no-stopping", is_flag=True, help="Let every trial come to its end.")
@click.option("--key", default=0, show_default=True, help="Names the random draws.")
@click.option("--quiet", is_flag=True, help="Print nothing unless something is wrong.")
def tune(objective: str, time_: str | None, quiet: bool, **options: Any) -> int:
    """Search for the settings that an objective likes best.

    OBJECTIVE is a function of a trial that gives a score, in a module or a file:

    \b
        SPACE = {"lr": (1e-5, 1e-1, "log"), "hidden": (0.0, 0.6)}
        def objective(trial):
            model = build(dropout=trial["hidden"])
            return train(model, lr=trial["lr"], seed=trial.seed)

    Ctrl-C lets running trials end, and stops; twice, at once. Continue with --resume.
    """
    if options["trials"] is None and time_ is None:
        raise SettingError("expected --trials, --time, or both; got neither")
    with interrupts() as stop:
        found = _search(objective, time_, quiet, stop, options)
    report = _report(found)
    if not quiet:
        _conclude(found, objective, options)
        click.echo(f"Report: {report}" if isinstance(report, Path) else report, err=True)
    return INTERRUPTED if found.ended == "stopped" else DONE


def _search(
    objective: str, time_: str | None, quiet: bool, stop: Stop, options: dict[str, Any]
) -> Search:
    from dropkit.apps.tuning.finding import space_at
    from dropkit.apps.tuning.pruning import Patience
    from dropkit.apps.tuning.searching import search
    from dropkit.apps.tuning.telling import teller

    maximize, calm = options.pop("maximize"), options.pop("no_stopping")
    timeout = options.pop("timeout")
    space = space_at(options.pop("space"), objective)
    stop.gentle = True
    tell = teller(quiet=quiet)
    try:
        return search(
            objective,
            space=space,
            seconds=None if time_ is None else seconds(time_),
            timeout=None if timeout is None else seconds(timeout),
            direction="maximize" if maximize else "minimize",
            stopping=None if calm else Patience(),
            watch=tell,
            stop=lambda: stop.asked,
            **options,
        )
    finally:
        tell.close()


def _report(found: Search) -> Path | str:
    """Write the page; where it stands, or why there is none."""
    from dropkit.apps.saving import write_file

    try:
        from dropkit.apps.tuning.report import render

        page = render(found)
    except ModuleNotFoundError as error:  # the search is done: this must not undo it
        return f'No report: that needs {error.name}; try: pip install "dropkit[tune]"'
    path = Path(found.out) / "report.html"
    write_file(path, page.encode())
    return path


def _conclude(found: Search, objective: str, options: dict[str, Any]) -> None:
    import shlex
    import shutil
    import textwrap

    from dropkit.apps.tuning.summary import sentences

    width = min(88, shutil.get_terminal_size().columns)
    layout: Any = {"initial_indent": "  ", "subsequent_indent": "  ", "break_on_hyphens": False}
    click.echo(err=True)
    for sentence in sentences(found):
        click.echo(textwrap.fill(sentence, width, **layout, break_long_words=False), err=True)
    if found.ended:
        click.echo(err=True)
        place = shlex.quote(options["out"])
        click.echo(f"Continue with: dropkit tune {objective} --out {place} --resume ...", err=True)
