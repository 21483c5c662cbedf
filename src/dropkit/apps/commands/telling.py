"""Warnings of ours as notes for a person."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dropkit.errors import DropkitWarning


@contextmanager
def told(say: Callable[[str], None]) -> Iterator[None]:
    """Show our warnings as notes; other libraries' are for programmers and stay with them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        say(f"dropkit: note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DropkitWarning)
        warnings.showwarning = show
        yield
