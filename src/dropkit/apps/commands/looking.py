"""What `audit` and `sites` share: the target, its inputs, and what becomes of errors in them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from dropkit.errors import InputError, SettingError

if TYPE_CHECKING:
    from torch import nn

    from dropkit.apps.targets import Inputs, Target


def about_target(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument TARGET, and the options that say how it is called."""
    decorators = (
        click.argument("target"),
        click.option(
            "--input",
            "shapes",
            multiple=True,
            metavar="SPEC",
            help="An input, such as 8x3x224x224 or ids=8x128:int64<30522; may be repeated.",
        ),
        click.option(
            "--inputs",
            "function",
            metavar="MODULE:NAME",
            help="A function that gives the inputs: a tuple, or a dictionary of names.",
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "meta", "real"]),
            default="auto",
            show_default=True,
            help="Run without values, on the meta device, or with them.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed of a target."""

    target: str
    shapes: Sequence[str]
    function: str | None
    device: str


@contextmanager
def away_from_output() -> Iterator[None]:
    """What a stranger's model prints goes to standard error: the report stands alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def resolved(asked: Asked) -> Target:
    """The target, with the inputs that were given, or that it names, or that were guessed."""
    from dropkit.apps.targets import resolve

    if asked.shapes and asked.function:
        raise SettingError("expected --input or --inputs; got both. One of them says it all")
    found = resolve(asked.target, device=asked.device)
    if found.model is None:
        return found
    given = _given(asked)
    if given is not None:
        return replace(found, inputs=given)
    inputs = found.inputs or _guessed(found.model)
    if inputs.said:
        called = f"called with {inputs.said} (guessed)"
        found = replace(found, name=f"{found.name}, {called}")
    return replace(found, inputs=inputs)


def _given(asked: Asked) -> Inputs | None:
    from dropkit.apps.targets import inputs

    if asked.function:
        from dropkit.apps.targets.importing import called

        return inputs.taken(called(asked.function), asked.function)
    return inputs.parsed(asked.shapes) if asked.shapes else None


def trained(target: Target, function: str | None) -> dict[str, Any]:
    """The optimizer and the loss of a target, as a function of the model gives them."""
    from dropkit.apps.targets.importing import called

    if function is None:
        return {}
    given = called(function, target.model)
    if not isinstance(given, dict) or not given.keys() <= {"optimizer", "loss"}:
        raise SettingError(
            f"expected {function} to give a dictionary with optimizer, loss or both; got "
            f"{sorted(map(str, given)) if isinstance(given, dict) else type(given).__name__}"
        )
    return given


def _guessed(model: nn.Module) -> Inputs:
    from dropkit.apps.targets.guessing import guess

    return guess(model)


@contextmanager
def explained(target: Target) -> Iterator[None]:
    """Say of inputs that do not fit which layer expected what, where it can be told."""
    try:
        yield
    except SettingError as error:
        from dropkit.apps.targets.mismatch import translated

        assert target.model is not None
        said = translated(error, target.model)
        if not said:
            raise
        raise InputError(f"{target.name} does not run on these inputs: {said}") from error
