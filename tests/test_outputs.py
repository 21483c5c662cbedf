"""Outputs are read in the target's own units, and never far outside of what was seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropkit.training.outputs import Readout
from workbench import text

VALUES = np.array([10.0, 20.0, 30.0, 100.0])
CODES = np.array([0, 1, 1, 2, 1])


def test_values_are_standardized_and_read_back() -> None:
    readout = Readout.fit(VALUES, 0)
    learned = readout.learned(VALUES)
    assert learned.dtype == torch.float32
    assert float(learned.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(learned.std(correction=0)) == pytest.approx(1.0)
    assert readout.outputs == 1
    assert torch.allclose(readout.read(learned[:, None]), torch.from_numpy(VALUES), rtol=1e-6)
    assert torch.equal(readout.judged(VALUES), torch.from_numpy(VALUES))
    assert not readout.prior(VALUES).any()


def test_a_value_goes_little_beyond_what_was_seen() -> None:
    read = Readout.fit(VALUES, 0).read(torch.tensor([[-1e6], [1e6]]))
    assert read.tolist() == pytest.approx([10 - 4.5, 100 + 4.5])


def test_a_loss_is_told_in_the_target_s_units() -> None:
    """Mutant: the standardized loss, which is 1 for any target."""
    readout = Readout.fit(VALUES, 0)
    error = readout.learned(VALUES).square().mean()  # of a network that has learned nothing
    assert readout.error(float(error)) == pytest.approx(VALUES.std(), rel=1e-6)
    assert Readout.fit(CODES, 3).error(0.5) == 0.5


@pytest.mark.parametrize("values", [[5.0] * 4, [1e12, 1e12 + 1], [1e-300, 3e-300], [1e200, -3e200]])
def test_odd_targets_stay_finite(values: list[float]) -> None:
    readout = Readout.fit(np.array(values), 0)
    read = readout.read(readout.learned(np.array(values))[:, None])
    assert read.isfinite().all()
    assert read.tolist() == pytest.approx(values, rel=1e-6)


def test_classes_are_read_as_probabilities() -> None:
    readout = Readout.fit(CODES, 3)
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert readout.outputs == 3
    assert torch.equal(readout.read(logits), logits.double().softmax(-1))
    assert readout.learned(CODES).tolist() == readout.judged(CODES).tolist() == CODES.tolist()


def test_the_prior_is_the_frequencies_with_one_row_more_of_each() -> None:
    """Mutants: frequencies without logarithm; a class that is absent and minus infinity."""
    prior = Readout.fit(CODES, 4).prior(CODES)
    assert prior.softmax(0).tolist() == pytest.approx([2 / 9, 4 / 9, 2 / 9, 1 / 9])


@pytest.mark.parametrize("readout", [Readout.fit(VALUES, 0), Readout.fit(CODES, 3)])
def test_a_readout_survives_json(readout: Readout) -> None:
    assert Readout.restore(text(readout.state())) == readout
