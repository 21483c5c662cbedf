"""Which rows judge: cross-validation folds for small tables, one holdout for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.kernel import Stream

_CROSS_VALIDATED = 10_000
"""From this many rows a single holdout judges as finely as folds, at a fifth of the cost."""
_HOLDOUT = 0.15
_HOLDOUT_ROWS = 20_000
_FEW = 500
"""Below this many rows each one counts: eight folds train on 7/8 of them."""


def split(truth: Tensor, key: int) -> list[Tensor]:
    """Validation rows of each fold; one fold means a holdout.

    Class codes are stratified; values are stratified by their order, so that each fold spans
    the target's range.
    """
    rows = len(truth)
    order = Stream(key).permutation(rows)
    order = order[truth[order].argsort(stable=True)]
    if rows >= _CROSS_VALIDATED:
        count = min(round(rows * _HOLDOUT), _HOLDOUT_ROWS)
        picked = torch.linspace(0, rows - 1, count).round().long()
        return [order[picked].sort().values]
    folds = max(2, min(8 if rows < _FEW else 5, rows // 2))
    place = torch.arange(rows) % folds
    return [order[place == fold].sort().values for fold in range(folds)]
