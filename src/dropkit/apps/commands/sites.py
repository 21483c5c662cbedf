"""`dropkit sites`: every place where a model drops."""

from __future__ import annotations

from typing import Any

import click

from dropkit.apps.commands.delivering import deliver, in_color, is_colored, to_file, width
from dropkit.apps.commands.looking import (
    Asked,
    about_target,
    away_from_output,
    explained,
    resolved,
)
from dropkit.apps.commands.telling import told


@click.command(short_help="Map every place where a model drops.")
@about_target
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "tree", "json", "html"]),
    default="table",
    show_default=True,
    help="How to show the map; JSON has all that is known of each site.",
)
@to_file
@in_color
def sites(target: str, **options: Any) -> None:
    """Map every place where a model drops: what, at which rate, and when it acts.

    TARGET is as with dropkit audit.
    """
    from dropkit.apps.formats import sites as formats
    from dropkit.inspection.showing import fragment

    asked = Asked(target, options["shapes"], options["function"], options["device"])
    with told(lambda line: click.echo(line, err=True)), away_from_output():
        found = _map(asked)
    form, out = options["form"], options["out"]
    if form == "json":
        text = formats.to_json(found)
    elif form == "html":
        text = fragment(found.model, found.sites, found.unseen) + "\n"
    else:
        color = is_colored(options["color"], out)
        text = formats.text(found, tree=form == "tree", width=width(), color=color)
    deliver(text, out)


def _map(asked: Asked) -> Any:
    from dropkit.apps.formats.sites import Kept
    from dropkit.inspection.evidence import look

    found = resolved(asked)
    if found.frozen is not None:
        return Kept(found.name, found.frozen.sites, found.frozen.unseen)
    assert found.model is not None and found.inputs is not None
    with explained(found):
        seen = look(found.model, found.inputs.args, found.inputs.kwargs, device=asked.device)
    return Kept(found.name, seen.sites, (*found.notes, *seen.unseen))
