"""What a user may ask of sampling, looked at before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import index
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from dropkit.errors import SettingError
from dropkit.posterior.choosing import Rates
from dropkit.posterior.entropies import Outputs
from dropkit.posterior.running import Strategy

Scope = Literal["element", "batch", "fixed"]


class Goal(NamedTuple):
    """How certain a quantity is to be."""

    quantity: str
    tolerance: float

    def wanted(self, count: int, error: float) -> int:
        """How many draws more are done before the error is looked at again.

        As many as there are; fewer if the error, which falls as one over their root, needs no more.
        """
        needed = count * min((error / self.tolerance) ** 2, 2.0)
        return max(math.ceil(needed) - count, 1)


def check_model(model: object) -> nn.Module:
    """A module whose values are there, and whole."""
    if not isinstance(model, nn.Module):
        raise SettingError(f"model: expected a torch.nn.Module; got {type(model).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise SettingError(f"model: expected values; {name} is on the meta device and has none")
        if type(tensor) not in (Tensor, nn.Parameter) and hasattr(tensor, "device_mesh"):
            raise SettingError(
                f"model: expected whole tensors; {name} is a shard, {type(tensor).__name__}. Try "
                "a replica that holds its full_tensor()"
            )
    return model


def check_count(draws: Any, most: Any) -> int:
    """How many draws, at most."""
    count = _whole(most if draws == "auto" else draws)
    if count is None or count < 2:
        raise SettingError(
            f"draws: expected 2 or more, since one draw does not vary, or 'auto'; got {draws!r}"
        )
    return count


def check_goal(draws: Any, quantity: str, tolerance: Any) -> Goal | None:
    """When to stop; None: when all draws are done."""
    is_number = isinstance(tolerance, float | int) and not isinstance(tolerance, bool)
    if draws == "auto" and not (is_number and tolerance > 0):
        raise SettingError(
            "tolerance: expected the largest Monte Carlo error to stop at, above 0, with "
            f"draws='auto'; got {tolerance!r}"
        )
    if draws != "auto" and tolerance is not None:
        raise SettingError(
            f"tolerance: expected none with draws={draws!r}, which are done in any case; got "
            f"{tolerance!r}. Try draws='auto'"
        )
    return Goal(quantity, float(tolerance)) if draws == "auto" else None


def check_outputs(outputs: Any, class_axis: Any) -> int:
    """What the outputs are, and along which axis its classes lie."""
    if outputs not in get_args(Outputs):
        raise SettingError(
            f"outputs: expected one of {', '.join(get_args(Outputs))}; got {outputs!r}"
        )
    axis = _whole(class_axis)
    if axis is None:
        raise SettingError(f"class_axis: expected a whole number; got {class_axis!r}")
    return axis


def check_names(kwargs: Mapping[str, Any], keywords: Any) -> dict[str, Any]:
    """What the model is called with by name."""
    if keywords is None:
        return dict(kwargs)
    if not isinstance(keywords, Mapping):
        raise SettingError(f"keywords: expected a mapping of names; got {keywords!r}")
    twice = kwargs.keys() & keywords.keys()
    if twice:
        raise SettingError(
            f"keywords: expected other names than beside it; got {min(twice)!r} twice"
        )
    return {**kwargs, **keywords}


def check_ways(strategy: Any, memory: Any) -> None:
    """How it is to run."""
    if strategy not in get_args(Strategy):
        raise SettingError(f"strategy: expected auto, loop, prefix or fold; got {strategy!r}")
    if memory is not None and _whole(memory) is None:
        raise SettingError(f"memory: expected bytes, a whole number; got {memory!r}")


def check_sites(sites: Any, rates: Any, insert: Any, scope: Any, axis: Any, method: Any) -> None:
    """Which sites are to act, and how; whether the model has them is seen later."""
    _check_choice(sites)
    _check_rates("rates", rates)
    _check_rates("insert", insert)
    if insert is not None and rates is not None:
        raise SettingError("rates: expected none beside insert, which says its own; got both")
    if scope not in get_args(Scope):
        raise SettingError(f"mask_scope: expected element, batch or fixed; got {scope!r}")
    if _whole(axis) is None:
        raise SettingError(f"batch_axis: expected a whole number; got {axis!r}")
    if not isinstance(method, str):
        raise SettingError(f"method: expected a name; got {method!r}")


def _check_choice(sites: Any) -> None:
    if sites is None or isinstance(sites, str) or callable(sites):
        return
    if not isinstance(sites, list | tuple | set | frozenset):
        raise SettingError(f"sites: expected roles, paths, or a function of a site; got {sites!r}")
    for name in sites:
        if not isinstance(name, str):
            raise SettingError(f"sites: expected roles and paths; got {name!r}")


def _check_rates(option: str, rates: Rates) -> None:
    if rates is None:
        return
    for rate in rates.values() if isinstance(rates, Mapping) else [rates]:
        is_number = isinstance(rate, float | int) and not isinstance(rate, bool)
        if not is_number or not 0 <= rate <= 1:
            raise SettingError(f"{option}: expected rates from 0 to 1; got {rate!r}")


def _whole(value: Any) -> int | None:
    """A whole number, also NumPy's; None: it is none."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    return index(value)
