"""The conformance suite: right dropouts pass, wrong ones are caught, and by the check named."""

from __future__ import annotations

import inspect
import math
import unittest
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mutants_dropout
from dropkit import bounds
from dropkit.errors import SettingError
from dropkit.testing import (
    CHECKS,
    CONCERNS,
    Bernoulli,
    Block,
    ConformanceError,
    DropoutContract,
    Subject,
    Subset,
    check,
    independence,
    own,
    subjects,
)
from dropkit.testing.bench import Bench, dependence
from dropkit.testing.effort import SIZES, Effort
from dropkit.testing.independence import echo
from mutants_dropout import MUTANTS, TRUTHS, UNSEEN_IN_SMALL

ROUNDED_FIRST = {"half"}  # on the CPU PyTorch rounds 1 / (1 - p) to the half before it multiplies
IGNORED = {"torch.nn.AlphaDropout", "torch.nn.FeatureAlphaDropout"}  # their `inplace` is not read
UNCHECKED_BY_MUTANTS = {
    "compiled_inductor": "needs a compiler of C++; the same code as `compiled`",
    "key_devices": "needs an accelerator",
}
PLAIN = Subject(make=nn.Dropout, shape=(8, 16))


class TestDropout2d(DropoutContract):
    subject = Subject(
        make=nn.Dropout2d,
        shape=(8, 16, 7, 5),
        shared=(2, 3),
        claims=PLAIN.claims - ROUNDED_FIRST,
    )


@pytest.mark.parametrize("effort", ["small", "usual"])
@pytest.mark.parametrize("subject", TRUTHS, ids=lambda subject: subject.name)
def test_the_truth_passes(subject: Subject, effort: Effort) -> None:
    check(subject, effort=effort).raise_for_failures()


@pytest.mark.parametrize(
    "subject",
    [*subjects.torch_layers(), *subjects.torch_functions()],
    ids=lambda subject: subject.name,
)
def test_pytorch_fails_in_what_is_known(subject: Subject) -> None:
    known = ROUNDED_FIRST | ({"in_place"} if subject.name in IGNORED else set())
    assert {found.name for found in check(subject, effort="small").failures} == known


@pytest.mark.parametrize(
    "subject",
    [*own.dropkit_layers(), *own.dropkit_functions()],
    ids=lambda subject: subject.name,
)
def test_dropkit_keeps_what_it_claims(subject: Subject) -> None:
    check(subject).raise_for_failures()


@pytest.mark.parametrize(
    ("subject", "name"), MUTANTS, ids=[f"{subject.name}-{name}" for subject, name in MUTANTS]
)
def test_a_wrong_dropout_is_caught(subject: Subject, name: str) -> None:
    """By a small run; what that does not see, by a usual one."""
    unseen = (subject, name) in UNSEEN_IN_SMALL
    small = check(subject, only=[name], effort="small")[name].verdict
    assert small == ("pass" if unseen else "fail")
    if unseen:
        assert check(subject, only=[name])[name].verdict == "fail"


def test_what_a_small_run_does_not_see() -> None:
    """As it is told to users: deviations that are too small, and repeats that are too far."""
    assert [subject.name for subject, _ in UNSEEN_IN_SMALL] == [
        "Biased by 0.0035",
        "Biased by 0.02",
        "RepeatsAfter(1048576)",
    ]


def test_every_check_catches_something() -> None:
    assert {name for _, name in MUTANTS} | UNCHECKED_BY_MUTANTS.keys() == CHECKS.keys()


def test_every_check_says_what_it_promises() -> None:
    for tests in CONCERNS.values():
        for test in tests:
            first = (test.__doc__ or "").partition("\n")[0]
            assert first.endswith("."), test.__name__


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_verdict_does_not_hang_on_the_seed(seed: int) -> None:
    law = [test.__name__ for test in (*CONCERNS["law"], *CONCERNS["independence"])]
    check(mutants_dropout.subject(mutants_dropout.Right), only=law, seed=seed).raise_for_failures()


def test_a_run_leaves_no_trace() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    check(TRUTHS[0], only=["rate", "seeded", "key_threads"])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_report() -> None:
    names = ["rate", "independent_elements", "expectation"]
    assert check(PLAIN, only=names) == check(PLAIN, only=names)
    assert check(PLAIN, only=names) != check(PLAIN, only=names, seed=1)


