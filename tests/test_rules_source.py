"""Every rule of source on its own examples: it fires on the wrong, alone, and not on the right."""

from __future__ import annotations

import ast

import pytest
from _pytest.mark import ParameterSet

from dropkit.inspection.source import SourceFile, parse
from dropkit.records import SourceEdit
from dropkit.rules import Rule, every
from dropkit.rules.choosing import chosen
from dropkit.rules.linting import judged, lint
from dropkit.rules.mending import mended

RULES = tuple(rule for rule in every() if rule.on_source is not None)


def examples(kind: str) -> list[ParameterSet]:
    return [
        pytest.param(rule, text, id=f"{rule.name}-{number}")
        for rule in RULES
        for number, text in enumerate(getattr(rule, kind))
    ]


def read(text: str) -> SourceFile:
    file = parse(text, "net.py")
    assert isinstance(file, SourceFile)
    return file


def test_the_rules_of_source_are_those_of_the_table() -> None:
    codes = [rule.code for rule in RULES]
    assert codes == [f"DK{n}" for n in (101, 102, 103, 107, 201, 208, 302, 304, 401)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_has_examples_of_both_kinds(rule: Rule) -> None:
    assert rule.wrong_source and rule.right_source


@pytest.mark.parametrize(("rule", "text"), examples("wrong_source"))
def test_the_wrong_is_found_by_its_own_rule_alone(rule: Rule, text: str) -> None:
    findings = judged(read(text), every()).findings
    assert {finding.rule for finding in findings} == {rule.name}
    for finding in findings:
        assert finding.code == rule.code and finding.message and finding.place
        assert finding.evidence in text.splitlines()[finding.place.line - 1]


@pytest.mark.parametrize(("rule", "text"), examples("right_source"))
def test_the_right_is_found_by_no_rule(rule: Rule, text: str) -> None:
    assert judged(read(text), every()).findings == ()


@pytest.mark.parametrize(("rule", "text"), examples("wrong_source"))
def test_a_fix_converges_parses_and_lints_clean(rule: Rule, text: str) -> None:
    file = read(text)
    before = judged(file, every()).findings
    once = mended(file, every())
    ast.parse(once.text)
    safe = [f for f in before if isinstance(f.edit, SourceEdit) and f.edit.safe]
    assert len(once.left.findings) == len(before) - len(safe)
    assert mended(read(once.text), every()).text == once.text


@pytest.mark.parametrize(("rule", "text"), examples("wrong_source"))
def test_the_line_ends_of_a_file_do_not_matter(rule: Rule, text: str) -> None:
    for end in ("\r\n", "\r"):
        other = text.replace("\n", end)
        said = [(f.rule, f.place) for f in judged(read(text), every()).findings]
        assert [(f.rule, f.place) for f in judged(read(other), every()).findings] == said
        fixed = mended(read(text), every()).text
        assert mended(read(other), every()).text == fixed.replace("\n", end)


def test_text_in_report_out() -> None:
    report = lint(RULES[0].wrong_source[0], "net.py")
    assert [finding.rule for finding in report.findings] == ["always-on-dropout"]
    assert set(report.judged) == {rule.name for rule in RULES}
    assert {name for name, _ in report.not_applicable} == {r.name for r in every()} - set(
        report.judged
    )
    assert lint("def broken(", "net.py").unseen == (
        "net.py:1: it does not parse: '(' was never closed",
    )


def test_rules_are_chosen_by_name_code_and_beginning() -> None:
    assert chosen(["DK10"], ["always-on-dropout", "DK103"])[0].code == "DK102"
    assert [rule.name for rule in chosen(["DK201"])] == ["dropout-before-batch-norm"]
    with pytest.raises(ValueError, match="always-on-dropout"):
        chosen(["always-on-dropuot"])
