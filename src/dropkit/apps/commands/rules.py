"""`dropkit rules`: the rules, each in two lines."""

from __future__ import annotations

import json

import click

from dropkit.apps.commands.delivering import deliver, is_colored, width


@click.command(short_help="List the rules of audit and lint.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="How to list them.",
)
def rules(form: str) -> None:
    """List the rules: their names, codes and severities, and what each looks for."""
    from dropkit.rules import Rule, every

    if form == "markdown":
        from dropkit.apps.formats.manual import page

        deliver(page(), None)
        return

    def judges(rule: Rule) -> list[str]:
        return [
            name for name, check in (("model", rule.on_model), ("source", rule.on_source)) if check
        ]

    if form == "json":
        content = [
            {
                "name": rule.name,
                "code": rule.code,
                "group": rule.group,
                "severity": rule.severity,
                "judges": judges(rule),
                "needs": list(rule.needs),
                "summary": rule.summary,
            }
            for rule in every()
        ]
        deliver(json.dumps(content, indent=1) + "\n", None)
        return
    from dropkit.apps.formats.text import Pen

    pen = Pen(width(), is_colored("auto", None))
    lines: list[str] = []
    group = ""
    for rule in every():
        if rule.group != group:
            group = rule.group
            lines += ["", pen.ink(group.upper(), "quiet")]
        severity = pen.ink(rule.severity.ljust(7), rule.severity)
        on = pen.ink(f"({' and '.join(judges(rule))})", "quiet")
        lines.append(f"{rule.code} {severity} {pen.ink(rule.name, 'bold')} {on}")
        lines += pen.filled(rule.summary, " " * 14)
    deliver("\n".join(lines[1:]) + "\n", None)
