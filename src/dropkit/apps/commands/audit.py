"""`dropkit audit`: what is wrong with the dropout of a model."""

from __future__ import annotations

from dataclasses import replace
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
from dropkit.apps.commands.looking import (
    Asked,
    about_target,
    away_from_output,
    explained,
    resolved,
    trained,
)
from dropkit.apps.commands.telling import told

if TYPE_CHECKING:
    from dropkit.apps.targets import Target
    from dropkit.records import Report


@click.command(short_help="Judge every place where a model drops.")
@about_target
@click.option(
    "--purpose",
    type=click.Choice(["train", "inference"]),
    help="What the model is about to do in the mode that it comes in.",
)
@click.option("--rows", type=click.IntRange(min=1), metavar="N", help="Examples it is trained on.")
@click.option("--pretrained/--from-scratch", default=None, help="Whether it is fine-tuned.")
@click.option(
    "--training",
    metavar="MODULE:NAME",
    help="A function of the model that gives what trains it: a dictionary with optimizer and loss.",
)
@click.option("--select", multiple=True, metavar="RULE", help="Only this rule, or group (DK1).")
@click.option("--ignore", multiple=True, metavar="RULE", help="Not this rule, or group.")
@click.option(
    "--allow",
    multiple=True,
    metavar="RULE[=PATH]",
    help="Let a rule's findings pass, everywhere or within a module; they are still counted.",
)
@fails_on("error")
@in_format
@to_file
@click.option("--each", is_flag=True, help="Show each finding that repeats from layer to layer.")
@in_color
def audit(target: str, **options: Any) -> int:
    """Run a model in both modes, and judge every place where it drops.

    TARGET is package.module:factory or file.py:factory (a module of torch, or what gives one
    without arguments), the config.json of a Transformers model or its folder, an exported program
    (.pt2), an ONNX file, or a model folder of dropkit fit. No pickle is loaded, and no program is
    run; a factory is code of yours, and is.
    """
    from dropkit.apps.allowing import allowing
    from dropkit.apps.formats.reading import fails

    form = form_of(options["form"], options["out"])
    asked = Asked(target, options["shapes"], options["function"], options["device"])
    with told(lambda line: click.echo(line, err=True)), away_from_output():
        found = resolved(asked)
        report = allowing(_report(found, options), options["allow"])
    _write(report, found, form, options)
    return FOUND if fails(report, options["fail_on"]) else DONE


def _report(found: Target, options: dict[str, Any]) -> Report:
    from dropkit.rules.auditing import audit as judged

    if found.frozen is not None:
        from dropkit.apps.targets import frozen

        chosen = (options["select"], options["ignore"])
        return frozen.judged(found, options["purpose"], *chosen)
    assert found.model is not None and found.inputs is not None
    training = trained(found, options["training"])
    with explained(found):
        report = judged(
            found.model,
            *found.inputs.args,
            example_kwargs=found.inputs.kwargs,
            rows=options["rows"],
            pretrained=options["pretrained"],
            purpose=options["purpose"],
            device=options["device"],
            select=options["select"],
            ignore=options["ignore"],
            **training,
        )
    return replace(report, target=found.name, unseen=(*found.notes, *report.unseen))


def _write(report: Report, found: Target, form: str, options: dict[str, Any]) -> None:
    from dropkit.apps.formats import render
    from dropkit.apps.formats.reading import summary

    text = render(
        report,
        form,
        width=width(),
        color=is_colored(options["color"], options["out"]),
        each=options["each"],
        fail_on=options["fail_on"],
        artifact=found.artifact,
    )
    deliver(text, options["out"])
    if options["out"] not in (None, "-"):
        click.echo(f"dropkit: {summary(report, 'audit')} Written to {options['out']}.", err=True)
