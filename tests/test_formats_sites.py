"""Maps as people and machines read them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from dropkit.apps.formats import sites
from dropkit.errors import InputError
from dropkit.inspection.showing import fragment, merged, pattern, plain, rows
from made_up_reports import ATTENTION, DROPOUT, HOSTILE, MODEL
from test_formats import Tags, steers

MAP = sites.Kept("Net", MODEL.sites, MODEL.unseen)
WICKED = sites.Kept(HOSTILE, (replace(ATTENTION, path=HOSTILE, owner=HOSTILE),), (HOSTILE,))


def test_layers_that_differ_in_their_number_share_a_line() -> None:
    assert [row.cells for row in rows(MODEL.sites)] == [
        (
            *("h.[0-11].attn", "attention dropout x12", "attention", "0.1"),
            *("train and eval", "net.py:212"),
        ),
        ("head.1", "dropout", "head", "0.9", "train", "net.py:41"),
        ("pool", "own mask", "head", "?", "never ran", ""),
    ]


def test_layers_that_differ_in_more_do_not() -> None:
    other = replace(MODEL.sites[3], rate=0.2)
    assert len(rows((*MODEL.sites[:3], other))) == 2


def test_paths_are_merged_by_their_numbers_alone() -> None:
    assert pattern("a1.2.b.33") == "a1.*.b.*"
    assert merged(["h.0.x", "h.2.x"]) == "h.[0..2].x"
    assert merged(["a.1.b.0", "a.2.b.1"]) == "a.[1-2].b.[0-1]"
    assert merged([""]) == ""


@pytest.mark.parametrize(
    ("changes", "acts"),
    [
        ({}, "train and eval"),
        ({"fired_in_eval": False}, "train"),
        ({"fired_in_train": False}, "eval only"),
        ({"fired_in_eval": False, "bypassed": True}, "bypassed in eval"),
        ({"fired_in_eval": False, "fired_in_train": False, "rate": 0.0}, "never: rate 0"),
        ({"fired_in_eval": False, "fired_in_train": False}, "never"),
        ({"fired_in_eval": False, "ran": False}, "never ran"),
    ],
)
def test_when_a_site_acts(changes: dict[str, object], acts: str) -> None:
    (row,) = rows([replace(ATTENTION, **changes)])
    assert row.acts == acts


def test_a_table_fits_its_width() -> None:
    for width in (60, 80, 120):
        text = sites.text(MAP, width=width, color=True)
        plain_text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(len(line.rstrip()) for line in plain_text.splitlines()) <= width
    assert "net.py:212" in sites.text(MAP, width=120, color=True)


def test_a_tree_has_a_branch_for_each_module() -> None:
    assert sites.text(MAP, tree=True, width=80).splitlines() == [
        "Net: 14 sites of 3 kinds",
        "├── h.[0-11].attn  attention dropout x12 p=0.1, attention, train and eval",
        "├── head.1  dropout p=0.9, head, train",
        "└── pool  own mask p=?, head, never ran",
        "Not seen: pool: the forward pass does not come to it",
    ]


def test_two_sites_of_one_module_stand_below_it() -> None:
    two = sites.Kept("Net", (DROPOUT, replace(DROPOUT, rate=0.5)))
    lines = sites.text(two, tree=True).splitlines()
    assert lines[1] == "└── head.1"
    assert len(lines) == 4


def test_without_colours_it_is_plain() -> None:
    assert sites.text(MAP) == plain("Net", MODEL.sites, MODEL.unseen) + "\n"


@pytest.mark.parametrize("found", [MAP, WICKED, sites.Kept("Net", ())], ids=["map", "wicked", "no"])
def test_json_gives_the_map_back(found: sites.Kept) -> None:
    written = sites.to_json(found)
    assert steers(written) == set()
    again = sites.from_json(written)
    assert repr(again) == repr(found)  # by words: nan is not equal to itself
    assert sites.to_json(again) == written


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("sites"),
        lambda content: content.update(version=2),
        lambda content: content.update(format="other"),
        lambda content: content["sites"][0].update(kind="magic"),
        lambda content: content["sites"][0].pop("role"),
    ],
)
def test_what_is_no_map_is_refused(damage: object) -> None:
    content = json.loads(sites.to_json(MAP))
    damage(content)  # type: ignore[operator]
    with pytest.raises(InputError, match="expected a map as `dropkit sites --format json`"):
        sites.from_json(json.dumps(content))
    with pytest.raises(InputError):
        sites.from_json("[" * 100_000)


@pytest.mark.parametrize("form", ["plain", "table", "tree"])
def test_a_hostile_map_steers_nothing(form: str) -> None:
    assert steers(sites.text(WICKED, tree=form == "tree")) == set()
    assert "\x1b[31m<" not in sites.text(WICKED, color=True, tree=form == "tree")


def test_a_fragment_is_escaped_and_closed() -> None:
    for found in (MAP, WICKED):
        html = fragment(found.model, found.sites, found.unseen)
        tags = Tags()
        tags.feed(html)
        assert tags.open == []
        assert "script" not in tags.seen
        assert steers(html) == set()
