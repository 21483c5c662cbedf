"""Rules by what a person calls them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dropkit.rules.base import Rule
from dropkit.rules.registry import every, named


def chosen(select: Collection[str] = (), ignore: Collection[str] = ()) -> tuple[Rule, ...]:
    """Those that are selected (all where nothing is) and not ignored.

    Each word is a name, a code, or the beginning of a code: DK1 is all rules on modes.

    Raises:
        SettingError: a word means no rule; the message has the nearest.
    """
    wanted = set(_meant(select)) if select else {rule.name for rule in every()}
    wanted -= set(_meant(ignore))
    return tuple(rule for rule in every() if rule.name in wanted)


def _meant(words: Collection[str]) -> Iterator[str]:
    for word in [words] if isinstance(words, str) else words:
        group = [rule.name for rule in every() if word[:2] == "DK" and rule.code.startswith(word)]
        yield from group or [named(word).name]
