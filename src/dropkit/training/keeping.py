"""Checkpoints of a search as tensors and plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dropkit.records import Cocktail, Curve, Origin, Trial
from dropkit.training.rounds import Result, Round

_NAMES = ("prediction", "replicates")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint holds: finished trials, and the round that was under way."""

    results: list[Result]
    rounds: int
    work: float
    recipes: list[Cocktail]
    origins: list[Origin]
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


def pack(
    results: Sequence[Result], current: Round | None, rounds: int, work: float
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values of a search in any state."""
    tensors: dict[str, Tensor] = {}
    for index, result in enumerate(results):
        tensors |= {f"result.{index}.{name}": getattr(result, name) for name in _NAMES}
        tensors |= {f"result.{index}.weights.{name}": w for name, w in result.weights.items()}
    values: dict[str, Any] = {
        "trials": [asdict(result.trial) for result in results],
        "rounds": rounds,
        "work": work,
        "recipes": [],
    }
    if current is not None:
        held, state = current.state()
        tensors |= {f"round.{name}": value for name, value in held.items()}
        values["recipes"] = [asdict(cocktail) for cocktail in current.cocktails]
        values["origins"] = list(current.origins)
        values["round"] = state
    return tensors, values


def unpack(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Saved:
    """The reverse of `pack`; KeyError or TypeError for what `pack` did not write."""
    results = []
    for index, trial in enumerate(values["trials"]):
        held = _under(tensors, f"result.{index}.")
        results.append(
            Result(
                trial_of(trial), held["prediction"], held["replicates"], _under(held, "weights.")
            )
        )
    return Saved(
        results=results,
        rounds=values["rounds"],
        work=values["work"],
        recipes=[Cocktail(**recipe) for recipe in values["recipes"]],
        origins=values.get("origins", []),
        tensors=_under(tensors, "round."),
        values=values.get("round", {}),
    )


def trial_of(values: Mapping[str, Any]) -> Trial:
    """A trial from its plain values."""
    curves = tuple(
        Curve(**{name: _tuple(value) for name, value in curve.items()})
        for curve in values["curves"]
    )
    rest = {
        "cocktail": Cocktail(**values["cocktail"]),
        "losses": tuple(values["losses"]),
        "curves": curves,
    }
    return Trial(**{**values, **rest})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
