"""Records as plain JSON and back, checked field by field against their declared types."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = Any

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON has no such numbers; they travel as these words."""


def encode(value: object) -> Json:
    """A record, or anything made of records, tuples, numbers and text, as plain JSON values.

    >>> from dropkit.records import Progress
    >>> encode(Progress("grid", 0.5, float("inf"), 3, 8))["best"]
    'Infinity'
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, special in _SPECIAL.items() if repr(special) == repr(value))
    return value


def decode(kind: type[T], value: Json) -> T:
    """The record of type `kind` that `encode` turned into `value`.

    Raises `ValueError`, with the name of the field, for what `encode` would not have written.
    """
    result: T = _decode(kind, value, kind.__name__)
    return result


def canonical(value: Json) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def digest(value: Json) -> str:
    """SHA-256 of a JSON object, without its own field `digest`."""
    kept = {key: item for key, item in value.items() if key != "digest"}
    return hashlib.sha256(canonical(kept)).hexdigest()


def _decode(kind: Any, value: Json, where: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _record(kind, value, where)
    if origin is tuple:
        return _tuple(get_args(kind), value, where)
    if origin is Literal:
        return value if value in get_args(kind) else _refuse(where, kind, value)
    if origin in (Union, types.UnionType):
        return _optional(get_args(kind), value, where)
    return _scalar(kind, value, where)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Field types of a record; the annotations are ours, so evaluating them is safe."""
    return get_type_hints(kind)


def _record(kind: Any, value: Json, where: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict) or set(value) != set(hints):
        _refuse(where, kind.__name__, value)
    return kind(
        **{name: _decode(hint, value[name], f"{where}.{name}") for name, hint in hints.items()}
    )


def _tuple(parts: tuple[Any, ...], value: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(where, "a list", value)
    if len(parts) == 2 and parts[1] is ...:
        read = _reader(parts[0], where)
        return tuple([read(item) for item in value])
    if len(parts) != len(value):
        _refuse(where, f"{len(parts)} items", value)
    return tuple(_decode(part, item, where) for part, item in zip(parts, value, strict=True))


def _reader(kind: Any, where: str) -> Callable[[Json], Any]:
    """Long lists are of numbers and text: look at the type once, not once per item."""
    if kind in (str, float):
        return lambda item: item if type(item) is kind else _scalar(kind, item, where)
    return lambda item: _decode(kind, item, where)


def _optional(choices: tuple[Any, ...], value: Json, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    (kind,) = (choice for choice in choices if choice is not type(None))
    return _decode(kind, value, where)


def _scalar(kind: Any, value: Json, where: str) -> Any:
    if kind is float and isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        _refuse(where, kind.__name__, value)
    return value


def _refuse(where: str, expected: object, value: Json) -> Any:
    got = repr(value)
    raise ValueError(
        f"{where}: expected {expected}, got {got if len(got) < 60 else got[:57] + '...'}"
    )
