"""Which dropkit, Python and libraries a run was made with."""

from __future__ import annotations

import platform
from importlib import metadata

from dropkit import __version__

LIBRARIES = ("torch", "numpy", "pandas", "scikit-learn")


def all_versions() -> tuple[tuple[str, str], ...]:
    """(name, version) of dropkit, Python and the libraries whose version can change a result."""
    libraries = tuple((name, _version(name)) for name in LIBRARIES)
    return (("dropkit", __version__), ("Python", platform.python_version()), *libraries)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
