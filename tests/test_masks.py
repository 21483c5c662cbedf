"""The law of the masks: mask[i] = f(key, i), its rate, and all that must not enter."""

from __future__ import annotations

import math
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dropkit.functional as F
from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.kernel import philox, reference
from dropkit.kernel.indexing import indexing
from dropkit.kernel.mask import Mask, signed, threshold
from dropkit.records import Shard

KEY = 0x0123_4567_89AB_CDEF
CPU = torch.device("cpu")


# ---- an oracle in numpy, written from the page that describes the stream, not from the code

M = np.uint64(0xFFFFFFFF)


def words(block: int, key: int, domain: int) -> list[int]:
    c = [block & 0xFFFFFFFF, block >> 32, 0, domain]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k1, a & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def kept(index: int, key: int, limit: int) -> bool:
    index &= (1 << 64) - 1
    if limit == 1 << 40:
        return False
    block = b"".join(word.to_bytes(4, "little") for word in words(index >> 4, key, 0))
    draw = block[index & 15] << 32 | words(index >> 2, key, 1)[index & 3]
    return draw >= limit


@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: str
) -> None:
    """The vectors that Random123 is published with."""
    four = philox.rounds(tuple(torch.tensor(word) for word in counter), *key)  # type: ignore[arg-type]
    assert " ".join(f"{int(word):08x}" for word in four) == expected


RATES = (0.0, 2**-41, 2**-40, 1e-9, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1 - 1e-9, 1 - 2**-40, 1.0)
BASES = (0, 5, 16, (1 << 32) - 20, (1 << 36) + 13, (1 << 63) - 9, (1 << 64) - 21)


@pytest.mark.parametrize("base", BASES)
def test_a_mask_is_the_documented_one(base: int) -> None:
    for rate in RATES:
        mask = reference.keep(Mask(KEY, rate, None, base), (75,), CPU)
        expected = [kept(base + i, KEY, threshold(rate)) for i in range(75)]
        assert mask.tolist() == expected, rate
        assert kernel.keep((75,), rate, key=KEY, offset=base, device=CPU).tolist() == expected


def test_the_boundary_is_refined() -> None:
    """A byte that equals the threshold's is decided by 32 more bits, one way and the other."""
    rate, count = 0.1, 1 << 14
    equal = [i for i in range(count) if _byte(i) == threshold(rate) >> 32]
    mask = kernel.keep((count,), rate, key=KEY, device=CPU)
    decided = [bool(mask[i]) for i in equal]
    assert decided == [kept(i, KEY, threshold(rate)) for i in equal]
    assert len(set(decided)) == 2


def _byte(index: int) -> int:
    word = words(index >> 4, KEY, 0)[index >> 2 & 3]
    return word >> 8 * (index & 3) & 0xFF


def test_rates_are_realized_within_two_to_the_minus_41() -> None:
    for rate in np.linspace(0, 1, 1001):
        assert abs(threshold(float(rate)) / 2**40 - rate) <= 2**-41


def within(hits: int, trials: int, rate: float, alarm: float = 1e-9) -> bool:
    """Whether a count is likely: Chernoff's bound, exact on both sides, false alarm 2 * alarm."""
    seen = hits / trials
    if seen in (0.0, 1.0):
        return (1 - abs(seen - rate)) ** trials > alarm
    terms = seen * math.log(seen / rate) + (1 - seen) * math.log((1 - seen) / (1 - rate))
    return math.exp(-trials * terms) > alarm


@pytest.mark.parametrize("rate", [0.001, 0.1, 1 / 3, 0.5, 0.9])
def test_a_mask_drops_at_its_rate(rate: float) -> None:
    """Enough draws to tell 0.1 from the 26/256 that a threshold of 8 bits gives."""
    count = 1 << 21
    dropped = count - int(kernel.keep((count,), rate, key=KEY, device=CPU).sum())
    assert within(dropped, count, rate)


def test_the_bound_would_catch_eight_bits() -> None:
    count = 1 << 21
    assert not within(round(count * 26 / 256), count, 0.1)


# ---- indices


