"""What went wrong in somebody else's code, in a sentence."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable

import dropkit
from dropkit.inspection.showing import printable

_OURS = dropkit.__path__[0]


def last_line(error: BaseException) -> str:
    """An error in a line, with where it was raised and what was the cause of it."""
    frames = traceback.extract_tb(error.__traceback__)
    known = [frame for frame in frames if not frame.filename.startswith(("<frozen", _OURS))]
    own = [frame for frame in known if "site-packages" not in frame.filename] or known
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    cause = "" if root is error else f"; the cause was {_said(root)}"
    return f"{_said(error)}{place}{cause}"


def _said(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}".removesuffix(": "), 300)


def required(function: Callable[..., object]) -> list[str]:
    """Names of the arguments that it cannot be called without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in, and says nothing
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
    ]
