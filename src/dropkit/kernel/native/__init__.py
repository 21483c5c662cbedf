"""The C++ kernels for CPUs: optional, loaded where they were built, chosen by the processor.

The environment variable ``DROPKIT_KERNEL`` names one instead: ``reference`` (none of these),
``portable``, ``avx2``, ``avx512`` or ``neon``; or ``triton``, the GPU's, interpreted.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from dropkit.errors import SettingError

if TYPE_CHECKING:
    from types import ModuleType

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""The number by which the kernels know a type."""

_CHOICES = ("reference", "portable", "avx2", "avx512", "neon", "triton")
_VARIABLE = "DROPKIT_KERNEL"


def forced() -> str:
    """The kernel that the environment asks for, or "" where it leaves the choice."""
    name = os.environ.get(_VARIABLE, "")
    if name in ("", *_CHOICES):
        return name
    raise SettingError(
        f"expected {_VARIABLE} to be one of {', '.join(_CHOICES)}, or not set; got {name!r}"
    )


def load() -> ModuleType | None:
    """The compiled module, set to the best kernel of this processor, or to the one asked for.

    None where it was not built (`missing` says why), or where another way is asked for.
    Raises SettingError for a kernel that this build or processor has not got.
    """
    name = forced()
    if name in ("reference", "triton"):
        return None
    try:
        from dropkit.kernel import _native
    except ImportError:
        if name:
            raise SettingError(
                f"{_VARIABLE} asks for {name}, but {missing()}; expected reference"
            ) from None
        return None
    if name and name not in _native.available():
        raise SettingError(
            f"{_VARIABLE} asks for {name}, which this processor or build has not got; "
            f"expected one of {', '.join((*_native.available(), 'reference'))}"
        )
    _native.select(name or _native.available()[0])
    return _native


def missing() -> str | None:
    """Why there is no compiled module; None where there is one."""
    if find_spec("dropkit.kernel._native") is None:
        return (
            "the C++ kernels were not built when dropkit was installed, as there was no C++17 "
            "compiler; try: install one, then pip install --force-reinstall --no-cache-dir dropkit"
        )
    try:
        from dropkit.kernel import _native  # noqa: F401
    except ImportError as error:
        return f"the C++ kernels cannot be loaded ({error}); try: install dropkit again"
    return None