def test_what_is_not_claimed_is_not_passed() -> None:
    bare = Subject(make=nn.Dropout, shape=(8, 16), claims=frozenset())
    report = check(bare)
    claimed = {"half", "double_backward", "forward_mode", "vmap_same", "compiled", "copies"}
    claimed |= {"nan_and_inf", "selects"}
    claimed |= {name for name in CHECKS if name.startswith("key")} | {"generator", "in_place"}
    assert all(report[name].verdict == "not applicable" for name in claimed)
    assert not report.failures


def test_whatever_a_stranger_raises_is_a_finding() -> None:
    def refuse(x: Tensor, training: bool) -> Tensor:
        raise KeyError("mine")

    found = check(Subject(make=lambda p: refuse, shape=(8, 16)), only=["rate"])["rate"]
    assert (found.verdict, found.evidence) == ("fail", "raised KeyError: 'mine'")


def test_a_failed_report_raises_its_table() -> None:
    report = check(Subject(make=lambda p: nn.Dropout(p / 2), shape=(8, 16)), only=["rate"])
    with pytest.raises(ConformanceError, match="FAIL rate"):
        report.raise_for_failures()
    with pytest.raises(KeyError, match="no check named 'rates'"):
        report["rates"]


@pytest.mark.parametrize("effort", ["tiny", True, None])
def test_an_unknown_effort_is_named(effort: Any) -> None:
    with pytest.raises(SettingError, match=r"one of \('small', 'usual', 'thorough'\); got"):
        check(PLAIN, only=["rate"], effort=effort)


