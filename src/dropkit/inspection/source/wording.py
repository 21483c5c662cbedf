"""What names and comments say: that something hangs on the mode, or is meant to be as it is."""

from __future__ import annotations

import ast
import re

_MODE = re.compile(
    r"(?<!re)(?<!cons)train|(^|_)eval|infer|(^|_)test|determin|(^|_)sampl|stochast|"
    r"(^|_)(mode|mc|phase|stage|split|predict(ion|ing)?|is_gen)(_|$)|monte|perturb|(^|_)aug|noise|switch",
    re.IGNORECASE,
)
_ON_PURPOSE = re.compile(
    r"(^|_)mc(_|$)|monte|always|pre_?net|augment|bayes|uncertain|epistemic|stochast|sim_?cse|"
    r"perturb|corrupt|nois|adversar|consisten|contrast|criteri|(^|_)loss(es)?(_|$)|posterior",
    re.IGNORECASE,
)
_FOR_TRAINING = re.compile(r"train|(^|_)test|pretext|sampl|(^|_)fit(_|$)", re.IGNORECASE)
_SAID = re.compile(
    r"#(?!\s*dropkit:).*(always|inference|eval|test[- _]?time|testing|monte|\bmc\b|intention|"
    r"purpose|by design|even (if|when|at|in|during)|regardless|uncertain|tacotron)",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words_of(node: ast.AST) -> list[str]:
    """Names, attributes and strings in an expression."""
    found = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.append(part.id)
        elif isinstance(part, ast.Attribute):
            found.append(part.attr)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.append(part.value)
    return found


def speaks_of_mode(node: ast.AST) -> bool:
    """Whether an expression names training, evaluation, or sampling on purpose."""
    return any(_MODE.search(word) for word in words_of(node))


def named_on_purpose(names: str) -> bool:
    """Whether classes or functions (with dots) are those that drop in evaluation by design."""
    return _ON_PURPOSE.search(_HUMP.sub("_", names)) is not None


def named_for_training(function: str) -> bool:
    """Whether a function says that it is run in training, or in a test, alone."""
    return _FOR_TRAINING.search(function) is not None


def said_on_purpose(lines: list[str]) -> bool:
    """Whether a comment says so."""
    return any(_SAID.search(line) for line in lines)


def is_test_file(path: str) -> bool:
    """Whether a path is one of tests."""
    *folders, name = path.replace("\\", "/").split("/")
    if name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py":
        return True
    return any(folder in ("test", "tests", "testing", "_internal") for folder in folders)
