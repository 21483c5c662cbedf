"""How a report is to look, and where it is looked at from."""

from __future__ import annotations

from dataclasses import dataclass

from dropkit.records import Severity


@dataclass(frozen=True, slots=True)
class Look:
    """What the formats can be told; each takes what concerns it."""

    root: str = ""
    """The folder that files are named from; empty: the one that the process runs in."""
    width: int = 88
    """text: columns to fill."""
    color: bool = False
    """text: whether to colour."""
    each: bool = False
    """text: whether findings that repeat from layer to layer are each shown."""
    fail_on: Severity | None = "error"
    """junit: the least severity that is a failure; None: nothing is."""
    artifact: str = ""
    """sarif: the file to name where a finding has none, such as that of the model's class."""
    command: str = "audit"
    """The command that judged: audit or lint."""
