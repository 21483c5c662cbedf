"""Plans of rates, of unlike models and beside what else changes one: compilers, other plans."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit
import dropkit.nn
from dropkit.errors import SettingError
from planned_models import Literal, X, planned


class Computed(nn.Module):
    """One number, and what is computed of it, on one line or in a part."""

    def __init__(self, parts: int = 2) -> None:
        super().__init__()
        self.p, self.parts = 0.4, parts

    def forward(self, x: Tensor) -> Tensor:
        rates = [self.p * (i + 1) / self.parts for i in range(self.parts)]
        return torch.stack([F.dropout(x, rate, self.training) for rate in rates])


ONES = torch.ones(64, 1024)


def fractions(values: Tensor) -> list[float]:
    """What was dropped; off by .01 once in 10^8 times and more."""
    return [float((value == 0).float().mean()) for value in values]


@pytest.mark.parametrize("parts", [2, 12])
def test_rates_that_are_computed_of_one_number_are_set_one_by_one(parts: int) -> None:
    """Caught: the number written, which moves what is computed of it, too."""
    torch.manual_seed(0)
    model = Computed(parts)
    plan = planned(model, ONES)
    assert plan.levers[0].rate == pytest.approx(0.4 / parts, abs=1e-12)
    plan.update(dict.fromkeys(("output", ""), 0.1))
    assert plan.apply().proof.holds
    assert fractions(model.train()(ONES)) == pytest.approx([0.1] * parts, abs=0.01)
    plan.restore()
    expected = [0.4 * (i + 1) / parts for i in range(parts)]
    assert fractions(model(ONES)) == pytest.approx(expected, abs=0.015)


def test_a_call_that_no_site_of_its_line_is_asked_for_is_found() -> None:
    """Caught: of the calls of one line, the best is taken as that of each of its sites."""
    model = Computed()
    plan = planned(model, ONES)
    for lever in plan:
        lever.asked = 0.1
    model.p = 0.1  # and what is computed of it is .05
    proof = plan.prove()
    assert not proof.holds
    assert proof.failed[0].realized == pytest.approx(0.05, abs=0.01)


def test_half_of_a_number_is_not_taken_for_another_number() -> None:
    """Caught: the second number is moved by twice as much as the first, and half of it alike."""

    class Half(nn.Module):
        def __init__(self, p: float, parts: int) -> None:
            super().__init__()
            self.p, self.parts = p, parts

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, self.p / self.parts, self.training)

    plan = planned(nn.Sequential(Half(0.1, 1), Half(0.2, 2)), X)
    first, second = plan
    assert first.number is not None
    assert second.number is None
    plan["output"] = 0.3
    assert plan.apply().proof.holds


def test_the_rate_of_a_part_moves_what_is_called_with_it() -> None:
    """As attention of Transformers' BERT has it. Caught: numbers of parts taken for strangers."""

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, self.dropout.p, self.training)

    plan = planned(nn.Sequential(Reads()))
    assert list(plan.rates) == ["0.dropout.p"]
    plan.off()
    assert [touched.what for touched in plan.apply().touched] == ["0.dropout.p"]


def test_a_configuration_that_is_frozen_is_left_as_it_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        rate: float = 0.3

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.drop = Frozen(), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(F.dropout(x, self.config.rate, self.training))

    model = Held()
    plan = planned(model)
    plan.off()
    assert plan.apply().proof.holds
    assert torch.equal(model.train()(X), X)
    plan.restore()
    with dropkit.disable(model, X) as off:
        assert off.proven
    assert (model.config.rate, model.drop.p) == (0.3, 0.5)


def test_what_is_no_part_of_the_model_is_said() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drops = [nn.Dropout(0.3)]

        def forward(self, x: Tensor) -> Tensor:
            return self.drops[0].train(self.training)(x)

    plan = planned(Listed())
    plan.apply()
    plan.off()
    with pytest.raises(SettingError, match=r"nn\.ModuleList"):
        plan.apply()


