"""Rates that move by themselves: by gradient, and in a population."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit.errors import SettingError
from dropkit.planning.discovering import discover


class Attending(nn.Module):
    """Attention and a dropout in one module, both by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rate = nn.Linear(8, 8), 0.2

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        p = self.rate if self.training else 0.0
        x = x + F.scaled_dot_product_attention(x, x, x, dropout_p=p)
        return self.layer(F.dropout(x, 0.4, self.training))


def net(p: float = 0.5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 1))


def test_data_that_cannot_be_learned_raise_a_rate_and_clear_ones_lower_it() -> None:
    """Caught: no gradient from the loss; a penalty of the wrong sign."""
    x = torch.linspace(-1, 1, 64 * 16).reshape(64, 16).sin()
    rates = []
    for rows, steps in ((10_000_000, 150), (4, 150)):
        torch.manual_seed(0)
        model = net(0.2)
        learned = dropkit.LearnedRates(dropkit.rates(model, x), rows=rows)
        rate = torch.optim.Adam(
            [{"params": model.parameters()}, {"params": learned.parameters(), "lr": 0.05}], 1e-2
        )
        for _ in range(steps):
            loss = (model(x) - x[:, :1]).square().mean() + learned.penalty()
            rate.zero_grad()
            loss.backward()
            rate.step()
        rates.append(learned.rates["hidden"])
    assert rates[0] < 0.1
    assert 0.4 < rates[1] <= 0.5


def test_each_role_has_a_parameter_and_what_is_left_is_left() -> None:
    """Caught: one logit for all calls of a module."""
    model = Attending()
    x = torch.linspace(-1, 1, 2 * 4 * 8).reshape(2, 4, 8)
    plan = dropkit.rates(model, x)
    both = dropkit.LearnedRates(plan, rows=10)
    assert both.rates == {"attention": 0.2, "head": 0.4}
    model(x).sum().backward()
    assert all(logit.grad is not None for logit in both.parameters())
    both.settle()
    assert not model._forward_pre_hooks
    one = dropkit.LearnedRates(plan, ["attention"], rows=10)
    for _ in range(3):
        model(x).square().sum().backward()
    assert one.logits["attention"].grad.abs() > 0
    zeros = (_dropped(model, x) == 0).float().mean()
    assert zeros > 0.1  # of the other, whose masks are not relaxed


def _dropped(model: Attending, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = model.layer.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model(x)
    handle.remove()
    return seen[-1]


def test_to_settle_writes_what_was_learned() -> None:
    model, x = net(), torch.ones(4, 16)
    plan = dropkit.rates(model, x)
    learned = dropkit.LearnedRates(plan, rows=100)
    with torch.no_grad():
        learned.logits["hidden"].fill_(-2.0)
    learned.settle()
    assert model[2].p == pytest.approx(0.119203)
    assert plan.prove().holds


def test_a_state_is_taken_up_again() -> None:
    x = torch.ones(4, 16)
    one, other = (dropkit.LearnedRates(dropkit.rates(net(p), x), rows=9) for p in (0.5, 0.1))
    other.load_state_dict(one.state_dict())
    assert other.rates == one.rates


def test_what_cannot_be_learned_is_said() -> None:
    x = torch.ones(4, 16)
    with pytest.raises(SettingError, match="Sequential has none"):
        dropkit.LearnedRates(dropkit.rates(nn.Sequential(nn.Linear(16, 2)), x), rows=9)
    with pytest.raises(SettingError, match="rows: expected how many"):
        dropkit.LearnedRates(dropkit.rates(net(), x), rows=0)


# ---- a population


def test_the_worst_go_on_from_the_best_at_rates_around_theirs() -> None:
    """Caught: moves of the best; a member without a score that is gone on from; drifting draws."""
    x = torch.ones(4, 16)
    plans = [dropkit.rates(net(p), x) for p in (0.1, 0.2, 0.3, 0.4)]
    population = dropkit.RatePopulation(plans, key=5)
    (move,) = population.step([0.4, float("nan"), 0.1, 0.3])
    assert (move.member, move.like) == (1, 2)
    assert move.rates["2.p"] in (pytest.approx(0.3 * 1.25), pytest.approx(0.3 / 1.25))
    assert plans[1].model[2].p == move.rates["2.p"]
    assert [plan.model[2].p for plan in plans][::2] == [0.1, 0.3]
    (move,) = population.step([9, 1, 2, 3], direction="maximize")
    assert (move.member, move.like) == (1, 0)


def test_moves_go_both_ways_and_stay_rates() -> None:
    x = torch.ones(4, 16)
    plans = [dropkit.rates(net(p), x) for p in (0.85, 0.0)]
    population = dropkit.RatePopulation(plans, quantile=0.5, key=1)
    seen = [population.step([0, 1])[0].rates["2.p"] for _ in range(20)]
    assert {round(rate, 4) for rate in seen} == {0.85, 0.68}
    seen = [population.step([1, 0])[0].rates["2.p"] for _ in range(20)]
    assert all(0 <= rate <= 0.9 for rate in seen)


@pytest.mark.parametrize(
    ("count", "options", "says"),
    [
        (1, {}, "expected 2 or more"),
        (2, {"factor": 1.0}, "a factor above 1"),
        (2, {"names": ["hiden"]}, "Try 'hidden'"),
    ],
)
def test_populations_that_make_no_sense(count: int, options: dict[str, object], says: str) -> None:
    plans = [dropkit.rates(net(), torch.ones(4, 16)) for _ in range(count)]
    with pytest.raises(SettingError, match=says):
        dropkit.RatePopulation(plans, **options)  # type: ignore[arg-type]


# ---- what a search may turn


def test_a_space_is_discovered() -> None:
    """Caught: rates that nothing moves; ranges that leave the model's own rate out."""
    model = nn.Sequential(net(0.95), nn.TransformerEncoderLayer(1, 1, 8, dropout=0.0))
    space = discover(dropkit.rates(model, torch.ones(2, 3, 16)), classes=True)
    assert space.names == (
        *("hidden", "attention", "residual"), *("lr", "weight_decay", "label_smoothing"),
    )  # fmt: skip
    for name in space.rates:
        knob = space[name]
        assert knob.optional
        assert knob.default == 0 or knob.low <= knob.default <= knob.high
        assert "usual" in knob.reason
    assert (space["attention"].low, space["attention"].high) == (0.01, 0.225)
    assert all(a.low < a.high for a, _ in pairwise(space))
