"""The command `dropkit`: its commands stand in `commands`, each in a module of its own.

Messages go to standard error, results to standard output. Exit codes: 0 done, 1 findings, 2 bad
input (one message, nothing half-written), 130 interrupted (after saving what there was). A bug
shows its traceback.

Nothing heavy is imported before a command has its arguments, so that `--help` is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

try:
    import click

    from dropkit import __version__
    from dropkit.apps.clock import Clock, process_clock
    from dropkit.apps.commands.audit import audit
    from dropkit.apps.commands.exits import BAD_INPUT, INTERRUPTED
    from dropkit.apps.commands.explain import explain
    from dropkit.apps.commands.fit import fit
    from dropkit.apps.commands.lint import lint
    from dropkit.apps.commands.predict import predict
    from dropkit.apps.commands.rules import rules
    from dropkit.apps.commands.sites import sites
    from dropkit.apps.commands.tune import tune
    from dropkit.errors import FolderError, InputError, MissingExtraError, StudyError
except KeyboardInterrupt:  # most of the time before `main` goes by here
    sys.exit(130)

_EXTRAS = {
    **dict.fromkeys(("pandas", "pyarrow", "sklearn", "safetensors", "matplotlib"), "tables"),
    **dict.fromkeys(("jinja2", "rich"), "audit"),
    "optuna": "tune",
}
"""What a package that is missing comes with."""


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
    except (InputError, FolderError, MissingExtraError, StudyError) as error:
        _complain(str(error))
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted.")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        extra = _EXTRAS[missing]
        _complain(f'this needs the package {missing}; try: pip install "dropkit[{extra}]"')
        return BAD_INPUT


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dropkit")
def dropkit() -> None:
    """Dropout done right: masks, a map and a judge for any model; networks from tables."""


for command in (audit, explain, fit, lint, predict, rules, sites, tune):
    dropkit.add_command(command)


def _complain(message: str) -> None:
    """Print a message; what it quotes may be a stranger's, and must not steer a terminal."""
    safe = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    click.echo(f"dropkit: {safe}", err=True)
