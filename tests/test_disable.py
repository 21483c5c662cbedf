"""Off means off: in training mode, for each way of writing a dropout, with the proof."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit.errors import PlanError, SettingError
from sampled_models import MODELS, made


class Sly(nn.Module):
    """A rate that no name tells, and a dropout that these inputs do not come to."""

    def __init__(self) -> None:
        super().__init__()
        self.amount, self.keep_prob = 0.5, 0.5

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x * x.new_empty(x.shape).bernoulli_(1 - self.amount) / (1 - self.amount)
        return F.dropout(x, 0.9, self.training) if x.sum() < 0 else x


class Handmade(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) > 0.25) if self.training else x


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"floor_path"}))
@pytest.mark.parametrize("proven", [True, False])
def test_each_kind_is_off(name: str, proven: bool) -> None:
    """Caught: by classes (functional, attention), by attributes (rates of the source)."""
    model, inputs = made(name)
    model.train()
    before = copy.deepcopy(model.state_dict())
    off = dropkit.disable(model, *(inputs if proven else ()))
    assert off.proven is proven
    assert torch.equal(model(*inputs), model(*inputs))
    off.restore()
    assert any(not torch.equal(model(*inputs), model(*inputs)) for _ in range(30))
    assert all(
        torch.equal(before[key], value) or "running" in key or "num_batches" in key
        for key, value in model.state_dict().items()
    )


def test_what_no_name_tells_is_off_if_it_is_run() -> None:
    """Caught: names alone; only what these inputs come to."""
    model, x = Sly(), torch.ones(4, 8)
    off = dropkit.disable(model, x)
    assert (model.amount, model.keep_prob) == (0.0, 1.0)
    assert torch.equal(model(x), x)
    assert torch.equal(model(-x), -x)
    off.restore()
    assert (model.amount, model.keep_prob) == (0.5, 0.5)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_switched_off_is_said_and_left() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Handmade())
    with pytest.raises(PlanError, match=r"1 \(rand_like\) at .*test_disable\.py:\d+"):
        dropkit.disable(model, torch.ones(4, 8))
    assert model[0].p == 0.5
    assert not model._forward_pre_hooks


def test_without_inputs_nothing_is_called_proven() -> None:
    off = dropkit.disable(nn.Sequential(nn.Dropout(0.5)))
    assert str(off) == "0.p: 0.5 -> 0\noff; not proven, without inputs"
    assert not off.proven


def test_what_seldom_draws_is_not_called_off() -> None:
    """Caught: two passes that are equal since nothing was left out in them."""

    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x if self.training and torch.rand(1) < 0.01 else x + self.layer(x)

    with pytest.raises(PlanError, match=r"could make them differ.*\(rand\)"):
        dropkit.disable(Skipping(), torch.ones(4, 8))


def test_without_tensors_to_compare_nothing_is_called_proven() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> float:
            return self.drop(x).mean().item()

    off = dropkit.disable(Mean(), torch.ones(4, 8))
    assert not off.proven
    assert "not proven, without tensors that have values" in str(off)


def test_what_is_kept_and_called_dropout_is_given_back() -> None:
    """Caught: one number taken for two, of which the second remembers what the first wrote."""

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout_keep = 0.75

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 1 - self.dropout_keep, self.training)

    model = Kept()
    off = dropkit.disable(model, torch.ones(4, 8))
    assert [str(one) for one in off.touched] == ["dropout_keep: 0.75 -> 1"]
    off.restore()
    assert model.dropout_keep == 0.75


@pytest.mark.parametrize("proven", [True, False])
def test_numbers_that_are_only_called_like_rates_are_left(proven: bool) -> None:
    """Caught: a factor that is set to 0, and two passes that are equal: nothing comes out."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout_scale, self.raindrops, self.drop = 0.5, 0.25, nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.drop(x) * self.dropout_scale
            return x + self.raindrops if self.training or proven else x

    model, x = Scaled().eval(), torch.ones(4, 8)
    expected = model(x)
    with dropkit.disable(model, *([x] if proven else [])) as off:
        assert off.proven == proven
        assert torch.equal(model(x), expected)
        assert model.drop.p == 0


def test_it_is_undone_at_the_end_of_its_block_and_can_be_done_twice() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    with dropkit.disable(model), dropkit.disable(model):
        assert model[0].p == 0
    assert model[0].p == 0.5


def test_a_compiled_model_is_off() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    compiled = torch.compile(model, backend="eager")
    x = torch.ones(4, 8)
    assert not torch.equal(compiled(x), compiled(x))
    with dropkit.disable(compiled, x):
        assert torch.equal(compiled(x), compiled(x))


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(SettingError, match="Module; got str"):
        dropkit.disable("model")  # type: ignore[arg-type]
