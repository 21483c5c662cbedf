"""A report in the forms that people and machines read.

`render(report, "text")` is a string; nothing here prints or writes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dropkit.errors import SettingError

if TYPE_CHECKING:
    from dropkit.apps.formats.look import Look
    from dropkit.records import Report

FORMATS = ("text", "json", "sarif", "github", "junit", "html")

__all__ = ["FORMATS", "render"]


def render(report: Report, format: str = "text", **options: Any) -> str:
    """A report in one of `FORMATS`; the options are the fields of `Look`.

    Raises:
        SettingError: there is no such format.
    """
    if format not in FORMATS:
        raise SettingError(f"expected a format of {', '.join(FORMATS)}; got {format!r}")
    from dropkit.apps.formats.look import Look

    module = import_module(f"{__name__}.{format}")
    write: Callable[[Report, Look], str] = module.write
    return write(report, Look(**options))
