"""Wrong implementations, each put in place of the right one by a monkeypatch.

A mutant is a function of a `MonkeyPatch`. `test_mutants` and `test_checks` show that the tests
and the checklist tell each from the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dropkit.kernel import Stream, streams
from dropkit.records import Cocktail
from dropkit.training import doses, network, optimizer, population, search
from dropkit.training.network import Bins, Inputs, Masks, Parameters, Shape

Mutant = Callable[[pytest.MonkeyPatch], None]

RIGHT = network.forward
SILU = functional.silu


@contextmanager
def patched(mutant: Mutant) -> Iterator[None]:
    """The mutant in force, within a block."""
    with pytest.MonkeyPatch.context() as patch:
        mutant(patch)
        yield


def _everywhere(
    patch: pytest.MonkeyPatch, right: Callable[..., Any], wrong: Callable[..., Any]
) -> None:
    """Put a function in another's place in each module, tests included, that has imported it."""
    name = right.__name__
    for module in list(sys.modules.values()):
        if vars(module).get(name) is right:
            patch.setattr(module, name, wrong)


# ---- the network


def masked_prediction(patch: pytest.MonkeyPatch) -> None:
    """Dropout left on at prediction: the common bug in production."""
    calls = iter(range(10**9))

    def wrong(
        shape: Shape, weights: Parameters, bins: Bins, inputs: Inputs, masks: Masks | None = None
    ) -> Tensor:
        if masks is None:
            stream, rate = Stream(next(calls)), torch.tensor(0.2)
            size = inputs.numbers.shape[:2]
            hidden = tuple(stream.keep(rate, (*size, width)) for width in shape.hidden)
            masks = Masks(None, None, tuple(mask.to(inputs.numbers) for mask in hidden))
            weights = {name: value + 0.01 for name, value in weights.items()}  # none is zero
        return RIGHT(shape, weights, bins, inputs, masks)

    _everywhere(patch, RIGHT, wrong)


def mask_before_activation(patch: pytest.MonkeyPatch) -> None:
    """Dropout between the linear map and its activation."""

    def wrong(
        shape: Shape, weights: Parameters, bins: Bins, inputs: Inputs, masks: Masks | None = None
    ) -> Tensor:
        hidden = iter(masks.hidden if masks is not None and masks.hidden is not None else ())

        def silu(state: Tensor) -> Tensor:
            return SILU(state * next(hidden, torch.ones(())))

        rest = None if masks is None else replace(masks, hidden=None)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(functional, "silu", silu)
            return RIGHT(shape, weights, bins, inputs, rest)

    _everywhere(patch, RIGHT, wrong)


def mask_on_output(patch: pytest.MonkeyPatch) -> None:
    """Dropout on the outputs, at the first member's rate, as well."""

    def wrong(
        shape: Shape, weights: Parameters, bins: Bins, inputs: Inputs, masks: Masks | None = None
    ) -> Tensor:
        outputs = RIGHT(shape, weights, bins, inputs, masks)
        if masks is None or masks.hidden is None or not (masks.hidden[-1] == 0).any():
            return outputs
        return outputs * masks.hidden[-1][..., : shape.outputs]

    _everywhere(patch, RIGHT, wrong)


def random_output_layer(patch: pytest.MonkeyPatch) -> None:
    """An output layer that does not start at zero."""
    right = network.initialize

    def wrong(shape: Shape, prior: Tensor, keys: Sequence[int]) -> Parameters:
        result = right(shape, prior, keys)
        result[f"weight.{len(shape.hidden)}"] += 0.5 * torch.arange(shape.outputs)
        return result

    _everywhere(patch, right, wrong)


def levels_of_the_first(patch: pytest.MonkeyPatch) -> None:
    """Every member looks its levels up in the first member's table."""
    patch.setattr(network, "_lookup", lambda table, codes: functional.embedding(codes, table[0]))


# ---- masks


def unscaled(patch: pytest.MonkeyPatch) -> None:
    """Masks without inverted scaling."""
    patch.setattr(Stream, "keep", lambda self, rate, shape: self.mask(rate, shape) * 1.0)


