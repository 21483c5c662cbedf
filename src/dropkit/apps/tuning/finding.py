"""`module:objective` and `file.py:objective`, and spaces that stand in modules and files."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from dropkit.apps.targets.importing import module_at
from dropkit.apps.tuning.spaces import SpaceLike, space_from_toml
from dropkit.apps.tuning.trial import Objective
from dropkit.errors import SettingError

SPACE = "SPACE"
"""The name of a space that stands beside its objective."""


def objective_at(text: str) -> Objective:
    """The function that a text names."""
    found = _at(text, "an objective", "module:objective or file.py:objective")
    if not callable(found):
        raise SettingError(
            f"expected {text} to be a function of a trial; got a {type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]


def space_at(text: str | None, objective: str) -> SpaceLike:
    """The space in a TOML file or at module:space; by default, SPACE beside the objective."""
    if text is None:
        place = objective.rpartition(":")[0]
        found = getattr(module_at(place), SPACE, None)
        if found is None:
            raise SettingError(
                f"expected --space file.toml or module:space, or a variable {SPACE} in {place}; "
                f'such as {SPACE} = {{"lr": (1e-5, 1e-2, "log")}}'
            )
        return found  # type: ignore[no-any-return]
    if text.endswith(".toml"):
        return space_from_toml(Path(text))
    found = _at(text, "a space", "file.toml, module:space or file.py:space")
    return found() if callable(found) else found  # type: ignore[no-any-return]


def _at(text: str, what: str, form: str) -> Any:
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise SettingError(f"expected {what} as {form}; got {text!r}")
    found: Any = module_at(place)
    for part in name.split("."):
        if not hasattr(found, part):
            names = [other for other in dir(found) if not other.startswith("_")]
            near = difflib.get_close_matches(part, names, n=3, cutoff=0.4) or names[:5]
            raise SettingError(f"{place} has no {name}; it has {', '.join(near) or 'nothing'}")
        found = getattr(found, part)
    return found
