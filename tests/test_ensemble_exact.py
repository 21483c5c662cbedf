"""All thinned networks: against loops over masks set by hand, and what is drawn against them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit.bounds import FALSE_ALARM, mean_chance
from dropkit.ensemble import Exact, exact
from dropkit.errors import SamplingError, SettingError
from dropkit.functional.alpha import normalizing
from made_up_draws import WIDE, noise

CLASSES = ("entropy", "expected_entropy", "mutual_information", "variation_ratio")


class Two(nn.Module):
    """Two sites with three and two elements, rates 0.3 and 0.8, a tanh between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Dropout(0.3), nn.Dropout(0.8)
        self.into, self.between, self.out = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.thinned(x, self.first, self.second)

    def thinned(self, x: Tensor, first: Callable[..., Any], second: Callable[..., Any]) -> Any:
        return self.out(second(self.between(first(self.into(x).relu())).tanh()))


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model with random weights in float64, at inference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().to(WIDE).eval()


def by_hand(model: Two, x: Tensor) -> list[tuple[float, Tensor]]:
    """The probability and the outputs of each network, by masks in nested loops."""
    found = []
    for first in itertools.product((0, 1), repeat=3):
        for second in itertools.product((0, 1), repeat=2):
            chance = math.prod(0.7 if kept else 0.3 for kept in first)
            chance *= math.prod(0.2 if kept else 0.8 for kept in second)
            masks = torch.tensor(first).to(WIDE) / 0.7, torch.tensor(second).to(WIDE) / 0.2
            with torch.no_grad():
                given = model.thinned(x, lambda h, m=masks[0]: h * m, lambda h, m=masks[1]: h * m)
            found.append((chance, given))
    return found


def close(one: Tensor, two: Tensor, tolerance: float = 1e-12) -> bool:
    return torch.allclose(one.double(), two.double(), rtol=tolerance, atol=tolerance)


# ---- the networks


def test_a_loop_over_masks_by_hand_gives_the_same() -> None:
    """Mutants: masks that are not scaled; p and 1 - p swapped; networks that weigh alike."""
    model, x = made(Two), noise(4, 2)
    whole, loop = exact(model, x), by_hand(model, x)
    mean = sum(chance * given for chance, given in loop)
    var = sum(chance * (given - mean).square() for chance, given in loop)
    assert whole.count == len(loop) == 32
    assert close(whole.mean, mean)
    assert close(whole.var, var)
    assert close(whole.std, var.sqrt())


def test_each_network_is_that_of_its_masks() -> None:
    """Mutants: bits of the sites in another order, or shifted by one."""
    model, x = made(Two), noise(4, 2)
    whole = exact(model, x)
    for network in range(whole.count):
        first, second = whole.dropped(network)
        assert first.shape == (1, 3)
        with torch.no_grad():
            given = model.thinned(
                x, lambda h, d=first: h * ~d / 0.7, lambda h, d=second: h * ~d / 0.2
            )
        assert close(whole.samples[network], given)
        dropped, other = int(first.sum()), int(second.sum())
        chance = 0.3**dropped * 0.7 ** (3 - dropped) * 0.8**other * 0.2 ** (2 - other)
        assert math.isclose(float(whole.log_probabilities[network].exp()), chance, rel_tol=1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_probabilities_sum_to_one(rate: float) -> None:
    whole = exact(made(Two), noise(1, 2), rates=rate)
    assert math.isclose(float(whole.log_probabilities.exp().sum()), 1.0, rel_tol=1e-12)
    assert [one.rate for one in whole.masks] == [rate, rate]


def test_classes_by_their_definitions() -> None:
    """Mutants: mean logits in place of mean probabilities; an entropy of the wrong mean."""
    model, x = made(Two), noise(4, 2)
    whole, loop = exact(model, x, outputs="logits"), by_hand(model, x)
    shares = [(chance, given.softmax(-1)) for chance, given in loop]
    mean = sum(chance * p for chance, p in shares)
    expected = sum(-chance * (p * p.log()).sum(-1) for chance, p in shares)
    votes = sum(chance * F.one_hot(p.argmax(-1), 3).to(WIDE) for chance, p in shares)
    logs = sum(chance * p.log() for chance, p in shares)
    assert close(whole.probabilities, mean)
    assert close(whole.entropy, -(mean * mean.log()).sum(-1))
    assert close(whole.expected_entropy, expected)
    assert close(whole.mutual_information, whole.entropy - expected)
    assert close(whole.variation_ratio, 1 - votes.amax(-1))
    assert close(whole.geometric, logs.exp() / logs.exp().sum(-1, keepdim=True))
    assert close(whole.scaled_probabilities, model(x).softmax(-1))


def test_the_axis_of_classes_may_be_any() -> None:
    model = made(lambda: nn.Sequential(nn.Dropout(0.5), nn.Conv1d(3, 2, 1)))
    x = noise(2, 3, 2)
    moved = nn.Sequential(model, nn.Flatten(2)).eval()
    whole = exact(moved, x, outputs="logits", class_axis=1)
    assert whole.probabilities.shape == (2, 2, 2)
    assert close(whole.probabilities.sum(1), torch.ones(2, 2))
    assert close(whole.geometric.sum(1), torch.ones(2, 2))
    assert close(whole.scaled_probabilities, model(x).softmax(1))


def test_rows_have_the_same_networks_and_do_not_matter_to_each_other() -> None:
    """Mutant: bits of all rows, not of one."""
    model, x = made(Two), noise(4, 2)
    whole = exact(model, x)
    for row in range(4):
        assert close(whole.samples[:, row], exact(model, x[row : row + 1]).samples[:, 0])


def test_rows_may_have_masks_of_their_own() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.3), nn.Tanh()))
    x = noise(2, 2)
    apart = exact(model, x, batch_axis=None)
    assert (apart.bits, exact(model, x).bits) == (6, 3)
    assert close(apart.mean, exact(model, x).mean)
    assert exact(model, x[0], batch_axis=None).bits == 3  # no rows at all


