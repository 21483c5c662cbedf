"""Rates over depth: the deeper a branch lies, the likelier it is dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from dropkit.errors import SettingError
from dropkit.functional import depth_rates
from dropkit.records import Site


class Asked(Protocol):
    """What a ramp needs of a plan."""

    def named(self, name: str, /) -> Iterable[Any]:
        """The levers that a name fits; raises where there are none."""

    def update(self, rates: Mapping[str, float], /) -> None:
        """Ask for rates by name."""


def depth_ramp(plan: Asked, name: str = "path", *, last: float) -> dict[str, float]:
    r"""Ask for rates that grow linearly from block to block: the ramp of stochastic depth.

    .. math:: p_i = p_{\text{last}} \, i / (n - 1), \qquad i = 0, \dots, n - 1

    A block is known by the number in its path: `blocks.3.drop_path`, and through all stages of
    `stages.1.blocks.2.drop_path`, as timm and ConvNeXt count. So a first block in which nothing
    stands, since its rate is 0, is counted; a stage without any site is not. Sites of one block
    have one rate. Nothing is written into the model until `plan.apply()`.

    Args:
        plan: `dropkit.rates(model, *inputs)`.
        name: a role, or a path or pattern of paths.
        last: the rate of the last block.

    Returns:
        What was asked for, by name of a site. A `RateSchedule` can move it over time:
        `{name: schedules.early(rate, steps=5000) for name, rate in depth_ramp(...).items()}`.

    Raises:
        SettingError: no site has the name, or their paths hold no numbers of blocks.

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", which begins with last / n; 0
    for the first is how timm, DeiT and ConvNeXt do it.
    """
    paths = _paths(plan, name)
    blocks = numbered(paths)
    if blocks is None:
        raise SettingError(
            f"name: expected sites in blocks that are numbered in their paths, such as "
            f"blocks.0.drop_path; {name!r} has {', '.join(map(repr, paths[:4]))}"
        )
    ramp = depth_rates(last, 1 + max(blocks.values()))
    rates = {path: ramp[block] for path, block in blocks.items()}
    plan.update(rates)
    return rates


def _paths(plan: Asked, name: str) -> list[str]:
    """A name of each site that a name fits, in the order in which they run."""
    return list(dict.fromkeys(alone(lever.site) for lever in plan.named(name)))


def alone(site: Site) -> str:
    """A name that fits a site, and none of another place within the same module."""
    line = "" if site.place is None else f"@{site.place.line}"
    return site.holder or f"{site.path}{line}"


def numbered(paths: Iterable[str]) -> dict[str, int] | None:
    """The number of the block that each path lies in, through all stages; None: there are none.

    >>> numbered(["stages.0.blocks.1.drop", "stages.1.blocks.0.drop", "stages.1.blocks.2.drop"])
    {'stages.0.blocks.1.drop': 1, 'stages.1.blocks.0.drop': 2, 'stages.1.blocks.2.drop': 4}
    """
    places = {path: _place(path, level) for path, level in _levels(list(paths)).items()}
    if not places or any(place is None for place in places.values()):
        return None
    known = {path: place for path, place in places.items() if place is not None}
    sizes: dict[tuple[int | str, ...], int] = defaultdict(int)
    for outer, number in known.values():
        sizes[outer] = max(sizes[outer], number + 1)
    before, start = 0, {}
    for outer in sizes:  # as they run
        start[outer] = before
        before += sizes[outer]
    return {path: start[outer] + number for path, (outer, number) in known.items()}


def _levels(paths: Sequence[str]) -> dict[str, int]:
    """Which of the numbers in each path is that of its block: the last that is not always the same.

    In blocks.3.mlp.2 it is 3, where each block drops at its mlp.2.
    """
    levels = {}
    for form, alike in _by_form(paths).items():
        columns = list(zip(*(_numbers(path) for path in alike), strict=True))
        varied = [at for at, column in enumerate(columns) if len(set(column)) > 1]
        levels.update(dict.fromkeys(alike, varied[-1] if varied else form.count("#") - 1))
    return levels


def _by_form(paths: Sequence[str]) -> dict[str, list[str]]:
    forms: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        forms[".".join("#" if part.isdigit() else part for part in _parts(path))].append(path)
    return forms


def _numbers(path: str) -> list[int]:
    return [int(part) for part in _parts(path) if part.isdigit()]


def _parts(path: str) -> list[str]:
    return path.partition("@")[0].split(".")


def _place(path: str, level: int) -> tuple[tuple[int | str, ...], int] | None:
    """(what holds the block, its number in it)."""
    parts: list[int | str] = [int(p) if p.isdigit() else p for p in _parts(path)]
    at = [place for place, part in enumerate(parts) if isinstance(part, int)]
    if not at:
        return None
    return tuple(parts[: at[level]]), int(parts[at[level]])