@pytest.mark.parametrize("shared", [(), (0,), (1,), (2,), (0, 2), (1, -1), (0, 1, 2)])
def test_shared_axes_have_one_draw(shared: tuple[int, ...]) -> None:
    x = torch.ones(5, 6, 7)
    y = F.dropout(x, 0.5, shared=shared, key=KEY)
    unshared = y
    for axis in shared:
        unshared = unshared.narrow(axis, 0, 1)
    assert torch.equal(y, unshared.expand_as(y))
    flat = F.dropout(torch.ones(unshared.numel()), 0.5, key=KEY)
    assert torch.equal(unshared.reshape(-1), flat)


@pytest.mark.parametrize("shared", [(), (1,), (2,), (1, 2), (0,)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shards_are_cuts_of_the_whole(shared: tuple[int, ...], axis: int) -> None:
    x = torch.randn(4, 6, 8)
    whole = F.dropout(x, 0.4, shared=shared, key=KEY)
    parts = []
    for half in range(2):
        start = [0, 0, 0]
        start[axis] = half * x.shape[axis] // 2
        part = x.narrow(axis, start[axis], x.shape[axis] // 2)
        place = F.Shard((4, 6, 8), tuple(start))
        parts.append(F.dropout(part, 0.4, shared=shared, key=KEY, offset=place))
    assert torch.equal(whole, torch.cat(parts, axis))


@pytest.mark.parametrize("shared", [(), (1,), (2,), (1, 2), (0,)])
def test_a_batch_can_be_cut_at_any_row(shared: tuple[int, ...]) -> None:
    x = torch.randn(5, 6, 7)
    whole = F.dropout(x, 0.4, shared=shared, key=KEY)
    tail = F.dropout(x[2:], 0.4, shared=shared, key=KEY, offset=2 * 42)
    assert torch.equal(whole[2:], tail)


@pytest.mark.parametrize("shared", [(), (1,), (2, 3), (1, 2, 3), (0, 1)])
def test_strides_do_not_enter(shared: tuple[int, ...]) -> None:
    x = torch.randn(3, 66, 5, 7)
    expected = F.dropout(x, 0.3, shared=shared, key=KEY)
    for other in (
        x.to(memory_format=torch.channels_last),
        x.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
        torch.stack([x, x], -1)[..., 0],
        x.flip(0).flip(0),
    ):
        y = F.dropout(other, 0.3, shared=shared, key=KEY)
        assert torch.equal(y, expected)
    last = F.dropout(x.to(memory_format=torch.channels_last), 0.3, key=KEY)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_expanded_input_is_dropped_element_by_element() -> None:
    x = torch.randn(1, 9).expand(6, 9)
    assert torch.equal(F.dropout(x, 0.5, key=KEY), F.dropout(x.contiguous(), 0.5, key=KEY))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_does_not_enter_and_the_scale_is_exact(dtype: torch.dtype) -> None:
    x = torch.randn(1000, dtype=torch.float64).to(dtype)
    y = F.dropout(x, 0.3, key=KEY)
    keep = kernel.keep((1000,), 0.3, key=KEY, device=CPU)
    wide = x if dtype == torch.float64 else x.float()
    expected = torch.where(keep, wide * (1 / 0.7), 0.0).to(dtype)
    assert torch.equal(y, expected)


def test_rates_of_members() -> None:
    x, rates = torch.ones(4, 50, 9), torch.tensor([0.0, 0.2, 0.5, 1.0])
    y = F.dropout(x, rates[:, None, None], key=KEY)
    for member, rate in enumerate(rates.tolist()):
        alone = F.dropout(x[member], rate, key=KEY, offset=member * 450)
        assert torch.equal(y[member], alone)
    each = torch.linspace(0, 1, 9).expand(50, 9)
    y = F.dropout(torch.ones(50, 9), each, key=KEY)
    column = F.dropout(torch.ones(50, 9), 0.5, key=KEY)[:, 4]
    assert torch.equal(y[:, 4], column)
    classic = F.dropout(x, rates[:, None, None], key=KEY, scaling="classic")
    assert torch.equal(classic, (F.dropout(x, rates[:, None, None], key=KEY) != 0).float())


def test_complex_numbers_are_dropped_as_a_whole() -> None:
    x = torch.randn(40, dtype=torch.complex64)
    keep = F.dropout(torch.ones(40), 0.5, key=KEY)
    assert torch.equal(F.dropout(x, 0.5, key=KEY), x * keep)


def test_indices_wrap_at_64_bits() -> None:
    x = torch.ones(40)
    assert torch.equal(
        F.dropout(x, 0.5, key=KEY, offset=(1 << 64) - 8)[8:], F.dropout(x[8:], 0.5, key=KEY)
    )


# ---- keys


def test_keys_name_masks() -> None:
    x = torch.ones(4000)
    masks = [F.dropout(x, 0.5, key=key) != 0 for key in (0, 1, 1 << 32, KEY, (1 << 64) - 1)]
    for n, mask in enumerate(masks):
        for other in masks[:n]:
            assert within(int((mask == other).sum()), 4000, 0.5)
    assert torch.equal(F.dropout(x, key=-1), F.dropout(x, key=(1 << 64) - 1))
    assert torch.equal(F.dropout(x, key=torch.tensor(KEY)), F.dropout(x, key=KEY))
    assert torch.equal(F.dropout(x, key=torch.tensor([signed(KEY)])), F.dropout(x, key=KEY))


def test_torch_s_seed_makes_runs_alike() -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(5)
        return [F.dropout(torch.ones(100)) for _ in range(3)]

    first, again = run(), run()
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])


def test_a_generator_is_moved_alone() -> None:
    state = torch.get_rng_state()
    draws = [
        F.dropout(torch.ones(100), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("p, training", [(0.0, True), (0.5, False), (1.0, False)])
def test_nothing_to_drop_draws_nothing(p: float, training: bool) -> None:
    x, state = torch.ones(9, requires_grad=True), torch.get_rng_state()
    assert F.dropout(x, p, training) is x
    assert torch.equal(state, torch.get_rng_state())


def test_scopes_of_keys_nest_and_belong_to_a_thread() -> None:
    x = torch.ones(64)
    seen: list[Tensor] = []
    with F.keyed(1):
        first = F.dropout(x)
        with F.keyed(1):
            inner = F.dropout(x)
        second = F.dropout(x)
        thread = threading.Thread(target=lambda: seen.append(F.dropout(x)))
        thread.start()
        thread.join()
    with F.keyed(1):
        assert torch.equal(F.dropout(x), first) and torch.equal(F.dropout(x), second)
    assert torch.equal(first, inner) and not torch.equal(seen[0], first)
    with pytest.raises(ZeroDivisionError), F.keyed(1):
        raise ZeroDivisionError
    assert not torch.equal(F.dropout(x), first)


# ---- edges


def test_edges() -> None:
    assert F.dropout(torch.ones(0)).shape == (0,)
    assert F.dropout(torch.ones(3, 0, 2), shared=(2,)).shape == (3, 0, 2)
    assert float(F.dropout(torch.tensor(1.0), 0.5, key=KEY)) in (0.0, 2.0)
    x = torch.tensor([math.inf, math.nan, 1.0], requires_grad=True)
    y = F.dropout(x, 1.0)
    assert y.tolist() == [0.0, 0.0, 0.0]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 0.0, 0.0]


def test_what_is_dropped_is_gone_even_if_it_was_infinite() -> None:
    x = torch.full((1000,), math.inf)
    y = F.dropout(x, 0.5, key=KEY)
    assert set(y.tolist()) == {0.0, math.inf}


def test_in_place() -> None:
    x = torch.ones(100)
    y = F.dropout(x, 0.5, key=KEY, inplace=True)
    assert y is x and torch.equal(x, F.dropout(torch.ones(100), 0.5, key=KEY))
    leaf = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        F.dropout(leaf, 0.5, inplace=True)
    assert leaf.tolist() == [1.0, 1.0, 1.0]
    z = (leaf.expand(4, 3) * 1).requires_grad_()
    y = F.dropout(z, 0.5, key=KEY, inplace=True)
    y.sum().backward()
    assert torch.equal(leaf.grad, F.dropout(torch.ones(4, 3), 0.5, key=KEY).sum(0))  # type: ignore[arg-type]


def test_classic_scaling_is_the_inverted_one_later() -> None:
    """Equivalence: scaling by 1 - p at prediction, or by 1 / (1 - p) in training."""
    x = torch.randn(50)
    trained = F.dropout(x, 0.3, key=KEY, scaling="classic")
    assert torch.allclose(trained / 0.7, F.dropout(x, 0.3, key=KEY))
    assert torch.allclose(F.dropout(x, 0.3, False, scaling="classic"), x * 0.7)


def test_axes_may_be_numbers_of_numpy() -> None:
    x = torch.ones(4, 5)
    assert torch.equal(
        F.dropout(x, key=KEY, shared=[np.int64(1)]), F.dropout(x, key=KEY, shared=[1])
    )


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"p": -0.1}, "between 0 and 1, but got -0.1"),
        ({"p": 1.1}, "between 0 and 1, but got 1.1"),
        ({"p": math.nan}, "between 0 and 1, but got nan"),
        ({"p": torch.tensor([0.1, 1.2, 0.3])}, "between 0 and 1"),
        ({"p": torch.ones(2) / 2}, "broadcast against x of shape"),
        ({"p": torch.ones(3, dtype=torch.int64)}, "floating-point rates"),
        ({"key": 1 << 64}, "64 bits"),
        ({"key": 0.5}, "64 bits"),
        ({"key": True}, "64 bits"),
        ({"key": torch.zeros(2, dtype=torch.int64)}, "64 bits"),
        ({"key": torch.zeros(1)}, "64 bits"),
        ({"key": 1, "generator": torch.Generator()}, "got both"),
        ({"shared": (2,)}, "axes"),
        ({"shared": (1,), "offset": 4}, "multiple of the 3"),
        ({"offset": F.Shard((2, 3), (1, 0))}, "Shard that holds"),
        ({"scaling": "none"}, "inverted, classic"),
        ({"p": "0.5"}, "expected a number, or a tensor of rates; got '0.5'"),
        ({"p": None}, "expected a number, or a tensor of rates; got None"),
        ({"shared": np.arange(2)}, "expected axes, such as"),
        ({"shared": iter([1])}, "expected axes, such as"),
        ({"p": np.ones(2) / 2}, "expected a number, or a tensor of rates"),
        ({"shared": 1}, r"such as \(1,\); got 1"),
        ({"shared": "ab"}, "axes of a tensor with 2 dimensions, from -2 to 1; got a"),
        ({"generator": 3}, "expected a torch.Generator; got 3"),
        ({"x": [1.0, 2.0]}, "expected a tensor; got list"),
    ],
)
def test_bad_input_is_told_apart(settings: dict[str, object], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        F.dropout(**{"x": torch.ones(2, 3), **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_integers_raise_as_in_torch(dtype: torch.dtype) -> None:
    x = torch.ones(3, dtype=dtype)
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        F.dropout(x)
    assert F.dropout(x, training=False) is x


# ---- draws of other laws


def test_uniform_draws_are_the_documented_words() -> None:
    expected = [words(i >> 2, KEY, 2)[i & 3] for i in range(3, 30)]
    drawn = kernel.uniform((27,), key=KEY, offset=3, device=CPU)
    assert drawn.tolist() == [(word >> 8) * 2.0**-24 for word in expected]
    double = kernel.uniform((27,), key=KEY, offset=3, device=CPU, dtype=torch.float64)
    assert double.tolist() == [word * 2.0**-32 for word in expected]


def test_normal_draws_are_cut_like_masks_and_are_normal() -> None:
    whole = kernel.normal((1001,), key=KEY, device=CPU)
    assert torch.equal(whole[3:], kernel.normal((998,), key=KEY, offset=3, device=CPU))
    part = kernel.normal((7, 5), key=KEY, offset=F.Shard((7, 143), (0, 6)), device=CPU)
    assert torch.equal(part, whole.view(7, 143)[:, 6:11])
    many = kernel.normal((400_000,), key=KEY, device=CPU, dtype=torch.float64).sort().values
    level = torch.special.ndtr(many)
    steps = torch.arange(1, 400_001, dtype=torch.float64) / 400_000
    # Dvoretzky, Kiefer & Wolfowitz: P(distance > d) <= 2 exp(-2 n d^2); 1e-9 here
    assert float((level - steps).abs().max()) < math.sqrt(math.log(2e9) / 800_000) + 1 / 400_000


def test_subsets_have_their_size_and_are_fair() -> None:
    chosen = kernel.subset(20_000, 5, 2, key=KEY, device=CPU)
    assert chosen.shape == (20_000, 2) and bool((chosen[:, 0] < chosen[:, 1]).all())
    pairs = (chosen[:, 0] * 5 + chosen[:, 1]).bincount()
    assert int((pairs > 0).sum()) == 10
    assert all(within(int(count), 20_000, 0.1) for count in pairs[pairs > 0])


def test_an_indexing_is_affine() -> None:
    assert indexing((2, 3, 4), (0, 2)) == ((0, 1, 0), 0)
    assert indexing((2, 3, 4), (1,), 12) == ((4, 0, 1), 4)
    assert indexing((), (), 9) == (None, 9)


# ---- the page that describes the stream

PAGE = (Path(__file__).parent.parent / "docs" / "bitstream.md").read_text("utf-8")


def test_the_page_s_vectors_are_the_stream_s() -> None:
    rows = re.findall(r"^\| `0x(\w{16})` \| `(\w{32})` \| `([\w ]{35})` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for key, run, four in rows:
        number = int(key, 16)
        drawn = b"".join(word.to_bytes(4, "little") for word in words(0, number, 0))
        assert drawn.hex() == run
        assert " ".join(f"{word:08x}" for word in words(0, number, 2)) == four


def test_the_page_s_masks_are_ours() -> None:
    rows = re.findall(r"^\| (0\.\d) \| ([\d^ +]+) \| `([01]{32})` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for rate, first, mask in rows:
        base = 0 if first == "0" else (1 << 36) + 5
        kept = kernel.keep((32,), float(rate), key=KEY, offset=base, device=CPU)
        assert "".join(str(int(keep)) for keep in kept) == mask


def test_the_page_s_refinements_are_ours() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w{8})` \| (kept|dropped) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for index, word, verdict in rows:
        assert f"{words(int(index) >> 2, KEY, 1)[int(index) & 3]:08x}" == word
        kept = kernel.keep((1,), 0.1, key=KEY, offset=int(index), device=CPU)
        assert bool(kept) == (verdict == "kept")


def test_numbers_of_numpy_are_numbers() -> None:
    x = torch.ones(40)
    y = F.dropout(x, np.float32(0.5), key=np.int64(7), offset=np.int64(5))
    assert torch.equal(y, F.dropout(x, 0.5, key=7, offset=5))
    with pytest.raises(SettingError, match="offset: expected an integer"):
        F.dropout(x, 0.5, offset=1.5)


def test_fused_forms_take_a_box_of_a_whole() -> None:
    x, box = torch.randn(4, 6), Shard((4, 12), (0, 6))
    expected = F.dropout(torch.relu(x), 0.5, key=7, offset=box)
    assert torch.equal(F.activation_dropout(x, "relu", 0.5, key=7, offset=box), expected)
    expected = x + F.dropout(x, 0.5, key=7, offset=box)
    assert torch.equal(F.dropout_add(x, x, 0.5, key=7, offset=box), expected)


def test_nan_passes_relu_and_its_gradient_as_in_torch() -> None:
    x = torch.tensor([torch.nan, 1.0, -1.0] * 20, requires_grad=True)
    y = F.activation_dropout(x, "relu", 0.5, key=1)
    plain = F.dropout(x.relu(), 0.5, key=1)
    grads = [torch.autograd.grad(each.sum(), x)[0] for each in (y, plain)]
    assert torch.equal(*grads)
    assert torch.equal(y.nan_to_num(7), plain.nan_to_num(7))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_rates_of_numpy_are_rates(kind: Any) -> None:
    x = torch.ones(40)
    assert torch.equal(F.dropout(x, kind(0.5), key=1), F.dropout(x, 0.5, key=1))