# ---- the guide's claim


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_weight_scaling_is_the_geometric_mean_of_one_softmax_layer(rate: float, seed: int) -> None:
    """Baldi & Sadowski 2013, to rounding. Mutant: an arithmetic mean."""
    model = made(lambda: nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Dropout(rate),
                                       nn.Linear(7, 4)), seed)  # fmt: skip
    whole = exact(model, 3 * noise(5, 3, seed=seed), outputs="logits")
    assert close(whole.geometric, whole.scaled_probabilities)
    assert float((whole.probabilities - whole.scaled_probabilities).abs().max()) > 1e-3


def test_weight_scaling_of_outputs_that_are_probabilities() -> None:
    model = made(lambda: nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 3), nn.Softmax(-1)))
    whole = exact(model, noise(5, 6), outputs="probabilities")
    assert close(whole.geometric, whole.scaled)
    assert close(whole.mean, whole.probabilities)


def test_weight_scaling_is_an_approximation_in_a_deeper_network() -> None:
    whole = exact(made(Two), 3 * noise(8, 2), outputs="logits")
    off = (whole.geometric - whole.scaled_probabilities).abs().max()
    assert 1e-3 < float(off) < 0.5


# ---- what is drawn converges to it


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, 2, batch_first=True, dropout=0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Attending(nn.Module):
    def __init__(self, need_weights: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.4, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, self.training).sin().cumsum(-1)


