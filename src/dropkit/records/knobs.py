"""What a search may turn: knobs, and a space of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

KnobKind = Literal["float", "int", "choice", "rate"]

_ESSENCE = ("name", "low", "high", "log", "kind", "choices", "optional")
"""What makes two knobs the same: where a search begins and why a range was chosen do not."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One thing to be set: a number in a range, a rate of a role or a path, or one of a few."""

    name: str
    """Of a rate: the role or the path that it is for."""
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    """Whether its digits matter and not its distance: learning rates, weight decay."""
    kind: KnobKind = "float"
    choices: tuple[Any, ...] = ()
    optional: bool = False
    """Asked as two questions: is it used, and how much? Not used: 0, of a choice None."""
    default: Any = None
    """Its value in the first trial; None: the search's choice."""
    reason: str = ""

    @property
    def off(self) -> Any:
        """Its value where it is not used."""
        return None if self.kind == "choice" else 0 if self.kind == "int" else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Its fields, as JSON holds them."""
        fields = ("low", "high", "log") if self.kind != "choice" else ("choices",)
        found = {"name": self.name, "kind": self.kind, "optional": self.optional}
        found |= {field: getattr(self, field) for field in fields}
        found |= {"choices": list(self.choices)} if self.kind == "choice" else {}
        return found | {"default": self.default, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Space:
    """Knobs in order.

    >>> space = Space((Knob("lr", 1e-4, 1e-1, log=True), Knob("hidden", 0, 0.6, kind="rate")))
    >>> [knob.name for knob in space]
    ['lr', 'hidden']
    >>> Space.from_dict(space.as_dict()) == space
    True
    """

    knobs: tuple[Knob, ...]

    def __iter__(self) -> Iterator[Knob]:
        return iter(self.knobs)

    def __len__(self) -> int:
        return len(self.knobs)

    def __getitem__(self, name: str) -> Knob:
        for knob in self.knobs:
            if knob.name == name:
                return knob
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its knobs, in order."""
        return tuple(knob.name for knob in self.knobs)

    @property
    def rates(self) -> tuple[str, ...]:
        """The roles and paths whose rates it sets."""
        return tuple(knob.name for knob in self.knobs if knob.kind == "rate")

    @property
    def fingerprint(self) -> str:
        """16 digits that two spaces share if they ask the same questions, in any order."""
        essence = sorted(
            ({field: getattr(knob, field) for field in _ESSENCE} for knob in self.knobs),
            key=lambda knob: str(knob["name"]),
        )
        text = json.dumps(essence, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"knobs": [knob.as_dict() for knob in self.knobs]}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Space:
        """The space of which `as_dict` made this."""
        knobs = [dict(knob) for knob in found["knobs"]]
        for knob in knobs:
            knob["choices"] = tuple(knob.get("choices", ()))
        return cls(tuple(Knob(**knob) for knob in knobs))
