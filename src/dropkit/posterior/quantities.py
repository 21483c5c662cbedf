"""The quantities of draws by name, each with its estimate and its Monte Carlo error."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior import montecarlo

Asked = Callable[..., Tensor]
"""Of a leaf, and what the quantity is asked with."""

_KNOWN: dict[str, tuple[Asked, Asked]] = {
    "mean": (montecarlo.mean, montecarlo.mean_error),
    "var": (montecarlo.variance, montecarlo.variance_error),
    "std": (montecarlo.deviation, montecarlo.deviation_error),
    "quantile": (montecarlo.quantile, montecarlo.quantile_error),
    "probabilities": (montecarlo.probabilities, montecarlo.probabilities_error),
    "entropy": (montecarlo.total_entropy, montecarlo.total_entropy_error),
    "expected_entropy": (montecarlo.expected_entropy, montecarlo.expected_entropy_error),
    "mutual_information": (montecarlo.information, montecarlo.information_error),
    "variation_ratio": (montecarlo.variation_ratio, montecarlo.variation_ratio_error),
}


def estimate(name: str, outputs: str) -> Asked:
    """What gives a quantity."""
    return _KNOWN[_plain(name, outputs)][0]


def error(name: str, outputs: str) -> Asked:
    """What gives its Monte Carlo standard error.

    Raises:
        SettingError: there is no such quantity, or it has no such error.
    """
    plain = _plain(name, outputs)
    if plain not in _KNOWN:
        known = ", ".join([*_KNOWN, "interval", "epistemic", "aleatoric"])
        raise SettingError(f"error: expected a quantity with one, of {known}; got {name!r}")
    return _KNOWN[plain][1]


def _plain(name: str, outputs: str) -> str:
    """What is meant by the parts of the uncertainty, of these outputs."""
    if name == "epistemic":
        return "var" if outputs == "values" else "mutual_information"
    return "expected_entropy" if name == "aleatoric" and outputs != "values" else name


def check_share(q: float = -1.0) -> None:
    """A quantile is of a share."""
    if not 0 <= q <= 1:
        raise SettingError(f"q: expected a share from 0 to 1; got {q}")
