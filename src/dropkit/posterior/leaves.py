"""The draws of one tensor: kept, or streamed into sums; the same questions to both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.accumulation import MOST_CLASSES, Central, Classes
from dropkit.posterior.entropies import entropy, log_probabilities, wide

_AT_ONCE = 1 << 22
"""Numbers looked at in one go: 32 MiB in float64."""

_UNEVEN = 0.01
"""How far the sum of probabilities may be from 1: what bfloat16 rounds off."""


@dataclass(frozen=True, slots=True)
class Form:
    """What one draw is."""

    outputs: str
    axis: int
    """Of the classes, counted from the end of one draw."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    name: str = ""
    """Where it hangs in the tree of outputs."""


class Leaf(Protocol):
    """Draws of one tensor."""

    @property
    def form(self) -> Form:
        """What one draw is."""

    @property
    def count(self) -> int:
        """How many draws."""

    @property
    def central(self) -> Central:
        """Mean and higher moments of the outputs."""

    @property
    def classes(self) -> Classes:
        """Mean probabilities, mean entropy and votes."""

    @property
    def kept(self) -> Tensor:
        """The draws (T, ...)."""

    def spread(self, weights: Tensor, of_entropy: float) -> Tensor:
        """Variance over draws of sum(weights * p) + of_entropy * H(p)."""


