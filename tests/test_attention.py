"""Attention with dropout: equal to its formula, in blocks, and with nothing large kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.functional import blockwise
from dropkit.functional.attention import scaled_dot_product_attention

KEY = 7


def inputs(
    *sizes: int, rows: int = 6, columns: int = 5, dtype: Any = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(*sizes, rows, 4), (*sizes, columns, 4), (*sizes, columns, 3)]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [each.to(dtype).requires_grad_() for each in drawn]


def plain(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, p: float = 0.3, **drop: Any
) -> Tensor:
    """The formula, and nothing else."""
    scores = q @ k.mT / 2.0
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    weights = scores.softmax(-1).nan_to_num(0.0)
    return F.dropout(weights, p, key=KEY, **drop) @ v


def dropped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    options = {"dropout_p": 0.3, "dropout_key": KEY, **options}
    return scaled_dot_product_attention(q, k, v, mask, **options)


def slopes(out: Tensor, parts: list[Tensor]) -> list[Tensor]:
    weigh = torch.linspace(-64, 64, out.numel()).round() / 64  # exact in every type
    return list(torch.autograd.grad(out, parts, weigh.to(out.dtype).view(out.shape)))


def assert_alike(got: Tensor, expected: Tensor, parts: list[Tensor]) -> None:
    pairs = [(got, expected), *zip(slopes(got, parts), slopes(expected, parts), strict=True)]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.fixture(params=[1, 10, 40, 100, 1 << 16], ids=lambda size: f"blocks of {size}")
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(blockwise, "_BLOCK", request.param)
    monkeypatch.setattr(blockwise, "_FEWEST_ROWS", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param
    torch.set_num_threads(threads)


SIZES = [(), (3,), (2, 3), (2, 1, 3), (2, 2, 1, 3)]


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_its_formula(sizes: tuple[int, ...], blocks: int) -> None:
    parts = inputs(*sizes)
    assert_alike(dropped(*parts), plain(*parts), parts)


@pytest.mark.parametrize("columns", [5, 6, 9])
def test_causal_rows_see_what_came_before(columns: int, blocks: int) -> None:
    parts = inputs(2, 3, columns=columns)
    mask = torch.ones(6, columns, dtype=torch.bool).tril()
    assert_alike(dropped(*parts, is_causal=True), plain(*parts, mask), parts)


@pytest.mark.parametrize("sizes", [(6, 5), (5,), (6, 1), (3, 6, 5), (2, 1, 1, 5), (2, 3, 6, 5)])
@pytest.mark.parametrize("kind", ["closed", "added"])
def test_masks_broadcast(sizes: tuple[int, ...], kind: str, blocks: int) -> None:
    parts = inputs(2, 3)
    numbers = (
        torch.linspace(-2, 2, torch.Size(sizes).numel(), dtype=torch.float64).view(sizes).sin()
    )
    if kind == "closed":
        assert_alike(dropped(*parts, numbers > -0.5), plain(*parts, numbers > -0.5), parts)
        return
    mask = numbers.requires_grad_()
    assert_alike(dropped(*parts, mask), plain(*parts, mask), [*parts, mask])


@pytest.mark.parametrize("added", [False, True])
def test_a_row_that_may_attend_to_nothing_gives_zeros(added: bool, blocks: int) -> None:
    parts = inputs(2, 3)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2] = False
    numbers = torch.zeros(6, 5, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    got = dropped(*parts, numbers if added else mask)
    assert torch.equal(got[..., 2, :], torch.zeros(2, 3, 3, dtype=torch.float64))
    assert all(torch.isfinite(slope).all() for slope in slopes(got, parts))
    expected = tf.scaled_dot_product_attention(*parts, mask)
    assert torch.equal(expected[..., 2, :], got[..., 2, :])


def test_batches_broadcast_and_heads_are_shared(blocks: int) -> None:
    query, _, _ = inputs(2, 4)
    _, key, value = inputs(2, 2)
    parts = [query, key, value]
    both = [part.repeat_interleave(2, -3) for part in (key, value)]
    assert_alike(dropped(*parts, enable_gqa=True), plain(query, *both), parts)
    lone = [inputs(2, 3)[0], inputs(3)[1], inputs(2, 1)[2]]
    assert_alike(dropped(*lone), plain(*lone), lone)


@pytest.mark.parametrize("sizes", SIZES)
def test_a_shard_drops_what_the_whole_does(sizes: tuple[int, ...], blocks: int) -> None:
    parts = inputs(*sizes)
    whole, start = (*[size + 2 for size in sizes], 9, 11), (*[1] * len(sizes), 2, 3)
    place = F.Shard(whole, start)
    assert_alike(dropped(*parts, offset=place), plain(*parts, offset=place), parts)
    assert_alike(dropped(*parts, offset=30), plain(*parts, offset=30), parts)


@pytest.mark.parametrize("parts", [(0, 3, 6), (2, 0, 6), (2, 3, 0)])
def test_nothing_comes_of_nothing(parts: tuple[int, int, int]) -> None:
    batch, heads, rows = parts
    assert dropped(*inputs(batch, heads, rows=rows)).shape == (batch, heads, rows, 3)


def test_second_derivatives() -> None:
    parts = inputs(1, 2, rows=3, columns=2)
    mask = torch.linspace(-1, 1, 6, dtype=torch.float64).view(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(dropped, (*parts, mask))
    assert torch.autograd.gradgradcheck(dropped, (*parts, mask))
    same = parts[0]
    one = torch.autograd.grad(dropped(same, same, same).sum(), same, create_graph=True)[0]
    other = torch.autograd.grad(plain(same, same, same).sum(), same, create_graph=True)[0]
    assert_alike(one, other, [same])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    parts = inputs(2, 3, dtype=dtype)
    got = dropped(*parts)
    wide = [part.float().detach().requires_grad_() for part in parts]
    expected = plain(*wide)
    assert got.dtype == dtype
    assert torch.equal(got, expected.to(dtype))
    for one, other in zip(slopes(got, parts), slopes(expected, wide), strict=True):
        torch.testing.assert_close(one, other.to(dtype))


def test_autocast_casts_as_torch_does() -> None:
    parts = inputs(2, 3, dtype=torch.float32)
    halves = [part.bfloat16() for part in parts]
    with torch.autocast("cpu", torch.bfloat16):
        got = dropped(*parts)
        again = slopes(dropped(*parts), parts)
    assert torch.equal(got, dropped(*halves))
    torch.testing.assert_close(again, slopes(dropped(*halves), parts))


def test_without_dropout_it_is_torchs_own() -> None:
    parts = inputs(2, 3, dtype=torch.float32)
    expected = tf.scaled_dot_product_attention(*parts, is_causal=True, scale=0.3)
    for options in ({"dropout_p": 0.0}, {"dropout_p": 0.5, "training": False}):
        got = scaled_dot_product_attention(*parts, is_causal=True, scale=0.3, **options)
        assert torch.equal(got, expected)
    assert torch.equal(dropped(*parts, dropout_p=1.0), torch.zeros(2, 3, 6, 3))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func.jvp's own
def test_compiled_and_transformed_it_draws_the_same() -> None:
    parts = inputs(2, 3, dtype=torch.float32)
    expected = dropped(*parts)
    compiled = torch.compile(dropped, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*parts), expected)
    q, k, v = (part.detach() for part in parts)
    _, tangent = torch.func.jvp(lambda q: dropped(q, k, v), (q,), (q.cos(),))
    _, other = torch.func.jvp(lambda q: plain(q, k, v), (q,), (q.cos(),))
    torch.testing.assert_close(tangent, other)


@pytest.mark.parametrize(("rows", "kept"), [(8, True), (256, False)])
def test_what_is_kept_is_no_larger_than_the_inputs(rows: int, kept: bool) -> None:
    parts = inputs(2, rows=rows, columns=rows, dtype=torch.float32)
    parts = [*parts[:2], torch.cat([parts[2], parts[2][..., :1]], -1)]
    packed: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: packed.append(x) or x, lambda x: x):
        dropped(*parts)
    weights = [each for each in packed if each.shape[-2:] == (rows, rows)]
    assert len(weights) == kept
    assert max(each.numel() for each in packed) <= sum(part.numel() for part in parts)


def test_the_mask_is_new_each_time_and_follows_the_seed() -> None:
    parts = inputs(2, 3)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return scaled_dot_product_attention(*parts, dropout_p=0.5)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_mistakes_are_told() -> None:
    q, k, v = inputs(2, 3)
    with pytest.raises(SettingError, match=r"between 0 and 1, but got 1\.5"):
        dropped(q, k, v, dropout_p=1.5)
    with pytest.raises(RuntimeError, match="should not be set when is_causal"):
        dropped(q, k, v, torch.ones(6, 5), is_causal=True)
    with pytest.raises(RuntimeError, match="same floating-point dtype"):
        dropped(q, k.float(), v)
    with pytest.raises(RuntimeError, match="at least 2 dimensional"):
        dropped(q[0, 0, 0], k, v)
    with pytest.raises(SettingError, match="multiple of the heads"):
        dropped(q, k[:, :2], v[:, :2], enable_gqa=True)
    with pytest.raises(SettingError, match="key, or a generator"):
        dropped(q, k, v, generator=torch.Generator())


@pytest.mark.parametrize("shape", [(8, 5), (5, 9), (4, 5, 5), (3, 2, 5, 5)])
def test_masks_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    q = torch.randn(2, 5, 8)
    with pytest.raises(RuntimeError, match="broadcasts"):
        F.scaled_dot_product_attention(q, q, q, torch.zeros(shape), 0.1)


def test_integer_masks_are_refused() -> None:
    q = torch.randn(2, 5, 8)
    with pytest.raises(RuntimeError, match="attn_mask dtype"):
        F.scaled_dot_product_attention(q, q, q, torch.ones(5, 5, dtype=torch.int64), 0.1)


def test_matrices_without_heads_lie_in_a_row() -> None:
    """Code that works with torch's function takes a view of what it gives."""
    q = torch.randn(3, 5, 8)
    assert F.scaled_dot_product_attention(q, q, q, dropout_p=0.1).view(-1, 8).shape == (15, 8)