def test_an_unknown_check_is_named() -> None:
    with pytest.raises(SettingError, match=r"got \['rates'\]"):
        check(PLAIN, only=["rates"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"make": 0.5}, "make: expected a function of a rate; got 0.5"),
        ({"keyed": "key"}, "keyed: expected a function of a rate, or None; got 'key'"),
        ({"generator": 1}, "generator: expected"),
        ({"inplace": True}, "inplace: expected"),
        ({"shape": ()}, r"shape: expected sizes of 2 or more, .*; got \(\). Try \(8, 16\)"),
        ({"shape": 8}, "shape: expected"),
        ({"shape": (8, 0)}, "shape: expected"),
        ({"shape": (8, -1)}, "shape: expected"),
        ({"shape": (8, 1)}, "shape: expected"),
        ({"shape": (8, 2.0)}, "shape: expected"),
        (
            {"shared": (2,)},
            r"shared: expected different axes of the shape \(8, 16\), from -2 to 1;",
        ),
        ({"shared": (-3,)}, "shared: expected"),
        ({"shared": (1, -1)}, "shared: expected"),
        ({"shared": 1}, "shared: expected"),
        ({"law": "bernoulli"}, "law: expected a law of dropkit.testing; got 'bernoulli'"),
        ({"law": Bernoulli}, "law: expected"),
        ({"law": Block(tied=(2,), size=3)}, "law.tied: expected different axes"),
        ({"law": Block(tied=(1,), size=0)}, "law.size: expected"),
        ({"law": Block(size=2)}, "law.tied: expected the axes of a block"),
        ({"law": Subset(tied=(0, 1))}, "law.tied: expected the one axis"),
        ({"law": Subset(tied=(1,)), "shared": (-1,)}, r"shared: expected .*; got \[1\]"),
        ({"scaling": "invert"}, "scaling: expected one of .*'inverted'.*; got 'invert'. Try"),
        ({"scaling": 2.0}, "scaling: expected"),
        ({"scaling": lambda p: 1 / (1 - p)}, "scaling: expected a function to Affine; got 2.0"),
        ({"sizes": "all"}, r"sizes: expected one of \('any', 'batch', 'fixed'\); got 'all'"),
        ({"sizes": None}, "sizes: expected"),
        ({"claims": {"half", "halves"}}, r"claims: expected some of .*; got \['halves'\]"),
        ({"claims": "half"}, "claims: expected a set of .*; got 'half'. Try STANDARD"),
        ({"claims": None}, "claims: expected"),
        ({"dtype": torch.int64}, "dtype: expected a floating dtype; got torch.int64"),
        ({"dtype": "float32"}, "dtype: expected"),
        ({"device": "abacus"}, "device: expected a name of a device; got 'abacus'. Try"),
        ({"ulps": -1.0}, "ulps: expected"),
        ({"ulps": math.nan}, "ulps: expected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_subject_that_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Subject(**{"make": nn.Dropout, "shape": (8, 16), **wrong})


def test_a_subject_is_what_it_says_in_one_form() -> None:
    given = Subject(make=nn.Dropout, shape=[8, 16], shared=[-1], claims=["half"])  # type: ignore
    assert (given.shape, given.shared, given.claims) == ((8, 16), (1,), frozenset({"half"}))


def test_rates_hang_on_the_seed() -> None:
    first, second = (Bench(PLAIN, seed=seed).unforeseen for seed in (0, 1))
    assert not set(first) & set(second) and Bench(PLAIN).unforeseen == first
    assert all(0.002 < p < 0.998 for p in first + second)


@pytest.mark.parametrize("distance", [1, 3, 5, 7, 100, 12345, 65536, 100_003, 190_000])
def test_an_echo_is_heard_at_its_distance(distance: int) -> None:
    bits = torch.rand(1 << 20, generator=torch.Generator().manual_seed(distance)) < 0.5
    assert echo(bits).chance > bounds.FALSE_ALARM
    pairs = bits[: len(bits) // (2 * distance) * 2 * distance].view(-1, 2, distance)
    pairs[:, 1] = pairs[:, 0]
    found = echo(bits)
    assert found.chance < bounds.FALSE_ALARM


def test_an_echo_is_not_heard_where_there_is_none() -> None:
    source = torch.Generator().manual_seed(0)
    chances = [echo(torch.rand(3000, generator=source) < rate).chance for rate in [0.1, 0.5] * 100]
    assert sum(chance < 0.1 for chance in chances) <= 38  # 20 are expected; once in 10,000 seeds


def test_an_echo_counts_what_it_says() -> None:
    bits = torch.rand(96, generator=torch.Generator().manual_seed(0)) < 0.4
    pairs = bits[:64].view(2, 2, 16)
    first, second = pairs[:, 0], pairs[:, 1]
    chances = []
    for shift in range(-8, 9):
        ones, twos = first[:, max(0, -shift) : 16 - max(0, shift)], second[:, max(0, shift) :]
        twos = twos[:, : ones.shape[1]]
        chances.append(dependence(ones.flatten(), twos.flatten()))
    assert independence._oddest(first, second).chance == pytest.approx(min(chances))


def test_the_contract_has_a_test_for_each_check_and_needs_no_pytest() -> None:
    tests = [name for name in dir(DropoutContract) if name.startswith("test_")]
    assert sorted(tests) == sorted(f"test_{name}" for name in CHECKS)

    class Wrong(DropoutContract):
        subject = Subject(make=lambda p: nn.Dropout(p / 2), shape=(8, 16))

    with pytest.raises(AssertionError, match="Dropout: rate: "):
        Wrong().test_rate()  # type: ignore[attr-defined]
    with pytest.raises(unittest.SkipTest, match="takes no key"):
        Wrong().test_key_repeats()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rate", "bias", "sigmas"),
    [
        (0.1, 26 / 256 - 0.1, 4),  # 8 bits; missed once in 30,000 seeds
        (0.9, 230 / 256 - 0.9, 4),
        (0.1, 1 / 512, 7),
        (0.5, 1 / 512, 1.9),  # missed once in 35
        (1 / 3, 1 / 512, 2.3),
        (1e-3, 2e-4, 2),
    ],
)
def test_the_power_of_a_run(rate: float, bias: float, sigmas: float) -> None:
    draws = 1 << 22
    low, high = bounds.binomial_limits(draws, rate, bounds.FALSE_ALARM / 5)
    margin = sigmas * math.sqrt(draws * rate * (1 - rate))
    assert high + margin < draws * (rate + abs(bias))
    assert low - margin > draws * (rate - abs(bias))


@pytest.mark.parametrize(
    ("draws", "share", "found"),
    [
        (SIZES["small"].elements, 9, {0.1: 0.0025, 0.3: 0.0038, 0.5: 0.0042}),
        (SIZES["usual"].elements, 9, {0.1: 0.0013, 0.3: 0.0019, 0.5: 0.0021}),
        (16 * SIZES["thorough"].elements, 9, {0.1: 0.0004, 0.3: 0.0005, 0.5: 0.0006}),
        (SIZES["small"].few, 40, {0.3: 0.012}),
        (SIZES["usual"].few, 40, {0.3: 0.008}),
        (16 * SIZES["thorough"].few, 40, {0.3: 0.002}),
        (96 * SIZES["small"].calls, 9, {0.3: 0.036}),
        (96 * SIZES["usual"].calls, 9, {0.3: 0.009}),
        (SIZES["small"].calls, 40, {0.3: 0.38}),
        (SIZES["usual"].calls, 40, {0.3: 0.092}),
    ],
)
def test_deviations_are_found_as_the_efforts_say(
    draws: int, share: int, found: dict[float, float]
) -> None:
    """99 times in 100, above the rate or below it, by the exact law of the count."""
    for rate, deviation in found.items():
        low, high = bounds.binomial_limits(draws, rate, bounds.FALSE_ALARM / share)
        above, below = rate + deviation, rate - deviation
        assert high < draws * above and bounds.binomial_chance(high, draws, above) / 2 <= 0.01
        if below > 0:
            assert low > draws * below and bounds.binomial_chance(low, draws, below) / 2 <= 0.01


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_fewer_draws_alarm_no_more_often(rate: float) -> None:
    """The exact chance of the counts that a small run takes for a wrong rate."""
    for draws in (SIZES["small"].calls, SIZES["small"].elements):
        low, high = bounds.binomial_limits(draws, rate, bounds.FALSE_ALARM / 9)
        alarming = [count for count in (low - 1, high + 1) if 0 <= count <= draws]
        tails = [bounds.binomial_chance(count, draws, rate) for count in alarming]
        assert 0 < sum(tails) / 2 <= bounds.FALSE_ALARM / 9


def binomial(draws: int, rate: Fraction) -> list[Fraction]:
    return [math.comb(draws, k) * rate**k * (1 - rate) ** (draws - k) for k in range(draws + 1)]


@pytest.mark.parametrize("rate", [Fraction(1, 2), Fraction(1, 10), Fraction(9, 10)])
def test_binomial_chances_are_exact(rate: Fraction) -> None:
    law = binomial(40, rate)
    for count in range(41):
        below = sum(law[: count + 1]) if count <= 40 * rate else sum(law[count:])
        seen = bounds.binomial_chance(count, 40, float(rate))
        assert seen == pytest.approx(min(1.0, 2 * float(below)), rel=1e-9)


@pytest.mark.parametrize("alarm", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("rate", [Fraction(1, 2), Fraction(1, 10), Fraction(9, 10)])
def test_binomial_limits_alarm_as_rarely_as_they_say(rate: Fraction, alarm: float) -> None:
    law = binomial(60, rate)
    low, high = bounds.binomial_limits(60, float(rate), alarm)
    assert sum(law[:low]) <= alarm / 2 and sum(law[high + 1 :]) <= alarm / 2
    assert sum(law[: low + 1]) > alarm / 2 and sum(law[high:]) > alarm / 2


@pytest.mark.parametrize(("draws", "first", "second"), [(12, 5, 7), (12, 12, 3), (9, 0, 4)])
def test_hypergeometric_chances_are_exact(draws: int, first: int, second: int) -> None:
    total = math.comb(draws, second)
    law = {
        both: Fraction(math.comb(first, both) * math.comb(draws - first, second - both), total)
        for both in range(max(0, first + second - draws), min(first, second) + 1)
    }
    for both in law:
        lower = both <= Fraction(first * second, draws)
        tail = sum(law[k] for k in law if (k <= both if lower else k >= both))
        seen = bounds.hypergeometric_chance(both, draws, first, second)
        assert seen == pytest.approx(min(1.0, 2 * float(tail)), rel=1e-9)


def test_the_bound_on_a_mean_is_one() -> None:
    law = binomial(40, Fraction(3, 10))
    for count in range(41):
        tail = sum(law[: count + 1]) if count <= 12 else sum(law[count:])
        assert bounds.mean_chance(count / 40, 40, 0.3) >= min(1.0, float(tail))


def test_checks_are_functions_of_a_bench() -> None:
    assert all(len(inspect.signature(test).parameters) == 1 for test in CHECKS.values())
