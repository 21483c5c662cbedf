"""Draws are thinned networks: by their shares, at their rates, whoever asks for which rows."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.kernel import derive
from dropkit.training.columns import encode_target
from dropkit.training.encoding import Encoded
from dropkit.training.model import Model
from dropkit.training.network import EMBEDDING_WIDTH, Inputs, Shape, encode, forward
from dropkit.training.outputs import Readout
from dropkit.training.search import Search
from dropkit.training.thinning import Kind, Network, Rates, draws, masks, order
from workbench import (
    ENDS,
    LAYOUT,
    TARGETS,
    bins_of,
    finished,
    mixed,
    parameters,
    rows_of,
    search,
    text,
    within,
)

SMALL = Shape(numbers=2, pieces=5, flags=3, levels=(6,), hidden=(3, 2), outputs=3)
CLASSES, VALUES = Readout(3), Readout(0, 1.0, 2.0, -50.0, 50.0)


def kind(readout: Readout, shape: Shape = SMALL) -> Kind:
    return Kind(shape, LAYOUT, bins_of(*ENDS), readout)


def network(rates: Rates, member: int = 0, shape: Shape = SMALL) -> Network:
    whole = parameters(shape)
    return Network({name: value[member : member + 1] for name, value in whole.items()}, rates)


@functools.cache
def searched(target: str) -> Search:
    return finished(search(mixed(64), target, budget=2048))


def table(count: int = 40) -> pd.DataFrame:
    """New rows, whose levels are known."""
    frame = mixed(count, key=3)
    return frame.assign(town=frame.town.where(frame.town.isin(mixed(64).town.unique()), None))


def rows(count: int = 40) -> Encoded:
    return searched("won").model().encode(table(count))


# ---- whose turn it is


@pytest.mark.parametrize("seed", range(20))
def test_every_network_has_its_share_after_every_draw(seed: int) -> None:
    """Mutants: draws at random; the largest deficit first, which leaves some behind by more than
    one; shares that are rounded once for all draws, which is right at their end only."""
    source = np.random.default_rng(seed)
    shares = source.random(int(source.integers(1, 40))) ** source.choice([1, 5])
    shares /= shares.sum()
    taken = np.zeros((400, len(shares)))
    taken[np.arange(400), order(shares.tolist(), 400)] = 1
    wanted = shares * np.arange(1, 401)[:, None]
    assert np.abs(taken.cumsum(0) - wanted).max() < 1


def test_a_turn_does_not_depend_on_how_many_follow() -> None:
    shares = [0.45, 0.3, 0.15, 0.1]
    assert order(shares, 7) == order(shares, 50)[:7]


def test_a_network_without_a_share_has_no_turn() -> None:
    assert order([0.0, 1.0, 0.0], 5) == [1] * 5


def test_equal_shares_take_turns() -> None:
    """Of as many draws as networks, each has one: nothing else is as near to the shares."""
    assert sorted(order([1 / 24] * 24, 24)) == list(range(24))


# ---- what a draw is


def exactly(readout: Readout, rates: Rates, seen: Encoded) -> tuple[Tensor, Tensor]:
    """Mean and variance over all masks of a small network, one by one, by plain matrix products."""
    weights, features, hidden = network(rates).parameters, 4, sum(SMALL.hidden)
    chances = [rates.input] * features + [rates.hidden] * hidden
    table = weights["embedding.0"][0]
    pieces, level = encode(seen.numbers.double(), bins_of(*ENDS)), table[seen.codes[:, 0]]
    total = square = torch.zeros(())
    for kept in itertools.product((0.0, 1.0), repeat=features + hidden):
        chance = np.prod([1 - p if one else p for one, p in zip(kept, chances, strict=True)])
        if not chance:
            continue
        factor = [one / (1 - p) for one, p in zip(kept, chances, strict=True)]
        a, b, flag, code = factor[:features]
        first, second = torch.tensor(factor[4:7]).double(), torch.tensor(factor[7:9]).double()
        numbers = seen.numbers.double() * torch.tensor([a, b]).double()
        plain = torch.cat([numbers, seen.flags.double() * flag, level * code], 1)
        bent = pieces * torch.tensor([a, a, a, b, b]).double()
        state = plain @ weights["weight.0"][0] + bent @ weights["pieces"][0] + weights["bias.0"][0]
        state = torch.nn.functional.silu(state) * first
        state = torch.nn.functional.silu(state @ weights["weight.1"][0] + weights["bias.1"][0])
        outputs = (state * second) @ weights["weight.2"][0] + weights["bias.2"][0]
        read = readout.read(outputs)
        total, square = total + chance * read, square + chance * read**2
    return total, square - total**2


@pytest.mark.parametrize("readout", [CLASSES, VALUES], ids=["classes", "values"])
@pytest.mark.parametrize("rates", [Rates(0.2, 0.0), Rates(0.0, 0.4), Rates(0.3, 0.5)])
def test_draws_have_the_mean_and_variance_of_all_masks(readout: Readout, rates: Rates) -> None:
    """Of 3,000 draws, within 5.5 standard errors, which a true one misses by chance once in 10^7.

    Mutants: the keep rate for the rate; masks without their scale; a number's pieces, or a level's
    vector, dropped one by one; input and hidden rates exchanged; one layer that is not dropped.
    """
    seen, count = rows_of(3), 3000
    found = draws(kind(readout), [network(rates)], [1.0], seen, 11, range(count))
    mean, variance = exactly(readout, rates, seen)
    centred = (found - mean) ** 2
    for average, spread, expected in (
        (found.mean(0), found.std(0), mean),
        (centred.mean(0), centred.std(0), variance),
    ):
        assert (spread > 0).all()
        assert ((average - expected).abs() < 5.5 * spread / count**0.5).all()


def test_masks_are_dropped_at_the_rate_of_their_network() -> None:
    """Mutant: the rates of the winner, or of the first network, for all."""
    wide = Shape(numbers=2, pieces=5, flags=3, levels=(6,), hidden=(4001,), outputs=3)
    for rate in (0.1, 0.6):
        drawn = masks(kind(CLASSES, wide), Rates(0.0, rate), 5)
        assert drawn is not None and drawn.hidden is not None and drawn.numbers is None
        assert within(int((drawn.hidden[0] == 0).sum()), 4001, float(torch.tensor(rate)))


def test_without_rates_a_draw_is_its_network() -> None:
    seen = rows_of(5)
    networks = [network(Rates(0.0, 0.0), member) for member in range(3)]
    found = draws(kind(CLASSES), networks, [0.5, 0.25, 0.25], seen, 1, range(4))
    given = Inputs(seen.numbers[None].double(), seen.flags[None].double(), seen.codes[None])
    for draw, member in enumerate(order([0.5, 0.25, 0.25], 4)):
        plain = forward(SMALL, networks[member].parameters, bins_of(*ENDS), given)
        assert torch.equal(found[draw], CLASSES.read(plain)[0])


# ---- of a model


@pytest.mark.parametrize("target", TARGETS)
def test_draws_have_their_form(target: str) -> None:
    model, seen = searched(target).model(), rows()
    found = model.draws(seen, 6, key=1)
    classes = len(model.schema.classes)
    assert found.shape == ((6, 40, classes) if classes else (6, 40))
    assert found.dtype == torch.float64
    assert (found.std(0) > 0).all()
    assert model.draws(seen[:0], 6, key=1).shape[:2] == (6, 0)
    if classes:
        assert torch.allclose(found.sum(-1), torch.ones(6, 40, dtype=torch.float64))


def test_a_draw_is_replayed_alone_bit_for_bit() -> None:
    """Mutants: keys drawn one after the other; turns counted from the first draw asked for."""
    model, seen = searched("rank").model(), rows()
    all_of_them = model.draws(seen, 9, key=4)
    assert torch.equal(model.draws(seen, 9, key=4), all_of_them)
    assert not torch.equal(model.draws(seen, 9, key=5), all_of_them)
    for draw in range(9):
        assert torch.equal(model.draws(seen, 1, key=4, first=draw)[0], all_of_them[draw])


def test_a_rows_draws_do_not_feel_its_neighbours() -> None:
    """Mutant: a mask of its own for each place in the table."""
    model, seen = searched("amount").model(), rows()
    together = model.draws(seen, 5, key=4)
    for row in (0, 17, 39):
        alone = model.draws(seen[row : row + 1], 5, key=4)
        assert torch.allclose(alone[:, 0], together[:, row], atol=1e-12, rtol=0)


def test_draws_move_nothing() -> None:
    state, model, seen = torch.get_rng_state(), searched("won").model(), rows()
    frame = table(20).drop(columns=list(TARGETS))
    before = model.predict(frame)
    model.draws(seen, 3, key=0)
    assert np.array_equal(model.predict(frame), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_rates_survive_json() -> None:
    model, seen = searched("won").model(), rows()
    again = Model.restore(model.state()[0], text(model.state()[1]))
    assert again.rates == model.rates
    assert torch.equal(again.draws(seen, 4, key=9), model.draws(seen, 4, key=9))


def with_rates(change: Any, keep: int | None = None) -> Model:
    """The model with other rates, and of its networks the first few."""
    tensors, description = searched("won").model().state()
    described = text(description)
    described["rates"] = change(described["rates"])
    if keep is not None:
        tensors = {name: value[:keep] for name, value in tensors.items()}
        described |= {"shares": [1.0 / keep] * keep, "rates": described["rates"][:keep]}
    return Model.restore(tensors, described)


def test_what_makes_draws_differ_is_said() -> None:
    still = lambda rates: [[0.0, 0.0] for _ in rates]  # noqa: E731
    half = lambda rates: [[0.0, 0.5] for _ in rates]  # noqa: E731
    assert with_rates(half).varied == "masks and networks"
    assert with_rates(half, 1).varied == "masks"
    assert with_rates(still).varied == "networks"
    assert with_rates(still, 1).varied == ""
    with pytest.raises(SettingError, match="single network without dropout"):
        with_rates(still, 1).draws(rows(), 3, key=0)


def test_a_model_without_rates_predicts_and_says_why_it_cannot_be_sampled() -> None:
    model, frame = with_rates(lambda _: None), table(20)
    assert np.array_equal(model.predict(frame), searched("won").model().predict(frame))
    with pytest.raises(SettingError, match="Fit it again"):
        model.draws(rows(), 3, key=0)


@pytest.mark.parametrize(("count", "first"), [(0, 0), (-1, 0), (2, -1)])
def test_no_draws(count: int, first: int) -> None:
    with pytest.raises(SettingError, match="1 draw or more"):
        searched("won").model().draws(rows(), count, key=0, first=first)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rates: rates[:-1],
        lambda rates: [[0.1] for _ in rates],
        lambda rates: [[0.1, 1.0] for _ in rates],
        lambda rates: [[-0.1, 0.0] for _ in rates],
        lambda rates: [[float("nan"), 0.0] for _ in rates],
        lambda rates: [["0.1", 0.0] for _ in rates],
        lambda _: 0.3,
    ],
)
def test_rates_that_cannot_be(spoil: Any) -> None:
    with pytest.raises(ValueError, match="rates"):
        with_rates(spoil)


# ---- of validation rows


@pytest.mark.parametrize("target", TARGETS)
def test_validation_rows_are_sampled_by_networks_that_did_not_train_on_them(target: str) -> None:
    """Mutants: all networks for all rows; another fold's; truth in another order."""
    one = searched(target)
    found, truth = one.draws(6, key=2, most=1000)
    held = torch.cat(one._folds)
    expected = one._readout.judged(encode_target(mixed(64)[target], one._schema))[held]
    assert torch.equal(truth, expected)
    now = one._stands()
    turns = order([weight for _, weight in now.weights], 6)
    place = 0
    for fold, inside in enumerate(one._folds):
        for draw in range(6):
            result = now.results[now.weights[turns[draw]][0]]
            weights = {name: value[[fold]].double() for name, value in result.weights.items()}
            given = one._material.rows[inside]
            drawn = masks(_kind(one), Rates.of(result.trial.cocktail), derive(2, draw))
            outputs = forward(
                one._material.shape,
                weights,
                one._encoder.bins(),
                Inputs(given.numbers[None].double(), given.flags[None].double(), given.codes[None]),
                drawn,
            )
            seen = found[draw, place : place + len(inside)]
            assert torch.allclose(seen, one._readout.read(outputs)[0], atol=1e-12, rtol=0)
        place += len(inside)


def _kind(one: Search) -> Kind:
    material = one._material
    return Kind(material.shape, material.layout, one._encoder.bins(), one._readout)


def test_of_many_validation_rows_a_part_of_every_fold_is_sampled() -> None:
    one = searched("amount")
    found, truth = one.draws(2, key=2, most=24)
    assert found.shape == (2, len(truth)) and len(one._folds) <= len(truth) <= 24
    assert torch.isin(truth, one._truth).all() and len(truth.unique()) == len(truth)


def test_the_embedding_is_dropped_as_a_whole() -> None:
    drawn = masks(kind(CLASSES), Rates(0.5, 0.0), 3)
    assert drawn is not None and drawn.others is not None
    level = drawn.others[0, 0, -EMBEDDING_WIDTH:]
    assert len(level.unique()) == 1
