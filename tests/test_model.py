"""A model predicts the same for a row in any company, and after any journey through JSON."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from dropkit.errors import ColumnError, DropkitWarning
from dropkit.training.model import Model
from dropkit.training.network import Inputs, forward
from workbench import TARGETS, finished, mixed, search, text


@functools.cache
def fitted(target: str) -> Model:
    return finished(search(mixed(64), target, budget=2048)).model()


def rows(count: int = 64) -> pd.DataFrame:
    """New rows, without a target, whose levels are known."""
    frame = mixed(count, key=3).drop(columns=list(TARGETS))
    return frame.assign(town=frame.town.where(frame.town.isin(mixed(64).town.unique()), None))


@pytest.mark.parametrize("target", TARGETS)
def test_predictions_have_their_form(target: str) -> None:
    predicted = fitted(target).predict(rows())
    assert predicted.dtype == np.float64 and np.isfinite(predicted).all()
    if target == "amount":
        assert predicted.shape == (64,)
    else:
        assert predicted.shape == (64, len(fitted(target).schema.classes))
        assert (predicted >= 0).all()
        assert np.allclose(predicted.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_survives_json_bit_for_bit(target: str) -> None:
    """Mutants: shares or a temperature that are rounded; tuples that come back as lists."""
    tensors, description = fitted(target).state()
    again = Model.restore(tensors, text(description))
    assert np.array_equal(again.predict(rows()), fitted(target).predict(rows()))
    assert again.schema == fitted(target).schema
    assert text(again.state()[1]) == text(description)
    assert all(value.is_contiguous() for value in tensors.values())


@pytest.mark.parametrize("target", TARGETS)
def test_a_row_does_not_feel_its_neighbours(target: str) -> None:
    """Mutants: batch statistics; scales of the new table; a cut at 1024 rows that loses one."""
    many = pd.concat([rows(700), rows(700)], ignore_index=True)
    together = fitted(target).predict(many)
    assert len(together) == 1400
    assert np.allclose(together[:700], together[700:], atol=1e-12, rtol=0)
    for row in (0, 5, 1023, 1024, 1399):
        alone = fitted(target).predict(many.iloc[[row]])
        assert np.allclose(alone[0], together[row], atol=1e-12, rtol=0)
    order = np.random.default_rng(0).permutation(1400)
    assert np.allclose(
        fitted(target).predict(many.iloc[order]), together[order], atol=1e-12, rtol=0
    )


def test_columns_are_found_by_name() -> None:
    model, frame = fitted("won"), rows()
    moved = frame[frame.columns[::-1]].assign(won="maybe", extra=np.nan)
    assert np.array_equal(model.predict(moved), model.predict(frame))
    moved.index = pd.Index(range(100, 164))[::-1]
    assert np.array_equal(model.predict(moved), model.predict(frame))
    with pytest.raises(ColumnError, match="shade"):
        model.predict(frame.drop(columns="shade"))
    with pytest.raises(ColumnError, match="size"):
        model.predict(frame.assign(size="large"))


def test_no_rows_have_no_predictions() -> None:
    assert fitted("won").predict(rows().iloc[:0]).shape == (0, 2)
    assert fitted("amount").predict(rows().iloc[:0]).shape == (0,)


def test_an_unseen_level_is_unknown_and_said() -> None:
    frame = rows()
    with pytest.warns(DropkitWarning, match="'shade'.*'mauve'"):
        predicted = fitted("won").predict(frame.assign(shade="mauve"))
    assert np.isfinite(predicted).all()


def test_predicting_draws_nothing_and_moves_nothing() -> None:
    """Evaluation mode: twice the same, and no global state touched."""
    state, model = torch.get_rng_state(), fitted("won")
    before = {name: value.clone() for name, value in model.state()[0].items()}
    assert np.array_equal(model.predict(rows()), model.predict(rows()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state()[0].items())
    assert torch.is_grad_enabled()


def test_a_prediction_is_the_weighted_mean_of_plain_networks() -> None:
    """Mutants: shares of trials that are not shared among folds; a mean of outputs, not values."""
    model = fitted("amount")
    seen = model._encoder.transform(rows())
    weights = {name: value.double() for name, value in model._networks.items()}
    total: Any = 0.0
    for member, share in enumerate(model._shares):
        one = {name: value[[member]] for name, value in weights.items()}
        given = Inputs(seen.numbers[None].double(), seen.flags[None].double(), seen.codes[None])
        total = total + share * model._readout.read(
            forward(model._shape, one, model._encoder.bins(), given)[0]
        )
    assert sum(model._shares) == pytest.approx(1.0)
    assert np.allclose(model.predict(rows()), total.numpy(), atol=1e-12)


def journey() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, description = fitted("won").state()
    return dict(tensors), text(description)


@pytest.mark.parametrize("name", ["weight.0", "bias.3", "pieces"])
def test_a_missing_tensor_is_an_error(name: str) -> None:
    tensors, description = journey()
    del tensors[name]
    with pytest.raises(KeyError, match=name):
        Model.restore(tensors, description)


@pytest.mark.parametrize("name", ["weight.0", "bias.3", "pieces"])
def test_a_misshaped_tensor_is_an_error(name: str) -> None:
    tensors, description = journey()
    tensors[name] = tensors[name][..., :-1]
    with pytest.raises(ValueError, match=name):
        Model.restore(tensors, description)


@pytest.mark.parametrize("name", ["schema", "encoder", "readout", "shape", "shares", "temperature"])
def test_a_missing_part_of_the_description_is_an_error(name: str) -> None:
    tensors, description = journey()
    del description[name]
    with pytest.raises(KeyError, match=name):
        Model.restore(tensors, description)


def without_a_recipe(description: dict[str, Any]) -> None:
    description["encoder"]["recipes"].pop()


def with_another_level(description: dict[str, Any]) -> None:
    recipe = next(recipe for recipe in description["encoder"]["recipes"] if recipe["onehot"])
    recipe["onehot"].append("more")


def with_fewer_bins(description: dict[str, Any]) -> None:
    recipe = next(r for r in description["encoder"]["recipes"] if r["numbers"])
    recipe["numbers"][0]["ends"].pop()


def with_another_class(description: dict[str, Any]) -> None:
    description["schema"]["classes"].append("perhaps")


def with_more_shares(description: dict[str, Any]) -> None:
    description["shares"].append(0.1)


def with_an_unknown_field(description: dict[str, Any]) -> None:
    description["shape"]["activation"] = "relu"


@pytest.mark.parametrize(
    "spoil",
    [
        without_a_recipe,
        with_another_level,
        with_fewer_bins,
        with_another_class,
        with_more_shares,
        with_an_unknown_field,
    ],
)
def test_a_description_that_contradicts_itself_is_an_error(spoil: Any) -> None:
    """Mutant: a model that is restored and only fails, or worse, does not, when it predicts."""
    tensors, description = journey()
    spoil(description)
    with pytest.raises((ValueError, TypeError, KeyError)):
        Model.restore(tensors, description)
