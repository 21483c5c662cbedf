"""For test runners: a case for each finding, for each rule without one, and for each that could
not judge.
"""

from __future__ import annotations

from xml.etree import ElementTree as xml

from dropkit.apps.formats.look import Look
from dropkit.apps.formats.reading import (
    advice,
    reaches,
    relative,
    rule_of,
    summary,
)
from dropkit.inspection.showing import printable
from dropkit.records import Finding, Report


def write(report: Report, look: Look) -> str:
    """The report as XML, in ASCII."""
    name = printable(f"dropkit {look.command} {report.target}")
    suite = xml.Element("testsuite", name=name, errors="0")
    for finding in report.findings:
        _found(suite, finding, look)
    found = {finding.rule for finding in report.findings}
    for rule in report.judged:
        if rule not in found:
            _case(suite, rule, rule)
    for rule, why in report.not_applicable:
        xml.SubElement(_case(suite, rule, rule), "skipped", message=printable(why))
    said = "\n".join([summary(report, look.command), *map(printable, report.unseen)])
    xml.SubElement(suite, "system-out").text = said
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
        suite.set(attribute, str(len(list(suite.iter(tag)))))
    root = xml.Element("testsuites")
    root.append(suite)
    xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, "unicode") + "\n"


def _found(suite: xml.Element, finding: Finding, look: Look) -> None:
    place, path = finding.line, finding.module
    file = relative(place.file, look.root) if place else ""
    where = path or (f"{file}:{place.line}" if place else "the model")
    case = _case(suite, finding.rule, f"{finding.rule} at {where}")
    if place is not None:
        case.set("file", printable(file))
        case.set("line", str(max(1, place.line)))
    parts = (finding.message, finding.evidence, advice(finding))
    text = "\n".join(printable(part, 1000) for part in parts if part)
    if reaches(finding.severity, look.fail_on):
        kind = f"{finding.code} {finding.severity}"
        message = printable(finding.message, 1000)
        xml.SubElement(case, "failure", message=message, type=printable(kind)).text = text
    else:
        xml.SubElement(case, "system-out").text = text


def _case(suite: xml.Element, rule: str, name: str) -> xml.Element:
    known = rule_of(rule)
    group = f"dropkit.{known.group}" if known else "dropkit"
    return xml.SubElement(suite, "testcase", classname=group, name=printable(name))
