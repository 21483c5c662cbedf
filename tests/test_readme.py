"""What the README and the docs tell people to type works."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from dropkit.apps import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
MANUALS = {
    "fit.md": ("fit", "predict"),
    "audit.md": ("audit", "sites", "rules", "explain"),
    "lint.md": ("lint",),
    "tuning.md": ("tune",),
}
"""Pages of docs, and the commands whose options each of them lists."""


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(page.read_text("utf-8")) if name == language]


def typed(word: str) -> list[tuple[Path, list[str]]]:
    """Every console line that begins with the word, as its arguments."""
    joined = (
        (page, block.replace("\\\n", " ")) for page in PAGES for block in blocks(page, "console")
    )
    lines = ((page, line.strip()) for page, block in joined for line in block.splitlines())
    return [
        (page, shlex.split(line, comments=True)[1:])
        for page, line in lines
        if line.startswith(word + " ")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}  # one for the page: a block may build on those above it
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), namespace)


def accept(arguments: list[str]) -> None:
    """Parse as the command would, and run nothing."""
    group = cli.dropkit
    with click.Context(group) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        assert command is not None
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("page", "arguments"), typed("dropkit"), ids=str)
def test_dropkit_lines_parse(page: Path, arguments: list[str]) -> None:
    accept(arguments)


def test_mutant_an_unknown_option_is_refused() -> None:
    with pytest.raises(click.UsageError, match="--targte"):
        accept(["fit", "t.csv", "--targte", "risk"])


def options(commands: tuple[str, ...]) -> set[str]:
    known = cli.dropkit.commands
    taken = [option for command in commands for option in known[command].params]
    names = {name for option in taken for name in (*option.opts, *option.secondary_opts)}
    return {name for name in names if name.startswith("--")}


@pytest.mark.parametrize("manual", MANUALS)
def test_a_manual_lists_every_option_and_no_other(manual: str) -> None:
    text = (ROOT / "docs" / manual).read_text("utf-8")
    text = re.sub(r"^```text\n.*?^```$", "", text, flags=re.M | re.S)  # what commands printed
    assert set(re.findall(r"--[a-z][a-z-]*", text)) == options(MANUALS[manual])


def test_every_command_has_a_manual() -> None:
    described = [command for commands in MANUALS.values() for command in commands]
    assert sorted(described) == sorted(cli.dropkit.commands)


def test_the_readme_shows_both_commands() -> None:
    assert {arguments[0] for _, arguments in typed("dropkit")} >= {"fit", "predict"}


def test_make_lines_name_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {arguments[0] for _, arguments in typed("make")}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
