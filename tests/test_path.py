"""Stochastic depth: by sample, by batch, by subset, by layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import dropkit.functional as F
from dropkit import nn
from dropkit.errors import SettingError
from workbench import within


def test_rows_are_dropped_whole_and_scaled() -> None:
    y = F.drop_path(torch.ones(5000, 2, 3), 0.2, key=1)
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert set(y.flatten().tolist()) == {0.0, 1.25}
    assert within(int((y[:, 0, 0] == 0).sum()), 5000, 0.2)
    unscaled = nn.DropPath(0.2, False)(torch.ones(50, 2), key=1)
    assert set(unscaled.flatten().tolist()) == {0.0, 1.0}


def test_a_batch_is_dropped_whole() -> None:
    layer = nn.StochasticDepth(0.4, "batch")
    gone = [bool((layer(torch.ones(3, 2), key=key) == 0).all()) for key in range(500)]
    assert within(sum(gone), 500, 0.4)
    kept = layer(torch.ones(3, 2), key=gone.index(False))
    assert torch.equal(kept, torch.full((3, 2), 1 / 0.6))


def test_the_second_half_of_a_batch_is_dropped_with_the_first() -> None:
    for key in range(20):
        halves = (
            F.stochastic_depth(torch.ones(2, 3), 0.5, "batch", key=key, offset=at) for at in (0, 6)
        )
        assert torch.equal(*halves)


def test_classic_scales_outside_of_training() -> None:
    layer = nn.StochasticDepth(0.25, "row", scaling="classic").eval()
    assert torch.equal(layer(torch.ones(4, 2)), torch.full((4, 2), 0.75))


def test_timms_names_and_positions() -> None:
    layer = nn.DropPath(0.1)
    layer.drop_prob = 0.3
    assert (layer.p, layer.drop_prob) == (0.3, 0.3)
    assert nn.DropPath(drop_prob=0.2, scale_by_keep=False).p == 0.2
    assert nn.DropPath().p == 0.0


@pytest.mark.parametrize(
    ("rows", "p", "kept"), [(10, 0.3, 7), (10, 0.24, 8), (3, 0.9, 1), (1, 0.5, 1)]
)
def test_a_subset_has_its_exact_count(rows: int, p: float, kept: int) -> None:
    """Mutants: the count rounded down; a scale of 1 / (1 - p) for rows / kept."""
    seen: list[int] = []

    def branch(some: Tensor) -> Tensor:
        seen.append(len(some))
        return some

    x = torch.ones(rows, 2)
    total = torch.zeros(rows)
    for key in range(400):
        y = F.drop_path_subset(x, branch, p, key=key) - x
        assert y.sum() == pytest.approx(2 * rows)
        total += (y[:, 0] != 0).float()
    assert set(seen) == {kept}
    assert all(within(int(count), 400, kept / rows) for count in total)


def test_a_subset_flows_back_only_through_what_was_kept() -> None:
    x = torch.zeros(6, 2, requires_grad=True)
    y = F.drop_path_subset(x, lambda some: 3 * some, 0.5, key=2)
    y.sum().backward()
    assert sorted(x.grad[:, 0].tolist()) == [1.0] * 3 + [7.0] * 3


def test_the_ends_of_a_subset() -> None:
    x = torch.ones(4, 2)

    def never(some: Tensor) -> Tensor:
        raise AssertionError("the branch was run")

    assert F.drop_path_subset(x, never, 1.0) is x
    assert F.drop_path_subset(torch.ones(0, 2), never, 0.5).shape == (0, 2)
    for p, training in ((0.0, True), (0.9, False)):
        assert torch.equal(F.drop_path_subset(x, torch.neg, p, training), x - x)
    with pytest.raises(SettingError, match="branch: expected a result of the shape"):
        F.drop_path_subset(x, lambda some: some[:1, :1], 0.5)


def test_depth_rates_grow_from_none_to_all() -> None:
    assert F.depth_rates(0.3, 4) == pytest.approx(torch.linspace(0, 0.3, 4).tolist())
    assert F.depth_rates(0.3, 1) == (0.3,)
    with pytest.raises(SettingError, match="depth: expected a number of branches"):
        F.depth_rates(0.3, 0)


# ---- LayerDrop


class Tag(torch.nn.Module):
    """Adds a power of two, and counts its calls."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.worth, self.calls = 2.0**number, 0

    def forward(self, x: Tensor, times: int = 1) -> Tensor:
        self.calls += 1
        return x + times * self.worth


def test_layers_are_skipped_at_the_rate_and_not_run() -> None:
    stack = nn.LayerDrop(map(Tag, range(5)), 0.3)
    ran = 0
    for key in range(300):
        kept = stack.kept(key=key)
        ran += sum(kept)
        worth = math.fsum(2.0**number for number, on in enumerate(kept) if on)
        assert float(stack(torch.zeros(()), 2, key=key)) == 2 * worth
    assert sum(layer.calls for layer in stack) == ran
    assert within(1500 - ran, 1500, 0.3)


def test_a_stack_loads_what_its_like_saved() -> None:
    layers = [torch.nn.Linear(2, 2) for _ in range(3)]
    stack = nn.LayerDrop((torch.nn.Linear(2, 2) for _ in range(3)), 0.5)
    stack.load_state_dict(torch.nn.Sequential(*layers).state_dict())
    x = torch.ones(1, 2)
    assert torch.equal(stack.eval()(x), torch.nn.Sequential(*layers)(x))
    assert len(list(stack.train())) == 3


def test_compiled_every_layer_runs_and_the_values_are_the_same() -> None:
    torch.compiler.reset()
    stack = nn.LayerDrop((torch.nn.Linear(2, 2) for _ in range(4)), 0.5)
    x = torch.ones(1, 2)
    compiled = torch.compile(stack, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, key=3), stack(x, key=3))
    with pytest.raises(SettingError, match="has to be between 0 and 1"):
        nn.LayerDrop([], 1.5)
