"""Finds the rules."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from dropkit.errors import SettingError
from dropkit.rules.base import GROUPS, Rule


@cache
def every() -> tuple[Rule, ...]:
    """All rules, by their codes."""
    found = []
    for group in GROUPS:
        room = import_module(f"dropkit.rules.{group}")
        found += [
            import_module(f"{room.__name__}.{module.name}").RULE
            for module in iter_modules(room.__path__)
        ]
    return tuple(sorted(found, key=lambda rule: rule.code))


def named(name: str) -> Rule:
    """The rule of a name or a code.

    Raises:
        SettingError: there is none; the message has the nearest.
    """
    for rule in every():
        if name in (rule.name, rule.code):
            return rule
    names = [word for rule in every() for word in (rule.name, rule.code)]
    near = difflib.get_close_matches(name, names, n=3) or ["dropkit rules, which lists them"]
    raise SettingError(f"expected the name or code of a rule; got {name!r}. Try {', '.join(near)}")
