"""What a name on the command line stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dropkit.records import Site

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model is called with."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    """In words, where it was guessed: "x: 8x3x224x224"."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A program that is read and not run: all that it draws stands in it."""

    sites: tuple[Site, ...]
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A model, or a program, with what is known of it."""

    name: str
    """In words: what it is, and where it comes from."""
    model: nn.Module | None = None
    inputs: Inputs | None = None
    """What it takes, where its target says so itself."""
    notes: tuple[str, ...] = ()
    """What a person should know of how it was made."""
    artifact: str = ""
    """The file that it comes from; empty: none is known."""
    frozen: Frozen | None = None
