"""Moments: what was added in parts is what was kept, however it was parted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dropkit.errors import SettingError
from dropkit.posterior.draws import Draws
from dropkit.posterior.moments import Moments
from made_up_draws import noise

VALUES = noise(60, 3, 4)
LOGITS = 3 * noise(60, 3, 5)
OF_VALUES = ("mean", "var", "std")
OF_CLASSES = ("probabilities", "entropy", "expected_entropy", "mutual_information",
              "variation_ratio")  # fmt: skip
CHUNKS = ([60], [1] * 60, [2, 58], [59, 1], [7, 13, 40], [20, 20, 20])


def added(samples: Any, sizes: list[int], **options: Any) -> Moments:
    moments = Moments(**options)
    for chunk in torch.split(samples, sizes):
        moments.add(chunk)
    return moments


def close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("sizes", CHUNKS, ids=lambda sizes: f"{len(sizes)} of {sizes[0]}")
def test_chunking_changes_nothing(sizes: list[int]) -> None:
    """Mutants: a mean of chunks' means; a merge of powers without its mixed terms."""
    kept, streamed = Draws.of(VALUES**3), added(VALUES**3, sizes).draws()  # skew
    assert streamed.count == 60
    for name in OF_VALUES:
        assert close(getattr(kept, name), getattr(streamed, name))
        assert close(kept.error(name), streamed.error(name))


@pytest.mark.parametrize("sizes", CHUNKS, ids=lambda sizes: f"{len(sizes)} of {sizes[0]}")
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_chunking_changes_nothing_for_classes(sizes: list[int], outputs: str) -> None:
    """Mutant: covariances merged without the step of the means."""
    samples = LOGITS if outputs == "logits" else LOGITS.softmax(-1)
    kept = Draws.of(samples, outputs=outputs)
    streamed = added(samples, sizes, outputs=outputs).draws()
    for name in (*OF_VALUES, *OF_CLASSES):
        assert close(getattr(kept, name), getattr(streamed, name))
        assert close(kept.error(name), streamed.error(name))


def test_the_axis_of_classes_may_be_any() -> None:
    moved = added(LOGITS.movedim(-1, 1), [10, 50], outputs="logits", class_axis=0).draws()
    plain = Draws.of(LOGITS, outputs="logits")
    assert close(moved.entropy, plain.entropy)
    assert close(moved.probabilities.T, plain.probabilities)


@pytest.mark.parametrize("sizes", [[2000], [1] * 2000, [3, 997, 1000]], ids=len)
def test_a_small_spread_about_a_large_mean_survives(sizes: list[int]) -> None:
    """Mutants: the sum of squares less the square of the sum; sums in float32."""
    x = (1000 + 0.01 * noise(2000, 2)).float()
    found = added(x, sizes).draws()
    assert torch.allclose(found.std, x.double().std(0), rtol=1e-9)
    assert torch.allclose(found.std, torch.full((2,), 0.01).double(), rtol=0.05)
    assert torch.allclose(found.error("std"), Draws.of(x).error("std"), rtol=1e-6)


def test_processes_are_merged() -> None:
    one, two = added(LOGITS[:17], [17], outputs="logits"), Moments("logits")
    two.merge(one)  # into none
    two.merge(added(LOGITS[17:], [3, 40], outputs="logits"))
    two.merge(Moments("logits"))  # of none
    assert two.count == 60 and one.count == 17
    assert close(two.draws().mutual_information, Draws.of(LOGITS, outputs="logits").epistemic)
    with pytest.raises(SettingError, match=r"expected moments of logits.*got those of values"):
        two.merge(Moments())


def test_draws_up_to_here_do_not_change_later() -> None:
    moments = added(VALUES[:20], [20])
    early = moments.draws(key=4)
    before = early.mean.clone()
    moments.add(VALUES[20:])
    assert torch.equal(early.mean, before) and early.count == 20 and early.key == 4
    assert moments.draws().count == 60


def test_trees_are_added_leaf_by_leaf() -> None:
    moments = Moments()
    for part in (slice(0, 25), slice(25, 60)):
        moments.add({"a": VALUES[part], "ids": LOGITS[part].long(), "n": "name"})
    draws = moments.draws()
    assert close(draws["a"].std, VALUES.std(0)) and draws.count == 60
    with pytest.raises(SettingError, match="variation_ratio"):
        _ = draws.mean
    with pytest.raises(SettingError, match="Try keeping the draws"):
        _ = draws["ids"].variation_ratio


def test_what_needs_the_draws_says_so() -> None:
    draws = added(VALUES, [60]).draws()
    for ask in (
        lambda: draws.samples,
        lambda: draws.quantile(0.5),
        lambda: draws.interval(),
        lambda: draws.error("quantile", 0.5),
        lambda: added(LOGITS, [60], outputs="logits").draws().tempered(2.0),
    ):
        with pytest.raises(SettingError, match="Try keeping the draws"):
            ask()
    assert list(draws.to_frame().columns)[-1] == "std_3"
    assert "moments only" in repr(draws)


def test_errors_of_many_classes_need_the_draws_and_the_rest_does_not() -> None:
    many = noise(30, 2, 33)
    kept, streamed = Draws.of(many, outputs="logits"), added(many, [30], outputs="logits").draws()
    for name in OF_CLASSES:
        assert close(getattr(kept, name), getattr(streamed, name))
    assert close(kept.error("probabilities"), streamed.error("probabilities"))
    with pytest.raises(SettingError, match=r"at most 32 classes.*got moments of 33"):
        streamed.error("entropy")
    assert kept.error("entropy").isfinite().all()


def test_excluded_classes_are_none_here_too() -> None:
    x = LOGITS.clone()
    x[..., 1] = -math.inf
    kept = Draws.of(x, outputs="logits")
    streamed = added(x, [30, 30], outputs="logits").draws()
    for name in OF_CLASSES:
        assert close(getattr(kept, name), getattr(streamed, name))
        assert close(kept.error(name), streamed.error(name))


def test_numbers_that_are_none_stay_visible() -> None:
    x = VALUES.clone()
    x[3, 0, 0] = math.nan
    found = added(x, [30, 30]).draws()
    assert not found.std[0, 0].isfinite() and found.std[0, 1].isfinite()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingError, match="one or more draws; got none"):
        Moments().draws()
    moments = added(VALUES, [60])
    with pytest.raises(SettingError, match="expected draws as before"):
        moments.add(LOGITS)
    with pytest.raises(SettingError, match="expected draws as before"):
        moments.add({"a": VALUES})
    with pytest.raises(SettingError, match="sum that is off"):
        Moments("probabilities").add(VALUES.abs() / 100)
    assert moments.count == 60 and Moments().count == 0
