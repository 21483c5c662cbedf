"""The page of rules is what the rules say."""

from __future__ import annotations

import re
from pathlib import Path

import dropkit.nn
from dropkit.apps.formats.manual import page
from dropkit.rules import every

RULES = Path(__file__).parent.parent / "docs" / "rules.md"


def test_the_page_of_rules_is_theirs() -> None:
    assert RULES.read_text("utf-8") == page(), "try: make pages"


def test_every_rule_has_a_page_in_it() -> None:
    written = page()
    for rule in every():
        assert f"\n## {rule.name}\n" in written and f"(#{rule.name})" in written


def test_what_a_page_offers_is_there() -> None:
    offered = set(re.findall(r"dropkit\.nn\.([A-Z]\w*)", page()))
    assert offered and offered <= set(dropkit.nn.__all__)
