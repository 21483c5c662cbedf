"""DropBlock: the rate is exact at every pixel, for any block and any map."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import dropkit.functional as F
from dropkit import nn
from dropkit.errors import SettingError
from dropkit.functional.block import solved_rate
from dropkit.records import Shard
from workbench import within

Sizes = tuple[int, ...]
CASES: list[tuple[Sizes, Sizes]] = [
    ((9,), (3,)),
    ((9,), (4,)),
    ((1,), (1,)),
    ((3,), (8,)),
    ((5, 7), (3, 3)),
    ((6, 4), (2, 5)),
    ((2, 3), (7, 7)),
    ((14, 14), (7, 7)),
    ((3, 4, 5), (2, 3, 2)),
]
"""Maps and blocks: odd, even, longer than the map, and of sides that differ."""
SAMPLES = 6000


def dropped(maps: Sizes, blocks: Sizes, p: float, *, inside: bool) -> Tensor:
    """Of SAMPLES maps, how many dropped each pixel."""
    x = torch.ones(SAMPLES, 1, *maps)
    return (F.drop_block(x, p, block_size=blocks, inside=inside, key=9) == 0).sum((0, 1))


def covering(maps: Sizes, blocks: Sizes) -> Tensor:
    """By brute force: how many of the blocks that lie within a map cover each pixel."""
    count = torch.zeros(maps)
    sides = [min(pair) for pair in zip(maps, blocks, strict=True)]
    starts = [range(size - side + 1) for size, side in zip(maps, sides, strict=True)]
    for corner in itertools.product(*starts):
        count[tuple(slice(at, at + side) for at, side in zip(corner, sides, strict=True))] += 1
    return count


@pytest.mark.parametrize("p", [0.1, 0.6])
@pytest.mark.parametrize(("maps", "blocks"), CASES)
def test_each_pixel_is_dropped_at_the_rate(maps: Sizes, blocks: Sizes, p: float) -> None:
    for hits in dropped(maps, blocks, p, inside=False).flatten():
        assert within(int(hits), SAMPLES, p)


@pytest.mark.parametrize("p", [0.1, 0.6])
@pytest.mark.parametrize(("maps", "blocks"), CASES)
def test_inside_the_mean_over_pixels_is_the_rate(maps: Sizes, blocks: Sizes, p: float) -> None:
    cover = covering(maps, blocks)
    gamma = solved_rate(p, maps, tuple(map(min, zip(maps, blocks, strict=True))))
    rates = 1 - (1 - gamma) ** cover.double()
    assert float(rates.mean()) == pytest.approx(p, abs=1e-12)
    hits = dropped(maps, blocks, p, inside=True)
    for count, rate in zip(hits.flatten(), rates.flatten(), strict=True):
        assert within(int(count), SAMPLES, float(rate))


@pytest.mark.parametrize(("maps", "blocks"), CASES)
def test_inside_each_pixel_keeps_its_expectation(maps: Sizes, blocks: Sizes) -> None:
    """The scale of a pixel is the inverse of its own probability to be kept."""
    tops = F.drop_block(
        torch.ones(SAMPLES, 1, *maps).double(), 0.4, block_size=blocks, inside=True, key=9
    ).amax((0, 1))
    gamma = solved_rate(0.4, maps, tuple(map(min, zip(maps, blocks, strict=True))))
    assert torch.allclose(tops, (1 - gamma) ** -covering(maps, blocks).double())


def test_mutant_the_papers_formula_and_timms_are_seen() -> None:
    """On a map of 14 x 14 with blocks of 7, asked for 10 %: 9 % and 21 %."""
    gamma = 0.1 * 14**2 / 7**2 / (14 - 7 + 1) ** 2
    paper = (1 - (1 - gamma) ** covering((14, 14), (7, 7)).double()).mean()
    around = torch.tensor([min(at, 3) + min(13 - at, 3) + 1 for at in range(14)])
    timm = (1 - (1 - gamma) ** around.outer(around).double()).mean()
    assert float(paper) == pytest.approx(0.093, abs=5e-4)
    assert float(timm) == pytest.approx(0.209, abs=5e-4)
    pixels = SAMPLES // 100  # of maps so far apart that they count as independent
    assert not within(round(float(timm) * pixels * 196), pixels * 196, 0.1)


def test_inside_only_whole_blocks_are_dropped() -> None:
    y = F.drop_block(torch.ones(300, 1, 9, 9), 0.1, block_size=3, inside=True, key=4)[:, 0]
    gone = (y == 0).float().unsqueeze(1)
    whole = -torch.nn.functional.max_pool2d(-gone, 3, 1)
    again = torch.nn.functional.max_pool2d(torch.nn.functional.pad(whole, (2,) * 4), 3, 1)
    assert gone.any()
    assert torch.equal(gone, again)


@pytest.mark.parametrize("inside", [False, True])
def test_the_ends_of_the_rate(inside: bool) -> None:
    x = torch.full((2, 3, 5, 5), torch.inf, requires_grad=True)
    assert F.drop_block(x, 0.0, inside=inside) is x
    gone = F.drop_block(x, 1.0, inside=inside)
    gone.sum().backward()
    assert not gone.any()
    assert not x.grad.any()
    assert F.drop_block(torch.ones(0, 3, 5, 5), 0.5, inside=inside).shape == (0, 3, 5, 5)


@pytest.mark.parametrize("shared", [(0,), (1,), (0, 1)])
def test_axes_share_a_mask(shared: Sizes) -> None:
    y = nn.DropBlock2d(0.3, 3, shared=shared)(torch.ones(5, 6, 7, 8), key=1)
    assert all(torch.equal(y, y.select(axis, 0).unsqueeze(axis).expand_as(y)) for axis in shared)
    other = {0: 1, 1: 0}.get(shared[0]) if len(shared) == 1 else None
    assert other is None or not torch.equal(y.select(other, 0), y.select(other, 1))


def test_parts_of_a_map_have_the_mask_of_the_whole() -> None:
    x = torch.ones(4, 2, 6, 10)
    whole = F.drop_block(x, 0.3, block_size=3, key=1)
    rows = F.drop_block(x[1:], 0.3, block_size=3, key=1, offset=2 * 6 * 10)
    assert torch.equal(whole[1:], rows)
    part = Shard((4, 2, 6, 10), (1, 1, 2, 3))
    corner = F.drop_block(x[1:3, 1:, 2:5, 3:], 0.3, block_size=3, key=1, offset=part)
    assert torch.equal(whole[1:3, 1:, 2:5, 3:], corner)
    inside = F.drop_block(x, 0.3, block_size=3, inside=True, key=1)
    last = F.drop_block(x[3:], 0.3, block_size=3, inside=True, key=1, offset=3 * 120)
    assert torch.equal(inside[3:], last)


def test_complaints() -> None:
    x = torch.ones(2, 3, 5, 5)
    for wrong in (0, (3, 0), (3, 3, 3)):
        with pytest.raises(SettingError, match="block_size: expected a size for each of 2"):
            nn.DropBlock2d(0.1, wrong)
    with pytest.raises(SettingError, match=r"expected maps of shape \(N, C, L\); got \(2, 3, 5, 5"):
        nn.DropBlock1d()(x)
    with pytest.raises(SettingError, match="expected a number"):
        F.drop_block(x, torch.tensor(0.1))
    with pytest.raises(SettingError, match="multiple of the 75 elements"):
        F.drop_block(x, 0.1, offset=5)
    with pytest.raises(SettingError, match="expected whole maps"):
        F.drop_block(x, 0.1, inside=True, offset=Shard((2, 3, 5, 9), (0, 0, 0, 4)))
    with pytest.raises(RuntimeError, match="expected a floating-point"):
        F.drop_block(x.long(), 0.1)
