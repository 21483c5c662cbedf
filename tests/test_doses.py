"""What each member is given: whole features, exact rates, and nothing that it did not order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dropkit.kernel import Stream
from dropkit.records import Cocktail
from dropkit.training.doses import Doses, row_loss
from dropkit.training.encoding import Layout
from dropkit.training.network import EMBEDDING_WIDTH, Inputs
from workbench import LAYOUT, RICH, SHAPE, within

ROWS = 4001


def doses(*cocktails: Cocktail, layout: Layout = LAYOUT) -> Doses:
    return Doses(cocktails, layout, torch.device("cpu"))


def numbered(members: int = 2, rows: int = ROWS) -> Inputs:
    """Inputs in which each cell tells from which row it comes."""
    row = torch.arange(rows).view(1, -1, 1)
    return Inputs(
        row.expand(members, -1, 2).float(),
        row.expand(members, -1, 3).float(),
        row.expand(members, -1, 1),
    )


def other(cells: Tensor) -> Tensor:
    """Where a cell comes from another row."""
    return cells != torch.arange(cells.shape[1]).view(1, -1, 1)


MASKING = doses(Cocktail(), Cocktail(feature_masking=0.2))


def test_masking_swaps_features_as_a_whole() -> None:
    """Mutant: the levels of a one-hot block swapped one by one, which makes rows of two levels."""
    flags = other(MASKING.corrupt(numbered(), Stream(1)).flags)
    assert torch.equal(flags.any(-1), flags.all(-1))
    assert flags[1].any()


def test_masking_takes_a_cell_of_another_row_at_its_rate() -> None:
    """Mutants: cells replaced by zero; the keep rate for the rate; one draw for all features."""
    seen = MASKING.corrupt(numbered(), Stream(1))
    rate = float(torch.tensor(0.2))
    swapped = [other(seen.numbers)[1, :, 0], other(seen.numbers)[1, :, 1]]
    swapped += [other(seen.flags)[1, :, 0], other(seen.codes)[1, :, 0]]
    for feature in swapped:
        assert within(int(feature.sum()), ROWS, rate)
    for place, feature in enumerate(swapped):
        for rival in swapped[:place]:
            assert within(int((feature & rival).sum()), ROWS, rate**2)
    assert seen.numbers.max() < ROWS and (seen.numbers == seen.numbers.round()).all()


def test_who_did_not_order_masking_gets_none() -> None:
    seen = MASKING.corrupt(numbered(), Stream(1))
    assert not any(other(cells)[0].any() for cells in (seen.numbers, seen.flags, seen.codes))


def test_noise_falls_on_numbers_alone_with_its_spread() -> None:
    """Mutants: noise on flags; a variance for a standard deviation; one draw for all members."""
    given = numbered(3)
    dosed = doses(Cocktail(), Cocktail(feature_noise=0.1), Cocktail(feature_noise=0.1))
    seen = dosed.corrupt(Inputs(given.numbers * 0, given.flags, given.codes), Stream(1))
    assert seen.flags is given.flags and seen.codes is given.codes
    assert not seen.numbers[0].any()
    assert float(seen.numbers[1].std()) == pytest.approx(0.1, rel=0.06)
    assert abs(float((seen.numbers[1] * seen.numbers[2]).mean())) < 0.01 * 5 / (2 * ROWS) ** 0.5


def test_an_absent_ingredient_leaves_the_very_objects() -> None:
    """Mutant: an ingredient that nobody ordered, and that costs time or moves the stream."""
    given, plain = numbered(), doses(Cocktail(), Cocktail())
    seen = plain.corrupt(given, Stream(1))
    assert (seen.numbers, seen.flags, seen.codes) == (given.numbers, given.flags, given.codes) or (
        seen.numbers is given.numbers and seen.flags is given.flags and seen.codes is given.codes
    )
    mixed, share = plain.mix(given, Stream(1))
    assert mixed is given and share is None
    masks = plain.masks(SHAPE, 5, Stream(1))
    assert masks.numbers is masks.others is masks.hidden is None


def test_mixup_is_convex_and_its_share_is_the_label_s() -> None:
    """Mutants: the share of the neighbour for the label; a share for flags of their own."""
    dosed = doses(Cocktail(), Cocktail(mixup=0.4), Cocktail(mixup=0.4))
    given = numbered(3, rows=50)
    seen, share = dosed.mix(given, Stream(2))
    assert share is not None and share.shape == (3, 1)
    assert share[0] == 1.0 and 0 < share[1] < 1 and share[1] != share[2]
    assert torch.equal(seen.numbers[0], given.numbers[0])
    assert torch.equal(seen.codes[0], given.codes[0])
    for mixed, own in ((seen.numbers, given.numbers), (seen.flags, given.flags)):
        expected = share[..., None] * own + (1 - share[..., None]) * own.roll(1, dims=1)
        assert torch.allclose(mixed, expected, atol=1e-4)
    for member in (1, 2):
        expected = given.codes[member] if share[member] >= 0.5 else given.codes[member].roll(1, 0)
        assert torch.equal(seen.codes[member], expected)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_mixed_loss_is_the_share_of_both_labels(outputs: int) -> None:
    """Mutants: the loss of the own label alone; a neighbour on the other side than mixup's."""
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 8, outputs, generator=source)
    codes = torch.randint(3, (2, 8), generator=source)
    truth = codes.float() if outputs == 1 else codes
    share = torch.tensor([[1.0], [0.3]])
    got = doses(Cocktail(), Cocktail(mixup=0.2)).loss(logits, truth, share)
    plain = row_loss(logits, truth)
    beside = torch.stack(
        [row_loss(logits[:, [row]], truth[:, [row - 1]])[:, 0] for row in range(8)], 1
    )
    assert torch.allclose(got[0], plain[0].mean())
    assert torch.allclose(got[1], (0.3 * plain[1] + 0.7 * beside[1]).mean())


