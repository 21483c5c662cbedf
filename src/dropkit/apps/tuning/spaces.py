"""A space as people give it: of knobs, of tuples, or in a file; and as Optuna asks for it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dropkit.errors import SettingError
from dropkit.records import Knob, Space

if TYPE_CHECKING:
    from optuna import Trial

    from dropkit.planning.plan import Plan

USED = "?"
"""Behind the name of an optional knob: the question whether it is used."""

_FIELDS = {"low", "high", "log", "kind", "choices", "optional", "default", "reason"}

SpaceLike: TypeAlias = "Space | Mapping[str, Any] | Plan"


def space_of(given: SpaceLike) -> Space:
    """The space that was given, each knob looked at; of a plan, what is discovered from it.

    A mapping has for each name a `Knob`, (low, high), (low, high, "log") or a list of choices.
    Two whole numbers are the range of a whole number.

    >>> space_of({"lr": (1e-5, 1e-2, "log"), "layers": (1, 4), "optimizer": ["adamw", "sgd"]}).names
    ('lr', 'layers', 'optimizer')
    """
    if isinstance(given, Space):
        space = given
    elif isinstance(given, Mapping):
        space = Space(tuple(_knob(name, value) for name, value in given.items()))
    else:
        space = _discovered(given)
    if not space.knobs:
        raise SettingError("space: expected at least one knob; got none")
    for knob in space:
        _check(knob)
    double = sorted({name for name in space.names if space.names.count(name) > 1})
    if double:
        raise SettingError(f"space: expected each name once; got {double[0]!r} twice")
    return space


def _discovered(given: object) -> Space:
    """Of the plan of a model."""
    from dropkit.planning.discovering import discover
    from dropkit.planning.plan import Plan

    if isinstance(given, Plan):
        return discover(given)
    raise SettingError(
        "space: expected a dropkit Space, the plan of a model, or a dictionary such as "
        f'{{"lr": (1e-5, 1e-2, "log")}}; got {type(given).__name__}'
    )


def space_from_toml(path: Path) -> Space:
    """A space in a file: a table for each knob, with the fields of a `Knob`."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read the space {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is no TOML: {error}") from None
    return space_of({name: _from_table(name, table, path) for name, table in found.items()})


def _from_table(name: str, table: Any, path: Path) -> Any:
    if not isinstance(table, dict):
        return table if isinstance(table, list) and len(table) > 3 else _listed(table)
    odd = sorted(set(table) - _FIELDS)
    if odd:
        raise SettingError(
            f"{path}: [{name}] has the field {odd[0]!r}; expected {', '.join(sorted(_FIELDS))}. "
            f'A name with dots in it is quoted: ["{name}.{odd[0]}"]'
        )
    kind = table.get("kind", "choice" if "choices" in table else "float")
    return Knob(name, **{**table, "kind": kind, "choices": tuple(table.get("choices", ()))})


def _listed(value: Any) -> Any:
    """`[low, high]` and `[low, high, "log"]` of TOML are ranges; other lists are choices."""
    if not isinstance(value, list):
        return value
    numbers = [item for item in value[:2] if _is_number(item)]
    ranged = len(numbers) == 2 and (len(value) == 2 or value[2:] == ["log"])
    return tuple(value) if ranged else value


