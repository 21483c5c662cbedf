"""Reports as people and machines read them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from sarif_kit import validate

from dropkit.apps.formats import FORMATS, render
from dropkit.errors import SettingError
from dropkit.inspection.showing import printable
from dropkit.records import Report
from made_up_reports import CLEAN, EMPTY, MODEL, REPORTS, SOURCE, UNKNOWN, WICKED

EVERY = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
SCHEMA = Path(__file__).parent.parent / "docs" / "report.schema.json"


def steers(text: str) -> set[str]:
    """Marks that a terminal obeys, or that are there to be overlooked."""
    return {mark for mark in text if not mark.isprintable() and mark != "\n"}


# All formats


@pytest.mark.parametrize("form", FORMATS)
@EVERY
def test_a_format_steers_nothing_and_is_the_same_each_time(form: str, report: Report) -> None:
    text = render(report, form, root="/work")
    assert steers(text) == set()
    assert text == render(report, form, root="/work")
    assert text.endswith("\n")
    text.encode("utf-8")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SettingError, match=r"expected a format of text, json.*got 'yaml'"):
        render(EMPTY, "yaml")


def test_mutant_what_steers_is_seen() -> None:
    assert steers("a\x1b[31mb\u202e\x85\n") == {"\x1b", "\u202e", "\x85"}


def test_printable_is_one_line_of_limited_length() -> None:
    shown = printable("a\nb\t\x07" + "c" * 1000, 50)
    assert shown.startswith("a b \\x07ccc")
    assert shown.endswith("...")
    assert len(shown) == 50


# Text


def test_text_says_the_worst_first_then_what_was_not_judged() -> None:
    text = render(MODEL, "text", width=80)
    order = [
        "Net of net.py:Net",
        "h.[0-11].attn",
        "error   always-on-dropout DK101 x12",
        "two outputs differ",
        "pass training=self.training",
        "head.1",
        "warning of-a-later-version",
        "(the model itself)",
        "note    one-knob-for-unlike-roles",
        "Not applicable: 3 rules: no optimizer was given",
        "Not seen: pool",
        "Allowed: 1 finding (one-knob-for-unlike-roles)",
        "12 errors, 1 warning, 1 note; 3 rules judged 14 sites.",
        "dropkit explain always-on-dropout",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= 80


def test_text_of_source_goes_by_files_and_lines() -> None:
    text = render(SOURCE, "text", command="lint")
    assert "src/net.py\n  41:13   error   always-on-dropout DK101\n" in text
    assert "(dropkit lint --fix does)" in text
    assert "2 rules judged.\n" in text


def test_text_can_show_each_layer() -> None:
    text = render(MODEL, "text", each=True)
    assert "h.11.attn\n" in text
    assert "x12" not in text


def test_the_worst_place_comes_first() -> None:
    swapped = replace(MODEL, findings=(UNKNOWN, *MODEL.findings[:3]))
    text = render(swapped, "text")
    assert text.index("h.[0-2].attn") < text.index("head.1")


def test_text_is_coloured_only_when_asked() -> None:
    assert "\x1b[1;31merror" in render(MODEL, "text", color=True)
    assert "\x1b" not in render(MODEL, "text")


def test_nothing_found_is_said_and_differs_from_nothing_judged() -> None:
    assert "Nothing found: 1 rule judged 1 site.\n" in render(CLEAN, "text")
    assert "Nothing was judged" in render(EMPTY, "text")


# JSON


@EVERY
def test_json_keeps_to_its_schema(report: Report) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(render(report, "json")), schema)


def test_mutant_the_schema_refuses_another_field() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    content = json.loads(render(MODEL, "json"))
    content["findings"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_json_has_all_and_findings_name_their_sites() -> None:
    content = json.loads(render(MODEL, "json"))
    assert content["counts"] == {"error": 12, "warning": 1, "note": 1}
    assert content["worst"] == "error"
    assert [finding["site"] for finding in content["findings"]] == [*range(12), None, None]
    assert content["sites"][3]["path"] == "h.3.attn"
    assert content["findings"][0]["edit"]["of"] == "model"
    assert content["unseen"] == list(MODEL.unseen)


def test_json_adds_sites_that_the_map_lacks() -> None:
    content = json.loads(render(replace(MODEL, sites=()), "json"))
    assert content["findings"][11]["site"] == 11
    assert content["sites"][11]["path"] == "h.11.attn"


def test_json_names_the_site_of_a_finding_where_two_sites_look_alike() -> None:
    other = replace(MODEL.sites[0], path="elsewhere")
    found = replace(MODEL.findings[0], site=other)
    report = replace(MODEL, sites=(MODEL.sites[0],) * 2, findings=(found,))
    content = json.loads(render(report, "json"))
    assert content["sites"][content["findings"][0]["site"]]["path"] == "elsewhere"


def test_json_keeps_hostile_text_as_it_is() -> None:
    content = json.loads(render(WICKED, "json"))
    assert content["target"] == WICKED.target


# SARIF


@EVERY
def test_sarif_is_valid(report: Report) -> None:
    log = json.loads(render(report, "sarif", root="/work", artifact="net.py"))
    assert validate.validation_errors(log) == []


def test_mutant_the_schema_of_sarif_is_asked() -> None:
    log = json.loads(render(MODEL, "sarif"))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert validate.validation_errors(log)


def test_sarif_says_rule_place_module_and_fix() -> None:
    (run,) = json.loads(render(SOURCE, "sarif", root="/work"))["runs"]
    first, second = run["results"]
    rule = run["tool"]["driver"]["rules"][first["ruleIndex"]]
    assert (rule["id"], rule["name"]) == ("DK101", "always-on-dropout")
    assert "## How to fix" in rule["help"]["markdown"]
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "src/net.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 41, "startColumn": 13}
    (change,) = first["fixes"][0]["artifactChanges"]
    assert change["replacements"][0]["deletedRegion"] == {"charOffset": 120, "charLength": 0}
    (place,) = second["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "src/a%20b%25.py"
    (run,) = json.loads(render(MODEL, "sarif"))["runs"]
    names = run["results"][4]["locations"][0]["logicalLocations"]
    assert names == [{"fullyQualifiedName": "h.4.attn", "name": "attn", "kind": "member"}]
    assert run["results"][-1]["suppressions"]


def fingerprints(report: Report) -> list[str]:
    (run,) = json.loads(render(report, "sarif"))["runs"]
    return [mark for result in run["results"] for mark in result["partialFingerprints"].values()]


def test_fingerprints_differ_and_outlive_other_lines_and_numbers() -> None:
    marks = fingerprints(MODEL)
    assert len(set(marks)) == len(marks)
    first = SOURCE.findings[0]
    assert first.place is not None
    message = first.message.replace("0.5", "0.25")
    later = replace(first, place=replace(first.place, line=99), message=message)
    assert fingerprints(replace(SOURCE, findings=(later,)))[0] == fingerprints(SOURCE)[0]


# GitHub


def test_github_takes_each_finding_as_one_command() -> None:
    lines = render(SOURCE, "github", root="/work", command="lint").splitlines()
    assert lines[0].startswith(
        "::error file=src/net.py,line=41,col=13,title=DK101 always-on-dropout::F.dropout(x, 0.5)"
    )
    assert "%0A" in lines[0]
    assert lines[1].startswith("::warning file=src/a b%25.py,line=7,title=DK302 ")
    assert "::80 %25 are dropped" in lines[1]
    assert lines[2].startswith("::warning title=dropkit did not see this::src/broken.py")
    assert lines[3].startswith("dropkit: src: 1 error, 1 warning")


def test_no_text_becomes_a_command_of_its_own() -> None:
    command = re.compile(r"^::(error|warning|notice) [^:]*::|^dropkit: ")
    lines = render(WICKED, "github", root="/work").splitlines()
    assert len(lines) == 4
    assert all(command.match(line) for line in lines)


# JUnit


def test_junit_counts_what_it_holds() -> None:
    (suite,) = ElementTree.fromstring(render(MODEL, "junit"))
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "18",  # 14 findings, a rule without one, 3 that were not applicable
        "failures": "12",
        "skipped": "3",
        "errors": "0",
    }
    first = suite.find("testcase")
    assert first is not None
    assert first.get("name") == "always-on-dropout at h.0.attn"
    assert first.get("classname") == "dropkit.mode"


@pytest.mark.parametrize(("least", "failures"), [(None, 0), ("error", 12), ("note", 14)])
def test_junit_fails_what_the_command_fails(least: str | None, failures: int) -> None:
    (suite,) = ElementTree.fromstring(render(MODEL, "junit", fail_on=least))
    assert suite.get("failures") == str(failures)


@EVERY
def test_junit_is_xml(report: Report) -> None:
    ElementTree.fromstring(render(report, "junit"))


# HTML


class Tags(HTMLParser):
    """Counts what opens and what closes."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@EVERY
def test_html_is_well_formed_without_scripts(report: Report) -> None:
    page = render(report, "html")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"script", "img", "link", "iframe"}


def test_html_escapes_and_explains() -> None:
    assert "&lt;script&gt;alert" in render(WICKED, "html")
    page = render(MODEL, "html")
    for words in ("h.[0-11].attn", "12 times", "Why it matters", "Where it drops", "no optimizer"):
        assert words in page


def test_html_is_bounded() -> None:
    many = replace(
        MODEL,
        findings=tuple(replace(UNKNOWN, path=f"part{number}x") for number in range(2000)),
        sites=tuple(replace(MODEL.sites[0], path=f"part{number}x") for number in range(2000)),
    )
    page = render(many, "html")
    assert "And 1700 more" in page
    assert len(page) < 500_000
