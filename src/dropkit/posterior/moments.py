"""Moments of draws that need not be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.draws import Draws
from dropkit.posterior.entropies import Outputs
from dropkit.posterior.leaves import Streamed, check_probabilities, form_of
from dropkit.posterior.soundness import check_counts, check_outputs
from dropkit.posterior.trees import Flat, flatten


class Moments:
    """Adds up draws, some at a time: what comes out does not hang on how many at a time.

    Sums are in float64, and of what is off the running mean, so that a spread of 0.01 about 1000
    survives. Of classes it also keeps mean probabilities, mean entropy and votes, and up to 32
    classes what their Monte Carlo errors need.

    Args:
        outputs: "values", "logits" or "probabilities".
        class_axis: the axis of the classes in one draw.

    >>> import torch
    >>> moments = Moments()
    >>> for chunk in torch.arange(6.0).view(3, 2, 1):
    ...     moments.add(chunk)
    >>> moments.draws().mean, moments.draws().count
    (tensor([2.5000], dtype=torch.float64), 6)
    """

    def __init__(self, outputs: Outputs = "values", class_axis: int = -1) -> None:
        check_outputs(outputs)
        self._outputs: Outputs = outputs
        self._class_axis = class_axis
        self._flat: Flat | None = None

    @property
    def count(self) -> int:
        """How many draws were added."""
        leaves = self._flat.leaves if self._flat else ()
        return next((leaf.count for leaf in leaves if isinstance(leaf, Streamed)), 0)

    def add(self, chunk: Any) -> None:
        """Add draws: a tensor of shape (k, ...), or a tree of such.

        Raises:
            SettingError: another structure or shape than before.
        """
        flat = flatten(chunk)
        check_counts(flat)
        self._join(
            Flat(tuple(map(self._streamed, flat.leaves, flat.names)), flat.names, flat.refill)
        )

    def merge(self, other: Moments) -> None:
        """Add what another process added up.

        Raises:
            SettingError: moments of other outputs.
        """
        ours, theirs = (one._outputs + str(one._class_axis) for one in (self, other))
        if ours != theirs:
            raise SettingError(
                f"merge: expected moments of {self._outputs} with class_axis {self._class_axis}; "
                f"got those of {other._outputs} with {other._class_axis}"
            )
        if other._flat is not None:
            self._join(other._flat)

    def draws(self, key: int = 0, sites: Sequence[Any] = ()) -> Draws:
        """What the draws say up to here, without the draws.

        Raises:
            SettingError: none was added.
        """
        if self._flat is None:
            raise SettingError("moments: expected one or more draws; got none. Try add(chunk)")
        return Draws(self._flat, self._outputs, self._class_axis, key, sites)

    def _streamed(self, leaf: Any, name: str) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        form = form_of(leaf, self._outputs, self._class_axis, name)
        check_probabilities(leaf, form)
        return Streamed.of(leaf, form)

    def _join(self, new: Flat) -> None:
        old = self._flat
        if old is None:
            self._flat = new
            return
        if _forms(old) != _forms(new):
            raise SettingError(
                f"moments: expected draws as before, {_forms(old)}; got {_forms(new)}"
            )
        pairs = zip(old.leaves, new.leaves, strict=True)
        joined = tuple(a.merged(b) if isinstance(a, Streamed) else a for a, b in pairs)
        self._flat = Flat(joined, old.names, old.refill)


def _forms(flat: Flat) -> str:
    shapes = (
        f"{leaf.form.shape} of {leaf.form.dtype}" if isinstance(leaf, Streamed) else "no tensor"
        for leaf in flat.leaves
    )
    return ", ".join(
        f"{name} {shape}".strip() for name, shape in zip(flat.names, shapes, strict=True)
    )
