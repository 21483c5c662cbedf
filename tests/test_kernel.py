"""The laws of the draws: exact rates, independence, and bits that are a function of the key.

Each bound on a random count is exact and two-sided, with a false alarm in 10**6; since the keys
are fixed, a test that passes once passes always.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from dropkit.kernel import Stream, derive
from workbench import ALARM, within

RATES = (0.0, 0.001, 0.1, 0.5, 0.95)
SHAPES = ((1, 100_003), (7, 11, 1301), (3, 40_001))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_a_mask_drops_at_its_rate(rate: float, shape: tuple[int, ...]) -> None:
    """Mutants: the rate kept instead of dropped; a threshold of 8 bits."""
    asked = torch.tensor(rate)
    kept = Stream(1).mask(asked, shape)
    assert kept.dtype == torch.bool
    assert kept.shape == shape
    assert within(int((~kept).sum()), math.prod(shape), float(asked))


def test_a_rate_next_to_one_still_keeps_a_few() -> None:
    """Mutant: a rate rounded up to 1, whose threshold wraps around: all kept, times infinity."""
    factor = Stream(1).keep(torch.tensor(1 - 2**-18), (4_000_000,))
    assert factor.isfinite().all()
    assert within(int((factor != 0).sum()), 4_000_000, 2**-18)


def test_a_rate_of_zero_keeps_everything_exactly() -> None:
    """Mutant: a factor of 1 / (1 - rate) that is 1 only in the mean."""
    assert (Stream(0).keep(torch.tensor(0.0), (10_001,)) == 1.0).all()


def test_each_member_has_its_own_rate() -> None:
    """Mutants: rates that broadcast along the wrong axis; the first member's rate for all."""
    rates = torch.tensor([0.0, 0.02, 0.5, 0.9]).view(4, 1, 1)
    kept = Stream(5).mask(rates, (4, 101, 103))
    for member, rate in enumerate(rates.flatten().tolist()):
        assert within(int((~kept[member]).sum()), 101 * 103, rate)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 5), (1,), (5,), (1, 1, 1), (2, 3)], ids=str)
def test_small_and_empty_shapes(shape: tuple[int, ...]) -> None:
    assert Stream(2).keep(torch.tensor(0.3), shape).shape == shape


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_neighbours_are_independent(step: int) -> None:
    """Mutants: one draw for four neighbours; lanes that share bits."""
    pairs = (~Stream(9).mask(torch.tensor(0.25), (480_000,))).view(-1, 2, step)
    both = pairs[:, 0] & pairs[:, 1]
    assert within(int(both.sum()), both.numel(), 1 / 16)


def test_members_and_rows_are_independent() -> None:
    """Mutant: one mask shared by all members, or by all rows of a batch."""
    kept = Stream(9).mask(torch.tensor(0.5), (2, 300, 101))
    assert within(int((kept[0] == kept[1]).sum()), kept[0].numel(), 0.5)
    assert within(int((kept[0, ::2] == kept[0, 1::2]).sum()), kept[0, ::2].numel(), 0.5)


@pytest.mark.parametrize("lane", range(4))
def test_each_lane_of_a_word_has_the_rate(lane: int) -> None:
    """Mutant: words of 63 random bits, whose highest lane keeps twice as often."""
    kept = Stream(4).mask(torch.tensor(0.5), (400_000,)).view(-1, 4)[:, lane]
    assert within(int(kept.sum()), len(kept), 0.5)


@pytest.mark.parametrize("rate", RATES)
def test_inverted_scaling_has_mean_one(rate: float) -> None:
    """Mutant: no scaling (mean 1 - rate)."""
    asked = torch.tensor(rate)
    factor = Stream(1).keep(asked, (200_001,))
    keep = 1.0 - float(asked)
    survivors = factor[factor != 0]
    assert torch.allclose(survivors.double() * keep, torch.ones((), dtype=torch.float64))
    assert within(len(survivors), 200_001, keep)


def test_a_key_names_its_draws() -> None:
    rate, shape = torch.tensor(0.4), (3, 17)
    for draw in (
        lambda stream: stream.mask(rate, shape),
        lambda stream: stream.normal(shape),
        lambda stream: stream.uniform(shape),
        lambda stream: stream.integers(10, shape),
        lambda stream: stream.permutation(50),
        lambda stream: stream.beta(torch.full((5, 1, 1), 0.3)),
    ):
        assert torch.equal(draw(Stream(11)), draw(Stream(11)))
        assert not torch.equal(draw(Stream(11)), draw(Stream(12)))