def test_a_text_of_what_cannot_be_moved_comes_back() -> None:
    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            x = x * (torch.rand_like(x) > 0.25) / 0.75 if self.training else x
            return self.drop(x)

    plan, other = planned(Mask()), planned(Mask())
    plan["drop"] = 0.2
    written = plan.to_toml()
    assert other.load(written).rates == plan.rates
    with pytest.raises(SettingError, match="can be moved"):
        other.load(written.replace("= 0.25 ", "= 0.3 "))
    moves = dropkit.RatePopulation([plan, other], ["drop"]).step([1.0, 2.0])
    assert moves[0].member == 1


def test_a_rate_that_grows_from_pass_to_pass_is_held() -> None:
    """Caught: a call known by the rate that it came with when it was looked at."""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += self.training
            free = F.dropout(x, self.passes / 8, self.training)
            return torch.stack([free, F.dropout(x, self.passes / 4, self.training)])

    torch.manual_seed(0)
    model = Growing()
    plan = planned(model, ONES)
    plan.levers[1].asked = 0.1
    plan.apply()
    for step in range(1, 4):
        assert fractions(model.train()(ONES)) == pytest.approx([step / 8, 0.1], abs=0.015)


def test_a_model_compiled_after_its_plan_is_not_taken_for_another_of_its_class() -> None:
    """Caught: a rate of the source, a constant in the program of a model without a plan."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch.compile(nn.Sequential(Literal()), backend="eager")(X)
    model = nn.Sequential(Literal())
    plan = planned(model, X)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        plan["0"] = 1.0
        plan.apply(prove=False)
        assert not (compiled(X) - model[0].layer.bias).any()
        plan.restore()
        assert (compiled(X) - model[0].layer.bias).any()


@pytest.mark.parametrize("step", [False, True])
def test_programs_of_other_models_of_the_class_are_not_used(step: bool) -> None:
    """Caught: a compiler asks for the class and not for hooks; a rate that is no short decimal."""

    def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
        model.train()
        return torch.compile((lambda x: model(x)) if step else model, backend="eager")

    torch.manual_seed(0)
    torch._dynamo.reset()
    compiled(nn.Sequential(nn.Dropout(1 / 3)))(ONES)
    model = nn.Sequential(nn.Dropout(1 / 3))
    before = compiled(model)
    before(ONES)
    plan = planned(model, ONES)
    plan["0"] = 0.6
    plan.apply(compiled=True)
    assert fractions(before(ONES)[None]) == pytest.approx([0.6], abs=0.01)
    assert fractions(compiled(model)(ONES)[None]) == pytest.approx([0.6], abs=0.01)


def test_paths_are_learned_as_roles_are() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)))
    learned = dropkit.LearnedRates(planned(model), ["0.2"], rows=10)
    assert learned.rates == {"0.2": 0.5}
    (model.train()(X).square().mean() + learned.penalty()).backward()
    assert all(logit.grad is not None for logit in learned.parameters())
    learned.load_state_dict(learned.state_dict())
    learned.settle()


# ---- beside what else changes a model


class Attending(nn.Module):
    """Attention and a dropout, at rates of the source."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        x = x + F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if self.training else 0.0)
        return F.dropout(x, 0.25, self.training)


def zeros(y: Tensor) -> float:
    return float((y == 0).float().mean())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_plan_holds_whatever_is_accelerated_before_or_after(compiled: bool) -> None:
    """Caught: a handler that comes later, and draws at the rate of the source."""
    for first in (True, False):
        model = Attending()
        x = X.repeat(32, 1, 1)
        if first:
            dropkit.accelerate(model)
        plan = planned(model)
        plan["output"] = 0.6
        plan.apply(compiled=compiled)
        dropkit.accelerate(model)
        assert abs(zeros(model(x)) - 0.6) < 0.05
        with dropkit.disable(model, X):
            assert zeros(model(x)) == 0
        dropkit.restore(model)
        plan.restore()
        assert not model._forward_pre_hooks


