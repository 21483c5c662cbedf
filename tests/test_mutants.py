"""The tests are tested: each wrong implementation makes the test fail that should catch it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import mutants
import test_doses
import test_kernel
import test_network
import test_optimizer
import test_population
import test_search
from workbench import STILL

CAUGHT: list[tuple[mutants.Mutant, Callable[[], None]]] = [
    (mutants.kept_rate, lambda: test_kernel.test_a_mask_drops_at_its_rate(0.1, (1, 100_003))),
    (mutants.unscaled, lambda: test_kernel.test_inverted_scaling_has_mean_one(0.5)),
    (mutants.one_mask_for_all, test_kernel.test_members_and_rows_are_independent),
    (mutants.one_mask_for_all, test_kernel.test_each_member_has_its_own_rate),
    (mutants.commuting_words, test_kernel.test_derived_keys_differ_in_order_depth_and_seed),
    (mutants.global_draws, test_kernel.test_the_global_random_states_are_neither_read_nor_moved),
    (
        mutants.mask_before_activation,
        test_network.test_dropout_stands_after_the_activation_and_not_on_the_output,
    ),
    (
        mutants.mask_on_output,
        test_network.test_dropout_stands_after_the_activation_and_not_on_the_output,
    ),
    (mutants.masked_prediction, test_network.test_a_population_is_so_many_plain_networks),
    (mutants.levels_of_the_first, test_network.test_a_population_is_so_many_plain_networks),
    (
        mutants.random_output_layer,
        lambda: test_network.test_an_untrained_network_predicts_the_frequencies((0.7, 0.2, 0.1)),
    ),
    (mutants.decayed_biases, test_optimizer.test_each_member_is_trained_as_by_torch),
    (mutants.long_memory, test_optimizer.test_each_member_is_trained_as_by_torch),
    (mutants.smoothing_of_none, test_doses.test_smoothing_is_torch_s_own_for_each_member),
    (mutants.torn_features, test_doses.test_input_dropout_drops_features_as_a_whole),
    (mutants.leaking_folds, lambda: test_population.test_validation_rows_teach_nothing(STILL)),
    (
        mutants.weights_of_the_end,
        test_population.test_the_best_weights_are_kept_and_give_the_best_loss,
    ),
    (
        mutants.forgotten_moments,
        lambda: test_population.test_a_restored_population_ends_in_the_same_bits(5),
    ),
    (
        mutants.clock_in_the_noise,
        lambda: test_population.test_a_restored_population_ends_in_the_same_bits(5),
    ),
    (mutants.sum_over_members, lambda: test_population.test_together_as_alone(3)),
    (mutants.the_best_always, test_search.test_a_tie_goes_to_the_simpler_cocktail),
]


@pytest.mark.parametrize(
    "mutant, test", CAUGHT, ids=[f"{mutant.__name__}-{n}" for n, (mutant, _) in enumerate(CAUGHT)]
)
def test_a_mutant_is_caught(mutant: mutants.Mutant, test: Callable[[], None]) -> None:
    with mutants.patched(mutant), pytest.raises((AssertionError, StopIteration)):
        test()
    test()
