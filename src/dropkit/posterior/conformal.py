"""Intervals and sets that hold the truth as often as was asked, whatever the model is worth.

What makes them hold is that the rows which they are fitted on and the rows which they are asked of
come from one source, in no order; nothing is asked of the model, the law or the number of draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel import Stream, derive
from dropkit.posterior.leaves import Leaf, check_classes
from dropkit.posterior.montecarlo import exactly
from dropkit.posterior.truths import true_classes, true_values

if TYPE_CHECKING:
    from dropkit.posterior.draws import Draws

Score = Literal["auto", "scaled", "plain", "lac", "aps"]
_SCORES = {"values": ("scaled", "plain"), "classes": ("lac", "aps")}
_SHARES, _FIT, _ASK = 0x616C6F74, 0, 1
"""Words of the keys: apart from those of masks, and the rows of the fit from later ones."""


@dataclass(frozen=True, eq=False, slots=True)
class Conformal:
    """What was fitted; gives intervals of values, and sets of classes."""

    score: str
    level: float
    """The share of rows that are to hold the truth."""
    rows: int
    """How many rows it was fitted on."""
    threshold: Tensor
    """The largest score that is let in: one for each output."""
    expected: float
    """The share of rows that hold the truth on average over fits, if no two scores are equal."""
    floor: float
    key: int
    shape: tuple[int, ...]
    """Of a row: intervals and sets are of rows alike."""

    def interval(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """The ends of an interval for each output of rows, in the unit of the outputs.

        Raises:
            SettingError: it was fitted on classes, or on rows of another shape.
        """
        if self.score not in _SCORES["values"]:
            raise SettingError("interval: expected a fit on values; got one on classes. Try sets")
        leaf = draws.single
        if leaf.form.outputs != "values":
            raise SettingError(f"interval: expected draws of values; got {leaf.form.outputs}")
        self._check(leaf.form.shape[1:])
        middle = leaf.central.mean
        reach = self._reach(draws, leaf)
        return middle - reach, middle + reach

    def _reach(self, draws: Draws, leaf: Leaf) -> Tensor:
        if self.score == "plain":
            return self.threshold.expand_as(leaf.central.mean)
        wide = _scale(draws, leaf, self.floor)
        reach = self.threshold * wide
        return torch.where(self.threshold.isinf(), self.threshold.expand_as(wide), reach)

    def sets(self, draws: Draws) -> Tensor:
        """Which classes each set holds: of the shape of one draw, True where a class is in it.

        Raises:
            SettingError: it was fitted on values, or on rows of another shape.
        """
        if self.score not in _SCORES["classes"]:
            raise SettingError("sets: expected a fit on classes; got one on values. Try interval")
        leaf = draws.single
        check_classes(leaf.form)
        p = leaf.classes.mean[..., :-1]
        _check_numbers(p)
        self._check(tuple(p.shape[1:]))
        scores = 1 - p if self.score == "lac" else _climb(p, _chances(self.key, _ASK, p))
        return (scores <= self.threshold.unsqueeze(-1)).movedim(-1, leaf.form.axis)

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape != self.shape:
            raise SettingError(
                f"draws: expected rows of shape {self.shape}, as those of the fit; got {shape}"
            )


def conformal(
    draws: Draws,
    targets: Tensor,
    level: float = 0.9,
    *,
    score: Score = "auto",
    floor: float = 0.0,
    key: int = 0,
) -> Conformal:
    r"""Fit intervals, or sets of classes, that hold the truth in a share of rows.

    .. math:: \hat q = s_{(k)}, \quad k = \lceil (n + 1) \cdot level \rceil

    of the n scores in order. A new row then holds the truth with a probability of at least `level`
    and, if no two scores are equal, of k / (n + 1); on average over fits and rows. Of one fit on n
    rows the share of new rows is a draw from Beta(k, n + 1 - k).

    Args:
        draws: of rows that were not trained on, along the first axis of one draw; moments suffice.
        targets: true values of the shape of one draw, or true classes without the class axis.
        level: the share, between 0 and 1. Each output of a row has its own threshold and holds its
            own truth in this share.
        score: "scaled", \|y - mean\| / (std + floor), so that an interval is as wide as the
            draws are uncertain (the std includes the noise of draws that have one); "plain",
            \|y - mean\|; "lac", 1 - p(y), the smallest sets, which may be empty; "aps", the
            probability of all that is likelier than y, and of y a random share, for sets that
            also hold within easy and hard rows more nearly. "auto" is "scaled" or "lac".
        floor: added to the std, in the unit of the targets: fixed beforehand, or from other rows.
        key: names the random shares of "aps".

    Raises:
        SettingError: too few rows for the level (says how many), a score that does not fit the
            outputs, targets of another shape.

    >>> import torch
    >>> from dropkit.posterior.draws import Draws
    >>> draws = Draws.of(torch.tensor([[-1.0], [1.0]]).expand(2, 9))
    >>> fit = conformal(draws, torch.arange(9.0), level=0.8, score="plain")
    >>> fit.threshold, fit.expected
    (tensor(7., dtype=torch.float64), 0.8)

    Source: Vovk, Gammerman & Shafer 2005; Lei et al. 2018 for the scaled score; Sadinle, Lei &
    Wasserman 2019 for LAC; Romano, Sesia & Candès 2020 for APS.
    """
    chosen = _choose(draws, score)
    if not 0 <= floor < math.inf:
        raise SettingError(f"floor: expected 0 or more; got {floor}")
    scores = _scores(draws, targets, chosen, floor, key)
    if not scores.dim():
        raise SettingError("draws: expected rows along the first axis; got draws of one number")
    rows = len(scores)
    rank = rank_of(rows, level)
    threshold = scores.sort(0).values[rank - 1]
    return Conformal(
        chosen, level, rows, threshold, rank / (rows + 1), floor, key, tuple(scores.shape[1:])
        if draws.outputs == "values"
        else (*scores.shape[1:], draws.single.form.shape[draws.single.form.axis]),
    )  # fmt: skip


def rank_of(rows: int, level: float) -> int:
    """Which of the ordered scores is the threshold.

    Raises:
        SettingError: too few rows: then only what lets in everything would hold.

    >>> rank_of(9, 0.9), rank_of(99, 0.9)
    (9, 90)
    """
    share = exactly(level)
    rank = math.ceil((rows + 1) * share)
    if rank > rows:
        needed = math.ceil(share / (1 - share))
        raise SettingError(
            f"targets: expected {needed} or more rows for the level {level:g}; got {rows}. Try "
            "more rows, or a lower level"
        )
    return rank


def _choose(draws: Draws, score: str) -> str:
    fitting = _SCORES["values" if draws.outputs == "values" else "classes"]
    chosen = fitting[0] if score == "auto" else score
    if chosen not in fitting:
        raise SettingError(
            f'score: expected one of {", ".join(fitting)} for outputs="{draws.outputs}"; got '
            f"{score!r}"
        )
    return chosen


def _scores(draws: Draws, targets: Tensor, score: str, floor: float, key: int) -> Tensor:
    if draws.outputs == "values":
        leaf, truth = true_values(draws, targets)
        _check_numbers(leaf.central.mean)
        off = (leaf.central.mean - truth).abs()
        if score == "plain":
            return off
        ratio = off / _scale(draws, leaf, floor)
        return torch.where(off == 0, torch.zeros_like(off), ratio)  # 0 / 0: nothing is off
    leaf, truth = true_classes(draws, targets)
    p = leaf.classes.mean[..., :-1]
    _check_numbers(p)
    levels = 1 - p if score == "lac" else _climb(p, _chances(key, _FIT, p))
    return levels.gather(-1, truth.unsqueeze(-1)).squeeze(-1)


def _scale(draws: Draws, leaf: Leaf, floor: float) -> Tensor:
    if leaf.count < 2:
        raise SettingError(
            f"score: expected two or more draws for a scaled score; got {leaf.count}. Try "
            'score="plain"'
        )
    variance = leaf.central.m2 / (leaf.count - 1)
    return (variance if draws.noise is None else variance + draws.noise).sqrt() + floor


def _climb(p: Tensor, chances: Tensor) -> Tensor:
    """Of each class: the probability of all before it, likeliest first, and a share of its own."""
    order = p.argsort(stable=True, dim=-1, descending=True)
    ordered = p.gather(-1, order)
    before = ordered.cumsum(-1) - ordered * (1 - chances)
    return torch.zeros_like(p).scatter_(-1, order, before)


def _chances(key: int, word: int, p: Tensor) -> Tensor:
    """A number from [0, 1) for each row, and each output in it."""
    stream = Stream(derive(key, _SHARES, word), p.device)
    return stream.uniform(tuple(p.shape[:-1])).double().unsqueeze(-1)


def _check_numbers(x: Tensor) -> None:
    bad = (~x.isfinite()).reshape(len(x), -1).any(1).nonzero() if x.dim() else x[:0]
    if len(bad):
        raise SettingError(
            f"draws: expected finite outputs in every row; got NaN or infinity in row {int(bad[0])}"
        )