MODELS = {
    "two": (Two, (3, 2), 5),
    "functional": (Functional, (3, 4), 4),
    "channels": (lambda: nn.Sequential(nn.Dropout2d(0.3), nn.Conv2d(3, 2, 2), nn.Tanh()),
                 (2, 3, 3, 2), 3),
    "alpha": (lambda: nn.Sequential(nn.Linear(4, 5), nn.SELU(), nn.AlphaDropout(0.3), nn.Tanh()),
              (2, 4), 5),
    "recurrent": (Recurrent, (2, 3, 2), 9),
    "attention": (Attending, (2, 2, 4), 8),
    "attention weights": (lambda: Attending(True), (1, 2, 4), 8),
    "encoder": (lambda: nn.TransformerEncoderLayer(2, 1, 2, 0.2, batch_first=True), (2, 1, 2), 7),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_draws_converge_to_it(name: str) -> None:
    """Hoeffding's bound, which is exact: a false alarm in fewer than one of 1e6 runs of all.

    Mutants: masks that are scaled otherwise, rates of another site, bits that are shared.
    """
    build, shape, bits = MODELS[name]
    model, x = made(build), noise(*shape)
    whole = exact(model, x, batch_axis=None if name == "attention weights" else 0)
    draws = dropkit.sample(model, x, draws=4000, key=11).samples
    low, high = whole.samples.amin(0), whole.samples.amax(0)
    width = (high - low).clamp_min(1e-9)
    assert whole.bits == bits
    assert bool((draws >= low - 1e-9).all() and (draws <= high + 1e-9).all())
    for power in (1, 2):
        seen = (((draws - low) / width).clamp(0, 1) ** power).mean(0).flatten().tolist()
        shares = ((whole.samples - low) / width).clamp(0, 1) ** power
        known = torch.tensordot(whole.log_probabilities.exp(), shares, 1).flatten().tolist()
        chances = [mean_chance(a, 4000, b) for a, b in zip(seen, known, strict=True) if 0 < b < 1]
        assert chances and min(chances) > FALSE_ALARM


def test_channels_are_dropped_as_a_whole() -> None:
    """Mutant: bits for each place of a channel."""
    model = made(lambda: nn.Sequential(nn.Dropout2d(0.3), nn.Flatten()))
    x = noise(2, 3, 2, 2)
    whole = exact(model, x)
    assert whole.masks[0].shape == (1, 3, 1, 1)
    (dropped,) = whole.dropped(5)
    assert dropped.flatten().tolist() == [True, False, True]
    assert close(whole.samples[5], (x * ~dropped / 0.7).flatten(1))


def test_alpha_dropout_sets_what_it_drops_to_its_own_value() -> None:
    """Mutant: zeros."""
    x = noise(2, 3)
    whole = exact(nn.Sequential(nn.AlphaDropout(0.3)).eval(), x)
    scale, shift, fill = normalizing(0.3)
    assert scale is not None
    assert close(whole.samples[2], torch.where(whole.dropped(2)[0], fill, x * scale + shift))


def test_weights_of_attention_are_dropped() -> None:
    model, x = made(Attending), noise(1, 2, 4)
    whole, own = exact(model, x), model.attention
    query, key, value = F.linear(x, own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
    heads = [part.unflatten(-1, (2, 2)).transpose(1, 2) for part in (query, key, value)]
    weights = (heads[0] @ heads[1].mT / math.sqrt(2)).softmax(-1)
    for network in (0, 1, 100, 255):
        kept = (~whole.dropped(network)[0]).to(WIDE) / 0.6
        given = own.out_proj(((weights * kept) @ heads[2]).transpose(1, 2).flatten(2))
        assert close(whole.samples[network], given)


# ---- forms of models


def test_a_module_that_acts_twice_has_bits_for_each() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.drop(x).sin())

    x = noise(2, 3)
    whole = exact(Twice().eval(), x)
    assert (whole.bits, len(whole.masks)) == (6, 2)
    assert close(whole.mean, (2 * x).sin() / 2)


def test_a_rate_of_one_has_no_bits() -> None:
    model, x = made(Two), noise(3, 2)
    whole = exact(model, x, rates={"first": 1.0})
    assert whole.bits == 2 and bool(whole.dropped(0)[0].all())
    with torch.no_grad():
        assert close(whole.mean, model.out(model.between.bias.tanh()).expand(3, 3))


def test_sites_that_are_left_out_do_not_drop() -> None:
    model, x = made(Two), noise(3, 2)
    whole = exact(model, x, sites=["second"])
    assert whole.bits == 2
    with torch.no_grad():
        full = model.thinned(x, lambda h: h, lambda h: h * torch.tensor([0.0, 5.0]))
    assert close(whole.samples[1], full)


def test_outputs_may_be_a_tree() -> None:
    class Tree(Two):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return {"logits": logits, "name": "tree", "parts": (logits.sin(), x)}

    model, x = made(Tree), noise(3, 2)
    whole, plain = exact(model, x, outputs="logits"), exact(made(Two), x, outputs="logits")
    assert close(whole.mean["logits"], plain.mean)
    assert close(whole["logits"].entropy, plain.entropy)
    assert close(whole.mean["parts"][1], x) and whole.mean["name"] == "tree"
    assert close(whole["logits"].scaled, plain.scaled)


def test_python_that_looks_at_values_is_run_for_each_network() -> None:
    """Mutant: the way that one network took is taken by all."""

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = F.dropout(x, 0.5, self.training)
            return h.sin() if h.sum() > 0 else h.square()

    x = noise(1, 3)
    whole = exact(Branching().eval(), x)
    for network in range(8):
        h = x * ~whole.dropped(network)[0] * 2
        assert close(whole.samples[network], h.sin() if h.sum() > 0 else h.square())


def test_a_mode_of_training_is_no_other_model() -> None:
    """Mutant: batch norm in training mode, or a site that was left out and drops."""
    model = made(lambda: nn.Sequential(Two(), nn.BatchNorm1d(3)))
    x = noise(4, 2)
    before = exact(model, x, sites=["*.first"])
    again = exact(model.train(), x, sites=["*.first"])
    assert torch.equal(before.samples, again.samples)
    assert torch.equal(before.scaled, again.scaled)
    assert all(module.training for module in model.modules())


def test_attention_that_is_left_out_does_not_drop() -> None:
    """In draws, too. Mutant: what is within MultiheadAttention is switched on with the rest."""
    model = made(lambda: nn.Sequential(Attending(), nn.Dropout(0.5)))
    x = noise(2, 2, 4)
    whole = exact(model, x, sites=["1"], batch_axis=0)
    draws = dropkit.sample(model, x, draws=8, key=3, sites=["1"])
    assert whole.bits == 8
    for given in (*whole.samples, *draws.samples):
        assert close(given[given != 0], 2 * whole.scaled[given != 0])


def test_nothing_of_the_model_changes() -> None:
    model, x = made(lambda: nn.Sequential(Two(), nn.BatchNorm1d(3))), noise(4, 2)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random, given = torch.get_rng_state(), x.clone()
    for _ in range(2):
        exact(model, x)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and torch.equal(x, given)
    assert not any(module.training or module._forward_hooks for module in model.modules())


# ---- what is refused


def refused(error: type[Exception], says: str, model: Any, *inputs: Any, **options: Any) -> None:
    with pytest.raises(error, match=says):
        exact(model, *inputs, **options)


def test_too_many_networks_are_counted() -> None:
    model = nn.Sequential(nn.Linear(2, 30), nn.Dropout(0.5)).eval()
    refused(SettingError, r"at most 65,536 networks; .* 30 bits.*2\*\*30: 1 \(Dropout\) 30", model,
            torch.ones(3, 2))  # fmt: skip
    refused(SettingError, r"most=2\*\*5", made(Two), noise(1, 2), most=31)
    assert exact(made(Two), noise(1, 2), most=32).count == 32


@pytest.mark.parametrize("most", [0, -1, 2.0, True, 1 << 60, "all"])
def test_most_is_a_number(most: Any) -> None:
    refused(SettingError, "most: expected a number of networks", made(Two), noise(1, 2), most=most)


def test_an_axis_of_rows_that_is_not_there_is_refused() -> None:
    model = made(lambda: Attending(True))  # its weights are (rows * heads, ...)
    refused(SettingError, "batch_axis: expected an axis .* batch_axis=None", model, noise(2, 2, 4))
    fixed = nn.Sequential(nn.Dropout(0.5), nn.Flatten(0), nn.Linear(3, 1)).eval()
    says = r"batch_axis: .* takes 1 and not 2: RuntimeError.*batch_axis=None"
    refused(SettingError, says, fixed, torch.ones(1, 3))
    assert exact(fixed, torch.ones(1, 3), batch_axis=None).bits == 3


def test_a_model_that_does_not_drop_is_refused() -> None:
    refused(SamplingError, "holds no dropout", nn.Linear(2, 2), torch.ones(1, 2))
    refused(SamplingError, "rates above 0", made(Two), noise(1, 2), rates=0.0)
    refused(SettingError, "expected a torch.nn.Module; got function", lambda x: x, torch.ones(1))


def test_masks_that_a_layer_draws_itself_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 3), dropkit.nn.Dropout(0.5)).eval()
    refused(SamplingError, r"1 \(Dropout\).*draw their own", model, torch.ones(1, 2))


