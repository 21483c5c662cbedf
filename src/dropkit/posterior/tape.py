"""What has to be done again for another draw: steps, with what each is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dropkit.posterior.laws import Law


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that hangs on a draw, by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that does not, by its number."""

    number: int


Given = Slot | Constant | Any
"""What a step is given: values, and in their places what is no tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operator."""

    run: Callable[..., Any]
    args: tuple[Given, ...]
    kwargs: dict[str, Given]
    outs: tuple[int | None, ...]
    """The numbers of what it gives, in order; None: no tensor, or one that nothing uses."""
    many: bool = False
    """Whether it gives several, as a tuple or a list."""
    seeded: bool = False
    """Whether it draws from torch's own generator, which moves also for what is not used."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A site that acts, or whatever else is told how many draws there are."""

    law: Law
    args: tuple[Given, ...]
    out: int


@dataclass(slots=True, eq=False)
class Tape:
    """What has to be done again for another draw."""

    steps: list[Step | Drawing] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Bytes of each value, of one draw."""
    why_not: str = ""
    """Why it cannot be done by this tape; empty: it can."""
    seeded: bool = False
    """Whether something is drawn from torch's own generator."""
    writes: bool = False
    """Whether a step writes into memory."""