def test_smoothing_is_torch_s_own_for_each_member() -> None:
    """Mutants: the first member's smoothing for all; mass shared among the other classes only."""
    source = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(3, 9, 4, generator=source), torch.arange(27).view(3, 9) % 4
    amounts = (0.0, 0.1, 0.4)
    got = doses(*(Cocktail(label_smoothing=a) for a in amounts)).loss(logits, truth, None)
    for member, amount in enumerate(amounts):
        expected = functional.cross_entropy(logits[member], truth[member], label_smoothing=amount)
        assert torch.allclose(got[member], expected)


def test_values_are_judged_by_their_squared_error() -> None:
    outputs, truth = (
        torch.randn(2, 9, 1, generator=torch.Generator().manual_seed(0)),
        torch.ones(2, 9),
    )
    got = doses(RICH, RICH).loss(outputs, truth, None)
    assert torch.allclose(got, (outputs[..., 0] - 1).square().mean(1))


def test_input_dropout_drops_features_as_a_whole() -> None:
    """Mutants: one level of a block dropped; a vector dropped by elements; no scaling."""
    masks = doses(Cocktail(), Cocktail(input_dropout=0.2)).masks(SHAPE, ROWS, Stream(3))
    assert masks.hidden is None and masks.numbers is not None and masks.others is not None
    assert masks.numbers.shape == (2, ROWS, 2)
    assert masks.others.shape == (2, ROWS, 3 + EMBEDDING_WIDTH)
    assert (masks.numbers[0] == 1).all() and (masks.others[0] == 1).all()
    for block in (masks.others[1, :, :3], masks.others[1, :, 3:]):
        assert torch.equal(block.amin(1), block.amax(1))
    rate = float(torch.tensor(0.2))
    features = [
        masks.numbers[1, :, 0],
        masks.numbers[1, :, 1],
        masks.others[1, :, 0],
        masks.others[1, :, 3],
    ]
    for feature in features:
        assert within(int((feature == 0).sum()), ROWS, rate)
        assert feature.max() == pytest.approx(1 / (1 - rate))
    assert within(int(((features[2] == 0) & (features[3] == 0)).sum()), ROWS, rate**2)


def test_hidden_dropout_is_each_member_s_own_on_every_layer() -> None:
    """Mutants: one mask for all layers; rates in another order than the members."""
    rates = (0.0, 0.1, 0.5)
    masks = doses(*(Cocktail(hidden_dropout=rate) for rate in rates)).masks(SHAPE, ROWS, Stream(3))
    assert masks.numbers is None and masks.hidden is not None
    assert [tuple(mask.shape) for mask in masks.hidden] == [(3, ROWS, 8), (3, ROWS, 7)]
    for member, rate in enumerate(torch.tensor(rates).tolist()):
        for mask in masks.hidden:
            assert within(int((mask[member] == 0).sum()), mask[member].numel(), rate)
    first, second = (mask[2, :, :7] == 0 for mask in masks.hidden)
    assert within(int((first & second).sum()), first.numel(), 0.25)


def test_the_doses_of_some_members_are_theirs() -> None:
    rates = (0.1, 0.2, 0.3)
    some = doses(*(Cocktail(hidden_dropout=rate) for rate in rates)).only([2, 0])
    assert [cocktail.hidden_dropout for cocktail in some.cocktails] == [0.3, 0.1]
    assert some.column("hidden_dropout").shape == (2, 1, 1)


def test_a_table_without_features_can_be_dosed() -> None:
    empty = doses(RICH, layout=Layout((), (), (), ()))
    given = Inputs(torch.zeros(1, 6, 0), torch.zeros(1, 6, 0), torch.zeros(1, 6, 0).long())
    seen, _ = empty.mix(empty.corrupt(given, Stream(0)), Stream(0))
    assert seen.numbers.shape == (1, 6, 0)
    assert empty.masks(SHAPE, 6, Stream(0)).numbers is None