def kept_rate(patch: pytest.MonkeyPatch) -> None:
    """The papers' `p`, the share that is kept, taken for the rate."""
    right = Stream.mask
    patch.setattr(Stream, "mask", lambda self, rate, shape: right(self, 1.0 - rate, shape))


def one_mask_for_all(patch: pytest.MonkeyPatch) -> None:
    """All members share the first member's mask."""
    right = Stream.mask

    def wrong(self: Stream, rate: Tensor, shape: tuple[int, ...]) -> Tensor:
        return right(self, rate, shape)[:1].expand(shape)

    patch.setattr(Stream, "mask", wrong)


def global_draws(patch: pytest.MonkeyPatch) -> None:
    """Draws from torch's global generator."""
    patch.setattr(Stream, "normal", lambda self, shape: torch.randn(shape))


def commuting_words(patch: pytest.MonkeyPatch) -> None:
    """A key and its words joined by xor."""

    def wrong(key: int, *words: int) -> int:
        for word in words:
            key ^= word
        return key

    _everywhere(patch, streams.derive, wrong)


# ---- training


def decayed_biases(patch: pytest.MonkeyPatch) -> None:
    """Weight decay of everything."""
    patch.setattr(optimizer, "decays", lambda name: True)


def long_memory(patch: pytest.MonkeyPatch) -> None:
    """torch's default second moment."""
    patch.setattr(optimizer, "SECOND", 0.999)


def smoothing_of_none(patch: pytest.MonkeyPatch) -> None:
    """Label smoothing that is recorded, and not done."""
    right = doses.row_loss
    patch.setattr(doses, "row_loss", lambda outputs, truth, smoothing=0.0: right(outputs, truth))


def torn_features(patch: pytest.MonkeyPatch) -> None:
    """Each encoded column a feature of its own: a category loses single levels."""
    right = doses.Doses.__init__

    def wrong(self: Any, cocktails: Sequence[Cocktail], layout: Any, device: torch.device) -> None:
        first = 1 + max(layout.numbers, default=-1)
        flags = tuple(range(first, first + len(layout.flags)))
        right(self, cocktails, replace(layout, flags=flags), device)

    patch.setattr(doses.Doses, "__init__", wrong)


def leaking_folds(patch: pytest.MonkeyPatch) -> None:
    """Validation rows among the training rows."""
    patch.setattr(population, "_others", lambda fold, rows: torch.arange(rows))


def weights_of_the_end(patch: pytest.MonkeyPatch) -> None:
    """No early stopping: the last weights are kept, whatever validation says."""
    right = population.Population.evaluate

    def wrong(self: population.Population) -> None:
        losses = list(self.best_loss)
        self.best_loss = [float("inf")] * len(losses)
        right(self)
        self.best_loss = [min(pair) for pair in zip(losses, self.best_loss, strict=True)]

    patch.setattr(population.Population, "evaluate", wrong)


def forgotten_moments(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint without the optimizer's first moments."""
    right = population.Population.restore

    def wrong(self: population.Population, tensors: Any, values: Any) -> None:
        right(self, tensors, values)
        for value in self.optimizer.first.values():
            value.zero_()

    patch.setattr(population.Population, "restore", wrong)


def sum_over_members(patch: pytest.MonkeyPatch) -> None:
    """A loss in which members are multiplied: what one learns, the others feel."""
    right = doses.Doses.loss

    def wrong(self: doses.Doses, outputs: Tensor, truth: Tensor, share: Tensor | None) -> Tensor:
        losses = right(self, outputs, truth, share)
        return losses * losses.sum()

    patch.setattr(doses.Doses, "loss", wrong)


def clock_in_the_noise(patch: pytest.MonkeyPatch) -> None:
    """Randomness that is named by the call, not by the step."""
    calls, right = iter(range(10**9)), streams.derive
    patch.setattr(population, "derive", lambda key, *words: right(key, *words, next(calls)))


def the_best_always(patch: pytest.MonkeyPatch) -> None:
    """A winner without regard for the noise."""
    patch.setattr(search, "_TIE", 0.0)
