"""Which rows judge: each once, each class everywhere, large tables by a holdout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dropkit.training.folds import split


def classes(rows: int, shares: tuple[float, ...]) -> Tensor:
    edges = (torch.tensor(shares).cumsum(0) * rows).round()
    codes = torch.bucketize(torch.arange(rows).float(), edges, right=True)
    return codes.clamp_max(len(shares) - 1)[
        torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    ]


@pytest.mark.parametrize("rows", [4, 5, 7, 16, 60, 499, 500, 501, 2003, 9999])
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_folds_are_a_partition(rows: int, kind: str) -> None:
    """Mutants: rows that judge twice or never; a fold without rows to train on or to judge."""
    truth = classes(rows, (0.5, 0.5)) if kind == "classes" else torch.linspace(-1, 1, rows).exp()
    folds = split(truth, 1)
    assert torch.equal(torch.cat(folds).sort().values, torch.arange(rows))
    sizes = [len(fold) for fold in folds]
    assert len(folds) >= 2 and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert all(torch.equal(fold, fold.sort().values) for fold in folds)


FOLDS = {
    4: 2, 5: 2, 6: 3, 16: 8, 499: 8, 500: 5, 9_999: 5, 10_000: 4, 49_999: 4, 50_000: 1, 200_000: 1
}  # fmt: skip


@pytest.mark.parametrize("rows, expected", FOLDS.items())
def test_how_many_folds(rows: int, expected: int) -> None:
    assert len(split(torch.arange(rows) % 2, 0)) == expected


@pytest.mark.parametrize("rows", [40, 300, 1000])
def test_every_class_is_spread_over_the_folds(rows: int) -> None:
    """Mutant: folds without regard to the classes, so that a rare one is missing in training."""
    truth = classes(rows, (0.7, 0.25, 0.05))
    folds = split(truth, 3)
    for code in range(3):
        counts = [int((truth[fold] == code).sum()) for fold in folds]
        assert max(counts) - min(counts) <= 1


def test_a_class_of_two_rows_is_always_in_training() -> None:
    truth = torch.zeros(30, dtype=torch.int64)
    truth[[4, 9]] = 1
    for key in range(50):
        for fold in split(truth, key):
            assert (truth[fold] == 1).sum() <= 1


def test_each_fold_spans_the_target_s_range() -> None:
    truth = torch.rand(200, generator=torch.Generator().manual_seed(0)).exp()
    for fold in split(truth, 0):
        assert truth[fold].quantile(0.5) == pytest.approx(float(truth.median()), rel=0.1)


@pytest.mark.parametrize("rows, judged", [(50_000, 7500), (200_000, 20_000)])
def test_large_tables_are_judged_by_a_holdout(rows: int, judged: int) -> None:
    truth = classes(rows, (0.8, 0.2))
    (holdout,) = split(truth, 0)
    assert len(holdout) == len(holdout.unique()) == judged
    assert int(holdout.min()) >= 0 and int(holdout.max()) < rows
    assert float((truth[holdout] == 1).double().mean()) == pytest.approx(0.2, abs=1e-3)


def test_the_smallest_table() -> None:
    truth = torch.tensor([0, 1, 0, 1])
    for key in range(20):
        for fold in split(truth, key):
            assert sorted(truth[fold].tolist()) == [0, 1]


def test_a_key_names_the_folds() -> None:
    """Mutant: folds in order of the rows, which may be sorted by time."""
    truth = torch.arange(100) % 3
    same, again, other = split(truth, 1), split(truth, 1), split(truth, 2)
    assert all(torch.equal(one, two) for one, two in zip(same, again, strict=True))
    assert not torch.equal(same[0], other[0])
