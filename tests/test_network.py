"""K networks as one computation are K plain networks; masks act where they should."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dropkit.training.network import (
    EMBEDDING_WIDTH,
    Bins,
    Inputs,
    Masks,
    Parameters,
    Shape,
    decays,
    encode,
    forward,
    initialize,
    sizes,
)
from workbench import ALARM, ENDS, SHAPE, bins_of, inputs, parameters

BINS = bins_of(*ENDS)


def naive_encoding(numbers: Tensor, ends: tuple[tuple[float, ...], ...]) -> Tensor:
    """The encoding of one row of numbers, piece by piece."""
    pieces = []
    for number, cuts in zip(numbers.tolist(), ends, strict=True):
        for low, high in pairwise(cuts):
            pieces.append(min(1.0, max(0.0, (number - low) / (high - low))))
    return torch.tensor(pieces, dtype=torch.float64)


def plain_network(shape: Shape, weights: Parameters, member: int) -> nn.Sequential:
    """One member as anybody would write it."""
    layers: list[nn.Module] = []
    for index in range(len(shape.hidden) + 1):
        weight = weights[f"weight.{index}"][member]
        if index == 0:
            weight = torch.cat([weight, weights["pieces"][member]])
        linear = nn.Linear(*weight.shape, dtype=torch.float64)
        linear.weight.data = weight.T.clone()
        linear.bias.data = weights[f"bias.{index}"][member, 0].clone()
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def plain_input(weights: Parameters, given: Inputs, member: int) -> Tensor:
    vectors = weights["embedding.0"][member][given.codes[member, :, 0]]
    encoded = torch.stack([naive_encoding(row, ENDS) for row in given.numbers[member]])
    return torch.cat([given.numbers[member], given.flags[member], vectors, encoded], 1)


def test_a_population_is_so_many_plain_networks() -> None:
    """Mutants: a neighbour's weights or levels; layers in another order; a last activation."""
    weights, given = parameters(members=4), inputs(members=4)
    together = forward(SHAPE, weights, BINS, given)
    for member in range(4):
        alone = plain_network(SHAPE, weights, member)(plain_input(weights, given, member))
        assert torch.allclose(together[member], alone, atol=1e-12)


def test_gradients_are_those_of_plain_networks() -> None:
    weights, given = parameters(members=2), inputs(members=2)
    leaves = {name: value.requires_grad_() for name, value in weights.items()}
    forward(SHAPE, leaves, BINS, given).square().sum().backward()
    for member in range(2):
        network = plain_network(SHAPE, {n: v.detach() for n, v in weights.items()}, member)
        network(plain_input(weights, given, member).detach()).square().sum().backward()
        for index in range(3):
            grad = network[2 * index].weight.grad.T
            ours = leaves[f"weight.{index}"].grad[member]
            assert torch.allclose(ours, grad[: len(ours)], atol=1e-10)
            if index == 0:
                assert torch.allclose(leaves["pieces"].grad[member], grad[len(ours) :], atol=1e-10)


def test_a_single_network_is_the_plain_case() -> None:
    weights, given = parameters(members=3), inputs(members=3)
    together = forward(SHAPE, weights, BINS, given)
    for member in range(3):
        place = slice(member, member + 1)
        alone = forward(
            SHAPE,
            {name: value[place] for name, value in weights.items()},
            BINS,
            Inputs(given.numbers[place], given.flags[place], given.codes[place]),
        )
        assert torch.allclose(together[place], alone, atol=1e-12)


def test_the_encoding_is_the_naive_loop() -> None:
    """Mutants: no clamp; an offset that forgets the width; pieces given to a neighbour's number."""
    special = [-5.0, -1.5, -1.0, -0.2, 0.0, 0.1, 1.0, 2.0, 5.0]
    numbers = torch.cartesian_prod(*[torch.tensor(special, dtype=torch.float64)] * 2)
    expected = torch.stack([naive_encoding(row, ENDS) for row in numbers])
    assert torch.allclose(encode(numbers, BINS), expected, atol=1e-12)
    batched = encode(numbers.view(9, 9, 2), BINS)
    assert torch.equal(batched.view(81, -1), encode(numbers, BINS))


def test_each_piece_belongs_to_its_number() -> None:
    assert BINS.owner.tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert BINS.to(torch.float32).slope.dtype == torch.float32


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.98, 0.01, 0.01)])
def test_an_untrained_network_predicts_the_frequencies(shares: tuple[float, ...]) -> None:
    """Mutants: an output layer of random weights; a prior that is not taken in logarithms."""
    weights = initialize(SHAPE, torch.tensor(shares).log(), [1, 2])
    given = inputs(members=2)
    single = Inputs(given.numbers.float(), given.flags.float(), given.codes)
    probabilities = forward(SHAPE, weights, BINS.to(torch.float32), single).softmax(-1)
    assert torch.allclose(probabilities, torch.tensor(shares).expand_as(probabilities), atol=1e-6)


def test_a_member_starts_from_its_own_key_alone() -> None:
    """Mutants: one start for all members; starts that depend on the company."""
    prior = torch.zeros(3)
    both, alone = initialize(SHAPE, prior, [4, 5]), initialize(SHAPE, prior, [5])
    assert all(torch.equal(both[name][1], alone[name][0]) for name in alone)
    assert not torch.equal(both["weight.1"][0], both["weight.1"][1])
    assert not torch.equal(both["weight.1"][0, :4, :4], both["weight.0"][0, :4, :4])


