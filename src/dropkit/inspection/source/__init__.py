"""Reads source as text: no torch, nothing of it is run.

`SourceFile` is what a rule is given. It tells which calls drop (`calls_of`), what names mean
(`names`), which classes are modules, and whether the mode is asked for before a call (`gated`,
`rate`, `acts_in_eval`): the forms in which a dropout is rightly gated are known in one place.
"""

from dropkit.inspection.source.calls import (
    ATTENTION,
    FUNCTIONAL,
    MODULES,
    RECURRENT,
    Signature,
    argument,
    number,
    truth,
)
from dropkit.inspection.source.decoding import Decoded, Unreadable, decode
from dropkit.inspection.source.file import SourceFile, Spot, parse
from dropkit.inspection.source.trails import Trail
from dropkit.inspection.source.words import worth_parsing

__all__ = [
    "ATTENTION",
    "FUNCTIONAL",
    "MODULES",
    "RECURRENT",
    "Decoded",
    "Signature",
    "SourceFile",
    "Spot",
    "Trail",
    "Unreadable",
    "argument",
    "decode",
    "number",
    "parse",
    "truth",
    "worth_parsing",
]