class Kept:
    """Draws that are there."""

    def __init__(self, samples: Tensor, form: Form) -> None:
        self.kept = samples
        self.form = form

    @property
    def count(self) -> int:
        """How many draws."""
        return len(self.kept)

    @cached_property
    def central(self) -> Central:
        """Mean and higher moments of the outputs."""
        check_real(self.form)
        return reduce(Central.merged, map(Central.of, self._parts()))

    @cached_property
    def classes(self) -> Classes:
        """Mean probabilities, mean entropy and votes."""
        check_classes(self.form)
        parts = (Classes.of(part, self.form.outputs, self.form.axis) for part in self._parts())
        return reduce(Classes.merged, parts)

    def spread(self, weights: Tensor, of_entropy: float) -> Tensor:
        """Variance over draws of sum(weights * p) + of_entropy * H(p)."""
        scores = []
        for part in self._parts():
            logs = log_probabilities(part, self.form.outputs, self.form.axis)
            p = logs.exp()
            weighted = torch.where(p == 0, torch.zeros_like(p), p * weights).sum(-1)
            scores.append(weighted + of_entropy * entropy(logs))
        return torch.cat(scores).var(0)

    def _parts(self) -> Iterator[Tensor]:
        many = max(1, _AT_ONCE // max(1, self.kept[0].numel()))
        return iter(torch.split(self.kept, many))


@dataclass(frozen=True, slots=True)
class Streamed:
    """Draws of which sums are left."""

    form: Form
    count: int
    of_outputs: Central | None
    """None: integers, which have no mean."""
    of_classes: Classes | None
    """None: values."""

    @classmethod
    def of(cls, draws: Tensor, form: Form) -> Streamed:
        """Of draws (k, ...)."""
        real = form.dtype.is_floating_point
        grouped = real and form.outputs != "values" and len(form.shape) >= -form.axis
        return cls(
            form, len(draws), Central.of(draws) if real else None,
            Classes.of(draws, form.outputs, form.axis) if grouped else None,
        )  # fmt: skip

    def merged(self, other: Streamed) -> Streamed:
        """Of the draws of both."""
        outputs, classes = self.of_outputs, self.of_classes
        if outputs is not None and other.of_outputs is not None:
            outputs = outputs.merged(other.of_outputs)
        if classes is not None and other.of_classes is not None:
            classes = classes.merged(other.of_classes)
        return Streamed(self.form, self.count + other.count, outputs, classes)

    @property
    def kept(self) -> Tensor:
        """The draws, which are not there."""
        raise SettingError(
            "expected draws that were kept; got their moments alone, of which this cannot be "
            "computed. Try keeping the draws"
        )

    @property
    def central(self) -> Central:
        """Mean and higher moments of the outputs."""
        check_real(self.form)
        assert self.of_outputs is not None  # for mypy: so it is where they are real
        return self.of_outputs

    @property
    def classes(self) -> Classes:
        """Mean probabilities, mean entropy and votes."""
        check_classes(self.form)
        assert self.of_classes is not None  # for mypy: so it is where there are classes
        return self.of_classes

    def spread(self, weights: Tensor, of_entropy: float) -> Tensor:
        """Variance over draws of sum(weights * p) + of_entropy * H(p)."""
        classes = self.classes
        if classes.products is None:
            raise SettingError(
                f"expected at most {MOST_CLASSES} classes, or draws that were kept, for this "
                f"Monte Carlo error; got moments of {weights.shape[-1]} classes. Try keeping the "
                "draws"
            )
        last = torch.full_like(weights[..., :1], of_entropy)
        # A class that no draw gives any probability adds nothing, whatever its weight.
        finite = torch.where(classes.mean[..., :-1] == 0, torch.zeros_like(weights), weights)
        vector = torch.cat([finite, last], -1)
        sums = torch.einsum("...i,...ij,...j->...", vector, classes.products, vector)
        return sums.clamp_min(0) / (self.count - 1)


def form_of(draws: Tensor, outputs: str, class_axis: int, name: str = "") -> Form:
    """What one of the draws (T, ...) is."""
    shape = tuple(draws.shape[1:])
    axis = class_axis - len(shape) if class_axis >= 0 else class_axis
    return Form(outputs, axis, shape, draws.dtype, name)


def check_real(form: Form) -> None:
    """The outputs have a mean.

    Raises:
        SettingError: they are integers, booleans or complex numbers.
    """
    if not form.dtype.is_floating_point:
        raise SettingError(
            f"draws{form.name}: expected real numbers, which have a mean and a spread; got "
            f"{form.dtype}. Of token ids and other choices, try variation_ratio"
        )


def check_classes(form: Form) -> None:
    """The outputs are of classes.

    Raises:
        SettingError: they are values, or lack the axis of the classes.
    """
    if form.outputs == "values":
        raise SettingError(
            f'draws{form.name}: expected outputs of classes; got outputs="values". Try '
            'outputs="logits" or outputs="probabilities", with class_axis the axis of the classes '
            "in one draw"
        )
    check_real(form)
    if not -len(form.shape) <= form.axis < 0:
        raise SettingError(
            f"draws{form.name}: expected an axis of classes in each draw; got draws of shape "
            f"{form.shape}. Try another class_axis, or the part of the outputs that has it: "
            'draws["logits"]'
        )


def check_probabilities(draws: Tensor, form: Form) -> None:
    """Draws that are called probabilities are shares of 1.

    Raises:
        SettingError: there are fewer than two classes, a share outside [0, 1], or another sum.
    """
    if form.outputs != "probabilities" or not form.dtype.is_floating_point:
        return
    if not -len(form.shape) <= form.axis < 0:
        return  # a part without classes: said when it is asked for them
    if form.shape[form.axis] < 2:
        raise SettingError(
            f"draws{form.name}: expected probabilities of two or more classes; got an axis of "
            f"{form.shape[form.axis]}. Of one probability p, try torch.stack([1 - p, p], -1)"
        )
    sums = wide(draws.sum(form.axis, dtype=torch.float32))
    off = float((sums - 1).abs().nan_to_num(0.0).max()) if sums.numel() else 0.0
    outside = bool(((draws < 0) | (draws > 1 + _UNEVEN)).any())
    if off > _UNEVEN or outside:
        what = "one outside [0, 1]" if outside else f"a sum that is off by {off:.3g}"
        raise SettingError(
            f"draws{form.name}: expected probabilities that sum to 1 along class_axis; got {what}. "
            'Try outputs="logits", or another class_axis'
        )
