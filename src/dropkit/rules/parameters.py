"""Which parameters of a model an optimizer decays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dropkit.rules.base import NotApplicable

if TYPE_CHECKING:
    from dropkit.inspection.evidence import Evidence

_BIAS = re.compile(r"(^|[._])bias(es)?(_(ih|hh|k|v)(_l\d+(_reverse)?)?)?$|in_proj_bias$")


def groups(evidence: Evidence) -> list[tuple[list[str], float]]:
    """(names of parameters of the model, weight decay) of each group that has any.

    Raises:
        NotApplicable: the optimizer trains none of them.
    """
    names = {id(parameter): name for name, parameter in evidence.model.named_parameters()}
    found = []
    for group in getattr(evidence.optimizer, "param_groups", ()):
        own = [names[id(p)] for p in group["params"] if id(p) in names]
        if own:
            found.append((own, float(group.get("weight_decay") or 0.0)))
    if not found:
        raise NotApplicable("optimizer= trains no parameter of this model")
    return found


def norms(evidence: Evidence) -> set[str]:
    """Names of the parameters of normalization layers."""
    return {
        f"{path}.{name}" if path else name
        for path, module in evidence.model.named_modules()
        if "norm" in type(module).__name__.lower() and not list(module.children())
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() < 2 or name in ("weight", "bias")
    }


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by its name."""
    return _BIAS.search(name) is not None