def test_samples_and_maps_see_the_rates_of_a_plan() -> None:
    """Caught: the rate of the source, in evaluation mode; one that was remembered."""
    model = Attending().eval()
    plan = planned(model)
    for rates in ((0.9, 0.6), (0.1, 0.6), (0.1, 0.2)):
        plan.update(dict(zip(("attention", "output"), rates, strict=True)))
        plan.apply()
        draws = dropkit.sample(model, X, draws=40, key=1)
        assert tuple(site.site.rate for site in draws.sites) == rates
        assert abs(zeros(draws.samples) - rates[1]) < 0.05
        assert tuple(site.rate for site in dropkit.sites(model, X)) == rates
    plan.restore()
    assert tuple(site.rate for site in dropkit.sites(model, X)) == (0.3, 0.25)


def test_samples_of_copies_and_of_the_last_of_two_plans_have_their_rates() -> None:
    """Caught: handlers that are known by having been attached; the first plan of a call."""
    model = Attending().eval()
    first = planned(model)
    first.update({"attention": 0.9, "output": 0.6})
    first.apply()
    twin = copy.deepcopy(model)
    second = planned(model)
    second.update({"attention": 0.1, "output": 0.2})
    second.apply()
    for one, rates in ((twin, (0.9, 0.6)), (model, (0.1, 0.2))):
        draws = dropkit.sample(one, X, draws=40, key=1)
        assert tuple(site.site.rate for site in draws.sites) == rates
        assert abs(zeros(draws.samples) - rates[1]) < 0.05
        assert tuple(site.rate for site in dropkit.sites(one, X)) == rates


def test_a_model_without_dropout_has_an_empty_plan() -> None:
    plan = planned(nn.Linear(8, 8))
    plan.off()
    done = plan.apply()
    assert (len(plan), done.touched, done.proof.holds) == (0, (), True)


def test_names_of_which_nothing_can_be_learned_leave_the_model() -> None:
    """Caught: hooks of the names before; a rate that nothing but its penalty moves."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = Literal()

        def within(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.25, self.training)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.within, self.keys(x), use_reentrant=False)

    model = Checkpointed()
    plan = planned(model)
    for names, says in ((["keys", "nowhere"], "nowhere"), (["keys", "output"], "checkpoint")):
        with pytest.raises(SettingError, match=says):
            dropkit.LearnedRates(plan, names, rows=10)
    with pytest.raises(SettingError, match="later name"):
        dropkit.LearnedRates(plan, ["keys", "key*"], rows=10)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert dropkit.LearnedRates(plan, ["keys"], rows=10).rates == {"keys": 0.25}


def test_a_text_says_nothing_of_what_no_name_tells_apart() -> None:
    """Caught: one name twice in a table, which is none; the last of two rates for both."""

    class OneLine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(F.dropout(F.dropout(x, 0.25, self.training), 0.1, self.training))

    plan = planned(OneLine())
    plan["drop"] = 0.2
    for written in (plan.to_toml(), plan.to_json()):
        assert planned(OneLine()).load(written).changes == {"drop.p": (0.5, 0.2)}
    plan.levers[0].asked = 0.3
    for write in (plan.to_toml, plan.to_json):
        with pytest.raises(SettingError, match=r"got 0\.1, 0\.3.*lines of their own"):
            write()


def test_of_two_plans_of_one_model_the_last_holds() -> None:
    """Caught: the first takes the rate that the second asks for one of the model, and sets its."""
    model = Literal()
    first = planned(model)
    first[""] = 0.5
    first.apply()
    second = planned(model)
    second[""] = 1.0
    assert second.apply().proof.holds
    learned = dropkit.LearnedRates(second, rows=10)
    model.train()(X).sum().backward()
    assert all(logit.grad is not None for logit in learned.parameters())
    learned.settle()
    second.restore()
    first.restore()
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("whole", [0, 1])
def test_a_whole_rate_comes_back_whole(whole: int) -> None:
    """Mutant: 1.0 for 1; `disable` writes nothing over a 0."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(whole))
    plan = dropkit.rates(net, torch.ones(2, 4))
    plan["1"] = 0.5
    for change in (plan.applied, lambda: dropkit.disable(net, torch.ones(2, 4))):
        with change():
            pass
        assert type(net[1].p) is int and net[1].p == whole