def _knob(name: str, value: Any) -> Knob:
    if isinstance(value, Knob):
        if value.name != name:
            raise SettingError(f"space: expected a knob called {name!r}; got {value.name!r}")
        return value
    if isinstance(value, list):
        return Knob(name, kind="choice", choices=tuple(value))
    shaped = isinstance(value, tuple) and len(value) in (2, 3) and all(map(_is_number, value[:2]))
    if not shaped or (len(value) == 3 and value[2] != "log"):
        raise SettingError(
            f'space: {name!r}: expected a Knob, (low, high), (low, high, "log") or a list of '
            f"choices; got {value!r}"
        )
    whole = all(isinstance(end, int) for end in value[:2])
    return Knob(name, value[0], value[1], log=len(value) == 3, kind="int" if whole else "float")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(knob: Knob) -> None:
    """Raise `SettingError` unless the knob can be turned."""
    where = f"knob {knob.name!r}"
    if not isinstance(knob.name, str) or not knob.name or knob.name.endswith(USED):
        raise SettingError(f"{where}: expected a name that does not end in {USED}")
    if knob.kind not in ("float", "int", "choice", "rate"):
        raise SettingError(f"{where}: expected kind float, int, choice or rate; got {knob.kind!r}")
    if knob.kind == "choice":
        _check_choices(knob, where)
    else:
        _check_range(knob, where)
    default = knob.default
    if default is None or (knob.optional and default == knob.off):
        return
    fits = default in knob.choices if knob.kind == "choice" else _within(knob, default)
    if not fits:
        raise SettingError(f"{where}: expected a default that it can be set to; got {default!r}")


def _check_choices(knob: Knob, where: str) -> None:
    plain = all(
        choice is None or isinstance(choice, bool | int | float | str) for choice in knob.choices
    )
    if not knob.choices or not plain or len(set(map(repr, knob.choices))) < len(knob.choices):
        raise SettingError(
            f"{where}: expected choices, each once, that are text, numbers, true, false or None; "
            f"got {list(knob.choices)!r}"
        )


def _check_range(knob: Knob, where: str) -> None:
    ends = (knob.low, knob.high)
    if not all(_is_number(end) and math.isfinite(end) for end in ends) or ends[0] > ends[1]:
        raise SettingError(f"{where}: expected low <= high, both finite; got {ends}")
    if knob.log and knob.low <= 0:
        raise SettingError(
            f"{where}: expected low above 0 where log is set; got {knob.low}. To allow 0 beside a "
            "logarithmic range, set optional"
        )
    if knob.kind == "rate" and not 0 <= knob.low <= knob.high < 1:
        raise SettingError(f"{where}: expected rates from 0 to below 1; got {ends}")
    if knob.kind == "int" and any(end != int(end) for end in ends):
        raise SettingError(f"{where}: expected whole numbers; got {ends}")


def _within(knob: Knob, value: Any) -> bool:
    whole = knob.kind != "int" or (_is_number(value) and value == int(value))
    return _is_number(value) and whole and knob.low <= value <= knob.high


# ---- as Optuna asks


def asked(space: Space, trial: Trial) -> dict[str, Any]:
    """The value of each knob, by Optuna's sampler or as the trial has it already."""
    values = {}
    for knob in space:
        used = not knob.optional or trial.suggest_categorical(knob.name + USED, [True, False])
        values[knob.name] = _suggested(knob, trial) if used else knob.off
    return values


def _suggested(knob: Knob, trial: Trial) -> Any:
    if knob.kind == "choice":
        return trial.suggest_categorical(knob.name, knob.choices)
    if knob.kind == "int":
        return trial.suggest_int(knob.name, int(knob.low), int(knob.high), log=knob.log)
    return trial.suggest_float(knob.name, knob.low, knob.high, log=knob.log)


def told(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each knob of a trial that was asked; what was not yet asked is left out."""
    values = {}
    for knob in space:
        if knob.optional and params.get(knob.name + USED) is False:
            values[knob.name] = knob.off
        elif knob.name in params:
            values[knob.name] = params[knob.name]
    return values


def fixed(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna would have been asked, to come to these values."""
    params: dict[str, Any] = {}
    for knob in space:
        if knob.name not in values:
            continue
        value = values[knob.name]
        if knob.optional:
            params[knob.name + USED] = value != knob.off
        if not (knob.optional and value == knob.off):
            params[knob.name] = value
    return params


def defaults(space: Space) -> dict[str, Any]:
    """The values that the first trial has."""
    return {knob.name: knob.default for knob in space if knob.default is not None}
