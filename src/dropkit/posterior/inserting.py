"""Puts dropout where a model has none, while it is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args

from dropkit.errors import SamplingError, SettingError
from dropkit.posterior.choosing import Active, Rates
from dropkit.records import Site
from dropkit.records.sites import Role

_FIRST = 1 << 32
"""Numbers of sites that are put in begin here."""
_USUAL = ("hidden", "conv", "head")


def inserted(model: str, noted: Any, rates: Rates) -> dict[int, Active]:
    """Dropout before layers, by the number of each in a pass.

    A layer's role is `input` if it comes first, `head` if it is the last linear one, `conv` or
    `hidden` else. One rate for all leaves out the input.

    Raises:
        SettingError: rates outside [0, 1), or a role or path that no layer has.
        SamplingError: no layer was seen.
    """
    layers: Sequence[tuple[str, str, str, int]] = noted.layers
    if not layers:
        raise SamplingError(f"insert: expected linear layers or convolutions; {model} calls none")
    wanted: Mapping[str, float] = (
        rates if isinstance(rates, Mapping) else dict.fromkeys(_USUAL, rates or 0)
    )
    for rate in wanted.values():
        if not isinstance(rate, float | int) or not 0 < rate < 1:
            raise SettingError(f"insert: expected rates between 0 and 1; got {rate!r}")
    roles = _roles(layers)
    made = {}
    for number, ((path, owner, function, rank), role) in enumerate(zip(layers, roles, strict=True)):
        fitting = [rate for name, rate in wanted.items() if _fits(name, path, role)]
        if fitting:
            kind: Any = "feature_dropout" if function.startswith("conv") and rank > 2 else "dropout"
            site = Site(
                path=path, owner=owner, kind=kind, role=role, rate=float(fitting[-1]), place=None,
                operation="inserted", fired_in_train=False, fired_in_eval=False, bypassed=False,
            )  # fmt: skip
            made[number] = Active(_FIRST + number, site, float(fitting[-1]))
    if not made:
        there = list(dict.fromkeys([*roles, *(path for path, *_ in layers)]))
        raise SettingError(
            f"insert: expected roles or paths of layers; got {', '.join(map(repr, wanted))}. "
            f"{model} has {', '.join(map(repr, there[:8]))}"
        )
    return made


def _roles(layers: Sequence[tuple[str, str, str, int]]) -> list[Role]:
    linear = [number for number, layer in enumerate(layers) if layer[2] == "linear"]
    found: list[Role] = []
    for number, (_, _, function, _) in enumerate(layers):
        if linear and number == linear[-1]:
            found.append("head")
        elif number == 0:
            found.append("input")
        else:
            found.append("hidden" if function == "linear" else "conv")
    return found


def _fits(name: str, path: str, role: str) -> bool:
    if name in get_args(Role):
        return name == role
    return fnmatchcase(path, name) or fnmatchcase(path, f"{name}.*")
