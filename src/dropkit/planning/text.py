"""A plan as text: JSON for programs, TOML for people."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from dropkit.errors import SettingError
from dropkit.inspection.names import ROLES

_VERSION = 1


def as_json(model: str, rates: Mapping[str, float]) -> str:
    """One object, with the rates by name."""
    held = {"format": "dropkit-plan", "version": _VERSION, "model": model, "rates": dict(rates)}
    return json.dumps(held, indent=1)


def as_toml(model: str, sites: int, rates: Iterable[tuple[str, float, str]]) -> str:
    """A table, with what a person may want to know behind each rate."""
    lines = [
        f"# Dropout rates of {_printable(model)}, {sites} sites. A name is a role, a path, or part",
        "# of one: encoder.layer.0-5, h.*.attn. A path goes before a role, a longer one before a",
        "# shorter.",
        f'format = "dropkit-plan"\nversion = {_VERSION}\nmodel = {json.dumps(model)}',
        "\n[rates]",
    ]
    lines += [f"{json.dumps(n)} = {rate!r}  # {_printable(says)}" for n, rate, says in rates]
    return "\n".join(lines) + "\n"


def rates_of(text: str) -> dict[str, float]:
    """The rates that a text gives, in either form.

    Raises:
        SettingError: it is no plan, or of a later version.
    """
    held = _parsed(text)
    if held.get("format") != "dropkit-plan" or not isinstance(held.get("rates"), dict):
        raise SettingError(
            'expected a plan, with format = "dropkit-plan" and a table of rates; got a text with '
            f"{', '.join(map(repr, list(held)[:5])) or 'nothing in it'}"
        )
    if held.get("version") != _VERSION:
        raise SettingError(
            f"expected a plan of version {_VERSION}; got {held.get('version')!r}, which another "
            "release of dropkit wrote"
        )
    rates: dict[str, float] = held["rates"]
    return rates


def _parsed(text: str) -> dict[str, Any]:
    is_json = text.lstrip().startswith("{")
    try:
        held = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        form = "JSON" if is_json else "TOML"
        raise SettingError(f"expected a plan as JSON or TOML; as {form}: {error}") from None
    return held if isinstance(held, dict) else {}


def weight(name: str) -> tuple[int, int, int]:
    """How particular a name is: a path more than a role, and the longer the more."""
    if name in ROLES:
        return 0, 0, 0
    open_parts = sum(any(mark in part for mark in "*?[-") for part in name.split("."))
    return 1 + ("@" in name), len(name.split(".")) if name else 0, -open_parts


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
