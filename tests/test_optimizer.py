"""AdamW for K members is K times torch's; what follows the step keeps its promises."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from dropkit.records import Cocktail
from dropkit.training.doses import Doses
from dropkit.training.network import Parameters, decays
from dropkit.training.optimizer import Optimizer
from workbench import LAYOUT, RICH, SHAPE, equal, parameters

STEPS_PER_EPOCH = 4


def start(members: int) -> Parameters:
    return {name: value[:members].float() for name, value in parameters(SHAPE, 5).items()}


def gradients(step: int, weights: Parameters, among: Sequence[int]) -> Parameters:
    """Gradients that depend on the step and the member, not on the company."""
    result = {}
    for place, (name, value) in enumerate(weights.items()):
        drawn = [
            torch.randn(
                value.shape[1:], generator=torch.Generator().manual_seed(hash((step, place, m)))
            )
            for m in among
        ]
        result[name] = torch.stack(drawn)
    return result


def doses(cocktails: Sequence[Cocktail]) -> Doses:
    return Doses(cocktails, LAYOUT, torch.device("cpu"))


def run(
    cocktails: Sequence[Cocktail], steps: int = 12, among: Sequence[int] | None = None
) -> tuple[Parameters, Optimizer]:
    members = range(len(cocktails)) if among is None else among
    weights = {name: value[list(members)] for name, value in start(5).items()}
    optimizer = Optimizer(weights, doses(cocktails), STEPS_PER_EPOCH)
    for step in range(steps):
        optimizer.step(weights, gradients(step, weights, members), schedule(step))
    return weights, optimizer


def schedule(step: int) -> float:
    return 1.0 - step / 20


ADAMS = [
    Cocktail(learning_rate=1e-3),
    Cocktail(learning_rate=3e-2, weight_decay=0.5),
    Cocktail(learning_rate=1e-2, weight_decay=3.0),
]


def test_each_member_is_trained_as_by_torch() -> None:
    """Mutants: beta2 of 0.999; no bias correction; decay in the gradient; decay of biases; a
    neighbour's learning rate; a schedule that does not reach the decay."""
    ours, _ = run(ADAMS)
    for member, cocktail in enumerate(ADAMS):
        plain = {name: value[member].clone().requires_grad_() for name, value in start(3).items()}
        torchs = torch.optim.AdamW(
            [
                {
                    "params": [v for n, v in plain.items() if decays(n)],
                    "weight_decay": cocktail.weight_decay,
                },
                {"params": [v for n, v in plain.items() if not decays(n)], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
        )
        for step in range(12):
            for group in torchs.param_groups:
                group["lr"] = cocktail.learning_rate * schedule(step)
            given = gradients(step, start(3), range(3))
            for name, value in plain.items():
                value.grad = given[name][member]
            torchs.step()
        for name, value in plain.items():
            assert torch.allclose(ours[name][member], value, atol=2e-6, rtol=1e-5), name


def test_l1_makes_exact_zeros_in_the_first_layer_only() -> None:
    """Mutants: L1 as a gradient, which never reaches zero; L1 on every layer or every member."""
    weights, _ = run([Cocktail(learning_rate=0.02), Cocktail(learning_rate=0.02, l1=1.0)], steps=18)
    for name in ("weight.0", "pieces"):
        zeros = (weights[name] == 0).double().mean((1, 2))
        assert zeros[0] == 0 and 0.1 < zeros[1] < 1
    others = set(weights) - {"weight.0", "pieces"}
    assert all((weights[name] != 0).all() for name in others)


def test_l1_is_the_soft_threshold() -> None:
    plain, _ = run([Cocktail(learning_rate=0.02)], steps=1)
    thresholded, _ = run([Cocktail(learning_rate=0.02, l1=3.0)], steps=1)
    for name in ("weight.0", "pieces"):
        expected = torch.nn.functional.softshrink(plain[name], 0.02 * 3.0)
        assert torch.allclose(thresholded[name], expected, atol=1e-7)


def incoming(weights: Parameters, layer: int) -> torch.Tensor:
    """Norms of all weights that lead into each unit of a layer: (members, units)."""
    parts = [weights[f"weight.{layer}"], *([weights["pieces"]] if layer == 0 else [])]
    return torch.cat(parts, 1).norm(dim=1)


def test_max_norm_bounds_the_weights_into_each_hidden_unit() -> None:
    """Mutants: the norm of what leaves a unit; the encoding's pieces left out; a bound for all."""
    weights, _ = run([Cocktail(learning_rate=0.05), Cocktail(learning_rate=0.05, max_norm=1.0)])
    for layer in range(len(SHAPE.hidden)):
        norms = incoming(weights, layer)
        assert norms[1].max() <= 1.0 + 1e-5
        assert norms[0].max() > 1.0


@pytest.mark.parametrize("name", ["embedding.0", "weight.2", "bias.0", "bias.1", "bias.2"])
def test_max_norm_is_for_hidden_units_alone(name: str) -> None:
    """Mutants: the column norms of an embedding table, which grow with its levels; the output."""
    free, _ = run([Cocktail(learning_rate=0.05)])
    bound, _ = run([Cocktail(learning_rate=0.05, max_norm=0.1)])
    assert torch.equal(free[name], bound[name])


def test_averaging_is_the_naive_loop() -> None:
    """Mutants: a decay per step instead of per epoch; no warm start; averages of a neighbour."""
    decays_of = (0.0, 0.5, 0.9)
    cocktails = [Cocktail(weight_averaging=decay) for decay in decays_of]
    weights, averages = start(3), start(3)
    optimizer = Optimizer(weights, doses(cocktails), STEPS_PER_EPOCH)
    for step in range(1, 30):
        optimizer.step(weights, gradients(step, weights, range(3)), 1.0)
        for name, value in weights.items():
            for member, decay in enumerate(decays_of):
                memory = min(decay ** (1 / STEPS_PER_EPOCH), step / (step + 10))
                old = averages[name][member]
                averages[name][member] = memory * old + (1 - memory) * value[member]
    seen = optimizer.weights(weights)
    for name in weights:
        assert torch.allclose(seen[name], averages[name], atol=1e-6)
        assert torch.equal(seen[name][0], weights[name][0]) or decays_of[0] > 0


def test_without_averaging_the_weights_are_the_weights() -> None:
    weights, optimizer = run(ADAMS, steps=2)
    assert optimizer.weights(weights) is weights


@pytest.mark.parametrize("stay", [[1], [0, 2]])
def test_survivors_go_on_as_if_nobody_had_left(stay: list[int]) -> None:
    """Mutants: moments of the wrong members; doses that stay behind; a fresh bias correction."""
    cocktails = [RICH, Cocktail(learning_rate=0.02, weight_averaging=0.5), Cocktail(max_norm=1.0)]
    whole, watched = run(cocktails)
    weights = start(3)
    optimizer = Optimizer(weights, doses(cocktails), STEPS_PER_EPOCH)
    for step in range(5):
        optimizer.step(weights, gradients(step, weights, range(3)), schedule(step))
    index = torch.tensor(stay)
    weights = {name: value[index] for name, value in weights.items()}
    optimizer.keep(index, doses([cocktails[member] for member in stay]))
    for step in range(5, 12):
        optimizer.step(weights, gradients(step, weights, stay), schedule(step))
    assert equal(weights, {name: value[index] for name, value in whole.items()})
    average = {name: value[index] for name, value in watched.weights(whole).items()}
    assert equal(optimizer.weights(weights), average)


def test_a_member_does_not_feel_its_company() -> None:
    cocktails = [RICH, *ADAMS]
    together, _ = run(cocktails)
    for member, cocktail in enumerate(cocktails):
        alone, _ = run([cocktail], among=[member])
        assert all(torch.allclose(together[n][member], alone[n][0], atol=1e-7) for n in alone)
