"""`dropkit lint`: source that is read and never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dropkit.apps.commands.delivering import (
    deliver,
    fails_on,
    form_of,
    in_color,
    in_format,
    is_colored,
    to_file,
    width,
)
from dropkit.apps.commands.exits import DONE, FOUND
from dropkit.apps.counting import count

if TYPE_CHECKING:
    from dropkit.apps.lint.session import Asked, Ran
    from dropkit.records import Severity

_FOR_MACHINES = ("sarif", "github", "junit")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--select", multiple=True, metavar="RULE", help="Only these: a name, a code, DK1.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Not these.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, as in .gitignore.")
@click.option("--fix", is_flag=True, help="Write what can be fixed safely.")
@click.option("--diff", is_flag=True, help="Show what --fix would write, and write nothing.")
@in_format
@to_file
@in_color
@fails_on("note")
@click.option("--allow-unseen", is_flag=True, help="End with 0 though a file could not be read.")
@click.option("--baseline", metavar="FILE", help="Findings that are known, and do not count.")
@click.option("--write-baseline", is_flag=True, help="Write the findings of now to --baseline.")
@click.option("--unused-allowances", is_flag=True, help="Note comments that allow nothing.")
@click.option("--config", metavar="FILE", help="Settings.  [default: the nearest pyproject.toml]")
@click.option("--isolated", is_flag=True, help="Read no settings.")
@click.option("--no-gitignore", is_flag=True, help="Look at what .gitignore leaves out, too.")
@click.option("--stdin-filename", default="", metavar="NAME", help="What - is called.")
@click.option(
    "--jobs",
    default=0,
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes.  [default: as many as pay]",
)
def lint(paths: tuple[str, ...], **options: Any) -> int:
    """Judge Python files and notebooks in each PATH without running them; - is standard input.

    Ends with 0 where nothing is found; with 1 where something is, or a file could not be read;
    with 2 where the command or its settings cannot be followed. A comment allows a finding on its
    line, or in the whole def or class on whose line it stands:

    \b
        x = F.dropout(x, 0.5)  # dropkit: allow=always-on-dropout
    """
    from dropkit.apps.lint.session import Asked, run

    shown = {name: options.pop(name) for name in ("form", "out", "color")}
    ends = {name: options.pop(name) for name in ("fail_on", "allow_unseen")}
    asked = Asked(paths or (".",), **options)
    ran = run(asked)
    if not asked.write_baseline:
        _report(ran, asked, fail_on=ends["fail_on"], **shown)
    for note in (*_changed(ran, asked), *ran.notes):
        click.echo(f"dropkit: note: {note}.", err=True)
    return _code(ran, asked, **ends)


def _report(
    ran: Ran, asked: Asked, form: str | None, out: str | None, color: str, fail_on: Severity | None
) -> None:
    """The report; on standard error where a patch or fixed source is the result."""
    from dropkit.apps.formats import render
    from dropkit.apps.lint.session import for_machines

    form = form_of(form, out)
    result = _result(ran, asked)
    text = render(
        for_machines(ran.report) if form in _FOR_MACHINES else ran.report,
        form,
        command="lint",
        width=width(),
        color=is_colored(color, out) and result is None,
        fail_on=fail_on,
    )
    if result is not None:
        click.echo(result, nl=False)
    if result is None or out is not None:
        deliver(text, out)
    else:
        click.echo(text, nl=False, err=True)


def _result(ran: Ran, asked: Asked) -> str | bytes | None:
    """What stands on standard output in place of the report."""
    if asked.diff:
        return "".join(outcome.patch for outcome in ran.outcomes)
    if asked.fix and "-" in asked.paths:
        return next((outcome.data for outcome in ran.outcomes if outcome.data), ran.source)
    return None


def _changed(ran: Ran, asked: Asked) -> list[str]:
    fixed = sum(len(outcome.fixed) for outcome in ran.outcomes)
    files = sum(bool(outcome.fixed) for outcome in ran.outcomes)
    did = "would fix" if asked.diff else "fixed"
    said = f"{did} {count(fixed, 'finding')} in {count(files, 'file')}"
    return [said] if fixed else []


def _code(ran: Ran, asked: Asked, fail_on: Severity | None, allow_unseen: bool) -> int:
    from dropkit.apps.formats.reading import fails

    if asked.write_baseline:
        return DONE
    would_change = asked.diff and any(outcome.patch for outcome in ran.outcomes)
    unseen = bool(ran.report.unseen) and not allow_unseen
    return FOUND if fails(ran.report, fail_on) or would_change or unseen else DONE
