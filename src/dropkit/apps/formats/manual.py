"""The rules as one page of Markdown: docs/rules.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dropkit.rules import Rule, every
from dropkit.rules.base import SECTIONS

HEAD = """# Rules

`dropkit rules` lists them, and `dropkit explain RULE` shows one of these pages. A rule that judges
models is asked by `dropkit audit`, one that judges source by `dropkit lint`; names stand in an
allowance: `# dropkit: allow=always-on-dropout`. A rule that was not given what it needs answers
that it is not applicable, which is no pass.
"""


def page(rules: Sequence[Rule] = ()) -> str:
    """All rules, or some."""
    return "\n".join(_lines(rules or every())).rstrip() + "\n"


def _lines(rules: Sequence[Rule]) -> Iterator[str]:
    yield HEAD
    yield "| code | rule | severity | judges | needs |"
    yield "|---|---|---|---|---|"
    for rule in rules:
        needs = ", ".join(f"`{need}`" for need in rule.needs if need not in ("run", "modules"))
        name = f"[{rule.name}](#{rule.name})"
        yield f"| {rule.code} | {name} | {rule.severity} | {judged(rule)} | {needs} |"
    for rule in rules:
        yield from ("", f"## {rule.name}", "", f"{rule.code}, {rule.severity}. {rule.section('')}")
        for title in SECTIONS:
            yield from ("", f"### {title}", "", rule.section(title))
        yield from _examples(rule)


def judged(rule: Rule) -> str:
    """What it judges, in words."""
    checks = (("models", rule.on_model), ("source", rule.on_source))
    return " and ".join(name for name, check in checks if check)


def _examples(rule: Rule) -> Iterator[str]:
    """One that it finds, and one that looks alike and is right."""
    for title, sources in (
        ("It finds", rule.wrong or rule.wrong_source),
        ("And not", rule.right or rule.right_source),
    ):
        yield from ("", f"{title}:", "", "```py", sources[0].strip(), "```")
