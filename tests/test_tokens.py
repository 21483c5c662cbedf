"""Tokens, patches, words and heads."""

from __future__ import annotations

import pytest
import torch

import dropkit.functional as F
from dropkit import nn
from dropkit.errors import SettingError
from workbench import within

# ---- tokens


def test_ids_are_replaced_at_the_rate() -> None:
    ids = torch.arange(2, 20_002).view(100, 200)
    y = F.token_dropout(ids, 0.15, replacement=1, key=3)
    assert y.dtype == ids.dtype
    assert torch.equal(y[y != 1], ids[y != 1])
    assert within(int((y == 1).sum()), ids.numel(), 0.15)


def test_what_is_spared_is_neither_dropped_nor_scaled() -> None:
    spared = torch.arange(200).view(10, 20) % 3 == 0
    ids = F.token_dropout(torch.ones(10, 20, dtype=torch.long), 0.9, replacement=0, spared=spared)
    assert bool((ids[spared] == 1).all())
    assert bool((ids[~spared] == 0).any())
    vectors = F.token_dropout(torch.ones(10, 20, 4), 0.5, spared=spared, key=1)
    assert bool((vectors[spared] == 1).all())
    assert set(vectors[~spared].flatten().tolist()) == {0.0, 2.0}
    everything = F.token_dropout(torch.ones(10, 20, 4), 1.0, spared=spared)
    assert torch.equal(everything[..., 0], spared.float())


def test_a_replacement_is_learned() -> None:
    mask = torch.nn.Parameter(torch.full((4,), 9.0))
    layer = nn.TokenDropout(0.5, mask)
    assert list(layer.state_dict()) == ["replacement"]
    assert repr(layer) == "TokenDropout(p=0.5, replacement=(4,))"
    x = torch.ones(50, 4, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    gone = (y == 9).all(1)
    assert 0 < int(gone.sum()) < 50
    assert bool((y[~gone] == 1).all())
    assert mask.grad.tolist() == [float(gone.sum())] * 4
    assert torch.equal(x.grad[:, 0], (~gone).float())


def test_complaints_about_tokens() -> None:
    ids = torch.ones(3, dtype=torch.long)
    for wrong in (None, 0.5, torch.tensor(0.5)):
        with pytest.raises(SettingError, match="replacement: expected an integer"):
            F.token_dropout(ids, 0.5, replacement=wrong)
    for spared in (torch.ones(3), torch.ones(4, dtype=torch.bool)):
        with pytest.raises(SettingError, match="spared: expected booleans that broadcast"):
            F.token_dropout(ids, 0.5, replacement=0, spared=spared)
    with pytest.raises(SettingError, match="vectors along the last axis"):
        F.token_dropout(torch.tensor(1.0))


# ---- patches


@pytest.mark.parametrize(("patches", "prefix", "p", "kept"), [
    (196, 1, 0.5, 98), (196, 0, 0.26, 145), (10, 2, 0.99, 1), (1, 1, 0.5, 1), (7, 0, 0.5, 4),
])  # fmt: skip
def test_exactly_so_many_patches_stay_in_order(
    patches: int, prefix: int, p: float, kept: int
) -> None:
    x = torch.arange(3.0 * (prefix + patches)).view(3, -1, 1)
    y, which = F.patch_dropout(x, p, prefix=prefix, key=5)
    assert which is not None
    assert which.shape == (3, kept)
    assert torch.equal(y[:, :prefix], x[:, :prefix])
    assert torch.equal(y[:, prefix:, 0], x[:, prefix:, 0].gather(1, which))
    assert bool((which.diff(dim=1) > 0).all())


def test_each_patch_stays_equally_often() -> None:
    _, which = F.patch_dropout(torch.ones(4000, 9, 1), 0.75, prefix=1, key=1)
    assert which is not None
    assert all(within(int(count), 4000, 2 / 8) for count in which.flatten().bincount(minlength=8))


def test_patches_outside_of_training() -> None:
    x = torch.ones(2, 9, 4)
    assert nn.PatchDropout(0.5).eval()(x) is x
    y, kept = nn.PatchDropout(0.5, return_indices=True).eval()(x)
    assert y is x
    assert kept is None
    y, kept = nn.PatchDropout(0.5, 0, return_indices=True)(x)
    assert (y.shape, kept.shape) == ((2, 5, 4), (2, 5))


def test_complaints_about_patches() -> None:
    with pytest.raises(SettingError, match="expected a rate below 1"):
        nn.PatchDropout(1.0)
    with pytest.raises(SettingError, match="prefix: expected a number of tokens"):
        nn.PatchDropout(0.5, -1)
    for shape in ((2, 9), (2, 1, 4)):
        with pytest.raises(SettingError, match=r"expected \(N, 1 \+ T, D\)"):
            nn.PatchDropout(0.5)(torch.ones(shape))


# ---- words


def test_a_word_is_dropped_wherever_it_occurs() -> None:
    """Mutant: a draw for each occurrence."""
    layer = nn.EmbeddingDropout(torch.nn.Embedding(1000, 3), 0.3)
    torch.nn.init.ones_(layer.embedding.weight)
    ids = torch.arange(1000).repeat(2).view(2, 1000)
    y = layer(ids, key=1)
    assert torch.equal(y[0], y[1])
    assert within(int((y[0, :, 0] == 0).sum()), 1000, 0.3)
    assert torch.equal(y, torch.nn.functional.embedding(
        ids, F.dropout(layer.embedding.weight, 0.3, shared=(1,), key=1)
    ))  # fmt: skip
    y.sum().backward()
    assert torch.equal(layer.embedding.weight.grad, 2 * y[0])


@pytest.mark.parametrize("options", [{"sparse": True}, {"padding_idx": 0}, {"max_norm": 1.0}])
def test_an_embedding_keeps_its_options(options: dict[str, object]) -> None:
    layer = nn.EmbeddingDropout(torch.nn.Embedding(9, 3, **options), 0.5)
    ids = torch.tensor([[0, 3, 8]])
    layer(ids).sum().backward()
    assert layer.embedding.weight.grad.is_sparse == ("sparse" in options)
    assert torch.equal(layer.eval()(ids), layer.embedding(ids))
    with pytest.raises(SettingError, match="a vector for each of the ids"):
        F.embedding_dropout(torch.ones(2, 3), torch.ones(3, dtype=torch.long), 9)


# ---- heads


def test_heads_are_dropped_whole_on_their_axis() -> None:
    y = nn.HeadDropout(0.4, axis=-2)(torch.ones(500, 7, 8, 3), key=2)
    assert torch.equal(y, y[:, :1, :, :1].expand_as(y))
    assert within(int((y[:, 0, :, 0] == 0).sum()), 4000, 0.4)
    for axis in (0, -4, 4):
        with pytest.raises(SettingError, match="axis: expected an axis of heads"):
            F.head_dropout(y, axis=axis)