@pytest.mark.parametrize("other", [12, 11 + (1 << 32), 11 + (1 << 63), -11])
def test_all_64_bits_of_a_key_count(other: int) -> None:
    """Mutant: a generator that is seeded with 32 bits of the key."""
    first, second = (Stream(key).mask(torch.tensor(0.5), (100_000,)) for key in (11, other))
    assert within(int((first == second).sum()), 100_000, 0.5)


def test_derived_keys_differ_in_order_depth_and_seed() -> None:
    """Mutants: words that are summed or joined by xor; a key and a first word that commute."""
    names = [(a, b) for a in range(40) for b in range(40)]
    depths = [(a, 0, b) for a in range(40) for b in range(40)]
    keys = {derive(*name) for name in names} | {derive(*name) for name in depths}
    assert len(keys) == len(names) + len(depths)


def test_derived_keys_are_64_bits_of_avalanche() -> None:
    """One bit of a word changes half of the key's bits. Mutant: a mixer without multiplication."""
    keys = [
        (derive(7, word), derive(7, word ^ (1 << bit))) for word in range(64) for bit in range(64)
    ]
    assert all(0 <= key < 1 << 64 for pair in keys for key in pair)
    flips = sum((one ^ two).bit_count() for one, two in keys)
    assert within(flips, 64 * len(keys), 0.5)


@pytest.mark.parametrize("key", [-1, 0, 1 << 64, (1 << 64) - 1, 1 << 200])
def test_any_integer_is_a_key(key: int) -> None:
    assert 0 <= derive(key, -3, 1 << 70) < 1 << 64
    assert Stream(key).normal((2,)).isfinite().all()


def test_a_numpy_integer_is_the_same_key() -> None:
    """A seed often comes out of an array."""
    assert derive(np.int64(3), np.int32(-4)) == derive(3, -4)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_beta_has_the_law_of_beta(alpha: float) -> None:
    """Mutants: uniform draws; Beta(alpha, 1)."""
    draws = Stream(6).beta(torch.full((20_000,), alpha)).double().numpy()
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).pvalue > ALARM
    spread = 1 / (4 * (2 * alpha + 1))
    assert abs(draws.mean() - 0.5) < 5 * (spread / len(draws)) ** 0.5
    assert draws.var() == pytest.approx(spread, rel=0.1)


def test_beta_is_exactly_one_where_nothing_is_mixed() -> None:
    """Mutant: Beta(0.001, 0.001), which is 0 half of the time: every label is the neighbour's."""
    share = Stream(6).beta(torch.tensor([0.0, 0.2, 0.0, 0.4]).view(4, 1, 1))
    assert share.shape == (4, 1, 1)
    assert share.dtype == torch.float32
    assert (share[[0, 2]] == 1.0).all()
    assert ((share[[1, 3]] > 0) & (share[[1, 3]] < 1)).all()


def test_normal_and_uniform_have_their_laws() -> None:
    assert stats.kstest(Stream(1).normal((50_000,)).numpy(), "norm").pvalue > ALARM
    uniform = Stream(1).uniform((50_000,))
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > ALARM
    assert uniform.min() >= 0 and uniform.max() < 1


def test_integers_and_permutations() -> None:
    counts = torch.bincount(Stream(1).integers(7, (70_000,)), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > ALARM
    firsts = torch.stack([Stream(derive(0, key)).permutation(5) for key in range(5000)])
    assert (firsts.sort(1).values == torch.arange(5)).all()
    assert stats.chisquare(torch.bincount(firsts[:, 0]).numpy()).pvalue > ALARM


def test_the_global_random_states_are_neither_read_nor_moved() -> None:
    """Mutants: a draw without `generator=`; `np.random.beta`."""

    def draws() -> list[torch.Tensor]:
        stream = Stream(3)
        return [
            stream.keep(torch.tensor(0.5), (9,)),
            stream.normal((9,)),
            stream.uniform((9,)),
            stream.integers(9, (9,)),
            stream.permutation(9),
            stream.beta(torch.full((9,), 0.3)),
        ]

    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = draws()
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert all(torch.equal(one, two) for one, two in zip(first, draws(), strict=True))