class Skipping(nn.Module):
    """A branch that is skipped by chance; Python compares what was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.layerdrop = nn.Linear(4, 4), 0.3

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()).item() < self.layerdrop:
            return x
        return x + self.linear(x)


def test_a_rate_that_nobody_sees_is_said() -> None:
    """Mutant: a plan that is empty, and says that all is as the model has it."""
    plan = dropkit.rates(Skipping(), torch.ones(2, 4))
    assert len(plan) == 0 and [site.kind for site in plan.unread] == ["path"]
    assert "its rate is not seen: stochastic depth at " in str(plan)
    with dropkit.disable(Skipping(), torch.ones(2, 4)) as off:  # two passes might be equal by luck
        assert not off.proven and "rate of the model itself (rand)" in str(off)


class Drawn(nn.Module):
    """A mask of which each kind of torch's draws of zeros and ones makes one."""

    def __init__(self, draw: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self.draw, self.amount = draw, 0.3

    def forward(self, x: Tensor) -> Tensor:
        return x * self.draw(x, 1 - self.amount) / (1 - self.amount) if self.training else x


@pytest.mark.parametrize(
    ("draw", "moves"),
    [
        (lambda x, keep: torch.empty_like(x).bernoulli_(keep), True),
        (lambda x, keep: torch.bernoulli(torch.full_like(x, keep)), True),
        (lambda x, keep: torch.bernoulli(torch.full_like(x, keep, dtype=torch.half)).float(), True),
        (lambda x, keep: torch.empty_like(x).bernoulli_(torch.tensor(keep)), False),
        (lambda x, keep: torch.distributions.Bernoulli(keep).sample(x.shape), False),
        (lambda x, keep: torch.distributions.Bernoulli(torch.tensor(keep)).sample(x.shape), False),
    ],
)
def test_draws_of_zeros_and_ones_have_their_rates(
    draw: Callable[[Tensor, float], Tensor], moves: bool
) -> None:
    """Mutant: 1/2, the default of `bernoulli_`, where the chance is a tensor that nobody knows."""
    (lever,) = dropkit.rates(Drawn(draw), ONES)
    assert lever.rate == 0.3 and lever.moves is moves


@pytest.mark.parametrize("kept", [0.7, 0.875, 0.125, 0.99609375, 0.001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.float, torch.double])
def test_a_chance_of_few_digits_is_told_as_it_is(kept: float, dtype: torch.dtype) -> None:
    """Mutant: rounded to the digits after the point that a type is good for: a rate of 0 or 1."""
    model = Drawn(lambda x, _: torch.empty_like(x).bernoulli_(torch.tensor(kept, dtype=dtype)))
    (lever,) = dropkit.rates(model, ONES)
    assert lever.rate == pytest.approx(1 - kept, rel=0, abs=1e-12 if dtype.itemsize > 2 else 1e-4)


def test_a_chance_that_is_written_over_is_not_read() -> None:
    """Mutant: 1/2, the default of `bernoulli_`, for all that writes."""

    def out(x: Tensor, keep: float) -> Tensor:
        return torch.bernoulli(torch.full_like(x, keep), out=torch.empty_like(x))

    def over(x: Tensor, keep: float) -> Tensor:
        mean = torch.linspace(keep, keep, x.numel()).view_as(x)
        return torch.bernoulli(mean, out=mean)

    assert [lever.rate for lever in dropkit.rates(Drawn(out), ONES)] == [0.3]
    assert not len(dropkit.rates(Drawn(over), ONES))


def test_on_the_meta_device_nothing_is_proven_off() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).to("meta")
    with dropkit.disable(net, torch.ones(2, 4, device="meta")) as off:
        assert not off.proven and "without tensors that have values" in str(off)


def test_a_mask_of_many_rates_has_none() -> None:
    plan = dropkit.rates(Drawn(lambda x, _: torch.bernoulli(torch.rand_like(x))), ONES)
    assert len(plan) == 0
