"""Which rows judge: cross-validation folds for small tables, one holdout for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.kernel import Stream

_FOLDS = ((500, 8), (10_000, 5), (50_000, 4))
"""Folds below so many rows; beyond the last, a holdout judges as finely at a fraction of the cost.
In the smallest tables each row counts: eight folds train on 7/8 of them."""
_HOLDOUT = 0.15
_HOLDOUT_ROWS = 20_000


def split(truth: Tensor, key: int) -> list[Tensor]:
    """Validation rows of each fold; one fold means a holdout.

    Class codes are stratified; values are stratified by their order, so that each fold spans
    the target's range.
    """
    rows = len(truth)
    order = Stream(key).permutation(rows)
    order = order[truth[order].argsort(stable=True)]
    folds = next((folds for limit, folds in _FOLDS if rows < limit), 1)
    if folds == 1:
        count = min(round(rows * _HOLDOUT), _HOLDOUT_ROWS)
        picked = torch.linspace(0, rows - 1, count).round().long()
        return [order[picked].sort().values]
    folds = max(2, min(folds, rows // 2))
    place = torch.arange(rows) % folds
    return [order[place == fold].sort().values for fold in range(folds)]