def test_hidden_weights_start_normal_with_variance_one_over_fan_in() -> None:
    """Mutant: weights scaled by the fan-out, or by the fan-in and not its root."""
    wide = Shape(40, 0, 0, (), (300, 50), 1)
    start = initialize(wide, torch.zeros(1), [0])
    for index, fan_in in enumerate((40, 300)):
        draws = (start[f"weight.{index}"] * fan_in**0.5).flatten().numpy()
        assert stats.kstest(draws, "norm").pvalue > ALARM


def test_the_encoding_and_the_output_start_at_zero() -> None:
    start = initialize(SHAPE, torch.zeros(3), [0, 1])
    assert not start["pieces"].any()
    assert not start["weight.2"].any()
    assert start["weight.0"].all() and start["embedding.0"].all()


def test_sizes_are_those_of_a_plain_network() -> None:
    plain = plain_network(SHAPE, parameters(members=1), 0)
    count = sum(value.numel() for value in plain.parameters())
    assert SHAPE.parameters == count + SHAPE.levels[0] * EMBEDDING_WIDTH
    assert {name for name in sizes(SHAPE) if not decays(name)} == {"bias.0", "bias.1", "bias.2"}
    assert "8 x 7" in str(SHAPE)


def hidden_masks(members: int = 3, rows: int = 10, rate: float = 0.5) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(8)
    return tuple(
        (torch.rand(members, rows, width, generator=source) >= rate).double() / (1 - rate)
        for width in SHAPE.hidden
    )


def naive_masked(
    weights: Parameters, state: Tensor, masks: tuple[Tensor, ...], member: int
) -> Tensor:
    """One member with dropout after each activation, before the next linear map."""
    network = plain_network(SHAPE, weights, member)
    for index, mask in enumerate(masks):
        state = network[2 * index + 1](network[2 * index](state)) * mask[member]
    return network[-1](state)


def test_dropout_stands_after_the_activation_and_not_on_the_output() -> None:
    """Mutants: the mask before the activation; a mask on the output; one mask for all layers."""
    weights, given, masks = parameters(), inputs(), hidden_masks()
    dropped = forward(SHAPE, weights, BINS, given, Masks(None, None, masks))
    for member in range(3):
        expected = naive_masked(weights, plain_input(weights, given, member), masks, member)
        assert torch.allclose(dropped[member], expected, atol=1e-12)


def test_a_dropped_unit_gets_no_gradient() -> None:
    """A dropped neuron receives no gradient in that step."""
    weights = {name: value.requires_grad_() for name, value in parameters().items()}
    masks = [torch.ones(3, 10, width, dtype=torch.float64) for width in SHAPE.hidden]
    masks[0][:, :, 2] = 0.0
    forward(SHAPE, weights, BINS, inputs(), Masks(None, None, tuple(masks))).sum().backward()
    assert not weights["weight.0"].grad[:, :, 2].any()
    assert not weights["pieces"].grad[:, :, 2].any()
    assert not weights["weight.1"].grad[:, 2].any()
    assert weights["weight.0"].grad[:, :, 3].all()


def test_a_dropped_number_takes_all_its_pieces_along() -> None:
    """Mutants: pieces that stay when their number is dropped; pieces dropped one by one."""
    weights, given = parameters(), inputs()
    factor = torch.tensor([0.0, 2.0], dtype=torch.float64).expand(3, 10, 2)
    dropped = forward(SHAPE, weights, BINS, given, Masks(factor, None, None))
    scale = torch.tensor([0, 2] + [1] * 11 + [0, 0, 0, 2, 2], dtype=torch.float64)
    for member in range(3):
        state = plain_input(weights, given, member) * scale
        expected = plain_network(SHAPE, weights, member)(state)
        assert torch.allclose(dropped[member], expected, atol=1e-12)


def test_flags_and_vectors_are_masked_in_their_order() -> None:
    weights, given = parameters(), inputs()
    factor = torch.arange(11, dtype=torch.float64).expand(3, 10, 11)
    masked = forward(SHAPE, weights, BINS, given, Masks(None, factor, None))
    scale = torch.cat([torch.ones(2), torch.arange(11), torch.ones(5)]).double()
    for member in range(3):
        state = plain_input(weights, given, member) * scale
        assert torch.allclose(
            masked[member], plain_network(SHAPE, weights, member)(state), atol=1e-12
        )


@pytest.mark.parametrize(
    "shape",
    [
        replace(SHAPE, numbers=0, pieces=0),
        replace(SHAPE, pieces=0),
        replace(SHAPE, flags=0, levels=()),
        replace(SHAPE, numbers=0, pieces=0, flags=0, levels=()),
        replace(SHAPE, hidden=(4,), outputs=1),
        replace(SHAPE, levels=(6, 6)),
    ],
    ids=str,
)
def test_any_kind_of_column_may_be_absent(shape: Shape) -> None:
    given = inputs()
    numbers, flags = given.numbers[..., : shape.numbers], given.flags[..., : shape.flags]
    codes = given.codes.expand(-1, -1, max(1, len(shape.levels)))[..., : len(shape.levels)]
    bins = BINS if shape.pieces else Bins(torch.zeros(shape.numbers, 0), torch.zeros(0))
    weights = {name: value.requires_grad_() for name, value in parameters(shape).items()}
    outputs = forward(shape, weights, bins, Inputs(numbers, flags, codes))
    assert outputs.shape == (3, 10, shape.outputs)
    gradients = torch.autograd.grad(outputs.sum(), list(weights.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)
