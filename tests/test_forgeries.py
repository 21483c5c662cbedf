"""A forger's folders, field by field: every digest is right, and each is refused when read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import dropkit
from test_folder import edit, refused


def recipe(description: dict[str, Any], part: str) -> dict[str, Any]:
    """The first recipe that has a part."""
    found: dict[str, Any] = next(r for r in description["encoder"]["recipes"] if r[part])
    return found


def column(description: dict[str, Any], kind: str) -> dict[str, Any]:
    """The first column of a kind that is used."""
    columns = description["schema"]["columns"]
    found: dict[str, Any] = next(c for c in columns if c["used"] and c["kind"] == kind)
    return found


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a centre of text": lambda d: recipe(d, "numbers")["numbers"][0].update(center="abc"),
    "no centre": lambda d: recipe(d, "numbers")["numbers"][0].update(center=None),
    "no spread": lambda d: recipe(d, "numbers")["numbers"][0].update(spread=0.0),
    "ends that fall": lambda d: recipe(d, "numbers")["numbers"][0]["ends"].reverse(),
    "ends that meet": lambda d: recipe(d, "numbers")["numbers"][0].update(
        ends=[0.0] * len(recipe(d, "numbers")["numbers"][0]["ends"])
    ),
    "a level that is a list": lambda d: recipe(d, "onehot")["onehot"].__setitem__(0, [1]),
    "levels that are text": lambda d: recipe(d, "onehot").update(onehot="abc"),
    "an unknown part": lambda d: recipe(d, "onehot").update(more=1),
    "a name that is none": lambda d: column(d, "number").update(name={"a": 1}),
    "levels of several types": lambda d: column(d, "category").update(levels=[1, 2, None]),
    "levels that are a number": lambda d: column(d, "category").update(levels=5),
    "an unknown kind": lambda d: column(d, "number").update(kind="zz"),
    "another kind": lambda d: column(d, "number").update(kind="date"),
    "a layout for no date": lambda d: column(d, "number").update(kind="date", layout="%Q"),
    "an unknown task": lambda d: d["schema"].update(task="bogus"),
    "another task": lambda d: d["schema"].update(task="regression"),
    "classes that are objects": lambda d: d["schema"].update(classes=[{}, {}]),
    "a temperature of 0": lambda d: d.update(temperature=0.0),
    "a temperature below 0": lambda d: d.update(temperature=-1.0),
    "a temperature of text": lambda d: d.update(temperature="nan"),
    "shares beyond all bounds": lambda d: d.update(shares=[1e308] * len(d["shares"])),
    "shares below 0": lambda d: d.update(shares=[-1.0, 2.0, *d["shares"][2:]]),
    "shares of text": lambda d: d.update(shares="1" * len(d["shares"])),
    "no shares": lambda d: d.update(shares=[]),
    "a spread of outputs below 0": lambda d: d["readout"].update(spread=-1.0),
    "bounds of outputs that cross": lambda d: d["readout"].update(low=1.0),
    "bounds of text": lambda d: d["readout"].update(low="Infinity"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_field_is_refused_when_it_is_read(model: Path, name: str) -> None:
    """Each was once believed, or met only by the first prediction."""
    edit(model, lambda about: FORGERIES[name](about["description"]))
    refused(model, "no usable model folder")


@pytest.mark.parametrize("version", ["9.9\x1b[31m", "9" * 99, "", "1 2"])
def test_a_version_that_is_none(model: Path, version: str) -> None:
    edit(model, lambda about: about.update(dropkit=version))
    refused(model, "was not written by dropkit: its version is")
    ran = dropkit("predict", model, model.parent / "people.csv")
    assert ran.code == 2 and "\x1b" not in ran.err


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(model: Path, threads: int) -> None:
    history = json.loads((model / "history.json").read_text())
    (model / "history.json").write_text(json.dumps(history | {"threads": threads}))
    edit(model, lambda about: None)
    refused(model, "threads")