class Noisy(nn.Module):
    def __init__(self, noise: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.drop, self.noise = nn.Dropout(0.5), noise

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x) + self.noise(x)


def of_numpy(x: Tensor) -> float:
    import numpy as np

    return float(np.random.random())


@pytest.mark.parametrize(
    "noise",
    [torch.randn_like, lambda x: F.dropout(x, 0.5), of_numpy],
    ids=["torch", "a dropout that is left out", "numpy"],
)
def test_what_is_random_besides_is_refused(noise: Callable[[Tensor], Any]) -> None:
    model = Noisy(noise).eval()
    says = "nothing but the masks is random"
    refused(SamplingError, says, model, torch.ones(2, 3), sites=["drop"])


def test_a_dropout_that_always_drops_is_scaled_if_it_is_chosen() -> None:
    x = noise(2, 3)
    whole = exact(Noisy(lambda x: F.dropout(x, 0.5)).eval(), x)
    assert whole.bits == 6
    assert close(whole.scaled, 2 * x) and close(whole.mean, 2 * x)


def test_outputs_that_do_not_vary_are_refused() -> None:
    class Idle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 0 * F.dropout(x, 0.5, self.training)

    refused(SamplingError, "the same in all 8 networks", Idle().eval(), torch.ones(2, 3))


def test_nan_is_refused_with_its_network() -> None:
    class Divides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = F.dropout(x, 0.5, self.training)
            return h / h.sum(-1, keepdim=True)

    refused(SamplingError, "network 3 gave NaN", Divides().eval(), torch.ones(1, 2))


def test_classes_are_not_guessed() -> None:
    whole = exact(made(Two), noise(2, 2))
    for name in (*CLASSES, "probabilities", "geometric", "scaled_probabilities"):
        with pytest.raises(SettingError, match="expected outputs of classes"):
            getattr(whole, name)
    refused(SettingError, "outputs: expected one of", made(Two), noise(2, 2), outputs="classes")
    refused(SettingError, "sum to 1", made(Two), noise(2, 2), outputs="probabilities")


def test_a_network_that_is_not_there_is_refused() -> None:
    whole = exact(made(Two), noise(1, 2))
    assert isinstance(whole, Exact) and "32 networks, of 5 bits" in repr(whole)
    for network in (-1, 32):
        with pytest.raises(SettingError, match="a number below 32"):
            whole.dropped(network)
