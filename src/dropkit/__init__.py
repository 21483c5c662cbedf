"""Dropout done right: from a table to a well-regularized network and an honest report.

This module computes nothing. What needs torch or pandas is loaded when its name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropkit.errors import (
    ColumnError,
    DropkitError,
    DropkitWarning,
    FolderError,
    InputError,
    MissingExtraError,
    ModelFolderError,
    SettingError,
    TableError,
    TargetError,
)

__version__ = "0.1.0"

__all__ = [
    "ColumnError",
    "DropkitError",
    "DropkitWarning",
    "DropoutClassifier",
    "DropoutRegressor",
    "FolderError",
    "InputError",
    "MissingExtraError",
    "ModelFolderError",
    "SettingError",
    "TableError",
    "TargetError",
    "__version__",
    "load",
]

_LATE = {
    "DropoutClassifier": "dropkit.apps.estimators",
    "DropoutRegressor": "dropkit.apps.estimators",
    "load": "dropkit.apps.estimators",
}

if TYPE_CHECKING:  # a checker sees the names themselves, and still reports a misspelt one
    from dropkit.apps.estimators import DropoutClassifier, DropoutRegressor, load
else:

    def __getattr__(name: str) -> object:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        try:
            value = getattr(importlib.import_module(_LATE[name]), name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == __name__:
                raise
            raise MissingExtraError(
                f"dropkit.{name} needs the package {missing}, which is not installed; "
                f'try: pip install "dropkit[tables]"'
            ) from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
