"""Forms on which rules on modes and scaling could go wrong, and mistakes that must be found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropkit
from dropkit.bounds import binomial_chance
from dropkit.inspection.masks import chance
from dropkit.records import Report
from rule_examples import Body, Middle


def net(body: Body, width: int = 64, **held: object) -> nn.Sequential:
    middle = Middle(body, **held)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), middle, nn.Linear(width, 1))


def said(report: Report, group: str) -> list[tuple[str, str]]:
    return [(f.rule, f.severity) for f in report.findings if f.code.startswith(group)]


def mode(model: nn.Module, *inputs: Tensor, **settings: str) -> list[tuple[str, str]]:
    return said(dropkit.audit(model, *inputs, select=["DK1"], **settings), "DK1")


def scaling(body: Body, rows: int = 16, **held: object) -> list[tuple[str, str]]:
    torch.manual_seed(1)
    return said(dropkit.audit(net(body, **held), torch.randn(rows, 8), select=["DK4"]), "DK4")


X = torch.ones(4, 8)

# ---- modes


def test_sampling_on_purpose_is_no_error() -> None:
    def reparameterized(_: nn.Module, x: Tensor) -> Tensor:
        return torch.distributions.Normal(x, 1 + x.exp()).rsample()

    def chosen(_: nn.Module, x: Tensor) -> Tensor:
        return x[:, torch.multinomial(torch.ones(64), 64)]

    def patches(_: nn.Module, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x).argsort(dim=1) < 32)

    def gumbel(_: nn.Module, x: Tensor) -> Tensor:
        return F.gumbel_softmax(x, dim=-1)

    assert mode(net(reparameterized), X) == []
    assert mode(net(chosen), X) == []
    assert mode(net(gumbel), X) == []
    assert mode(net(patches), X) in ([], [("always-on-dropout", "note")])


def test_noise_that_multiplies_is_a_note() -> None:
    def noisy(_: nn.Module, x: Tensor) -> Tensor:
        return x * (1 + 0.3 * torch.randn_like(x))

    assert mode(net(noisy), X) == [("always-on-dropout", "note")]


def test_a_prenet_is_a_note_by_its_name() -> None:
    class Prenet(Middle):
        pass

    model = net(lambda _, x: x)
    model[2] = Prenet(lambda _, x: F.dropout(x, 0.5, training=True))
    assert mode(model, X) == [("always-on-dropout", "note")]


def test_a_skipped_layer_is_a_warning_where_it_is_not_gated() -> None:
    def gated(module: nn.Module, x: Tensor) -> Tensor:
        lot = torch.rand([])
        return x if module.training and lot < 0.3 else x.exp()

    def free(_: nn.Module, x: Tensor) -> Tensor:
        return x if torch.rand([]) < 0.3 else x.exp()

    assert mode(net(gated), X) == []
    assert mode(net(free), X) == [("always-on-dropout", "warning")]


def test_a_dropout_that_is_held_outside_is_one_finding() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rate = 0.1 if self.training else 0.0
            return F.scaled_dot_product_attention(x, x, x, dropout_p=rate)

    model = net(lambda m, x: m.parts[0](x[:, None])[:, 0], parts=[Attention()])
    assert mode(model, X) == [("dropout-built-in-forward", "error")]


def test_a_list_of_modules_with_weights_is_left_to_its_author() -> None:
    part = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.1))
    model = net(lambda m, x: m.parts[0](x), parts=[part])
    (found,) = dropkit.audit(model, X, select=["DK102"]).findings
    assert "outside" in found.message
    assert found.edit is None


def test_one_that_is_built_is_told_from_one_that_is_held() -> None:
    built = dropkit.audit(net(lambda _, x: nn.Dropout(0.1)(x)), X, select=["DK102"])
    held = dropkit.audit(net(lambda m, x: m.d["a"](x), d={"a": nn.Dropout(0.1)}), X, select="DK102")
    assert "built anew" in built.findings[0].message
    assert "outside" in held.findings[0].message
    assert held.findings[0].edit is not None


def test_an_evaluation_pass_that_fails_is_no_pass() -> None:
    def fails(module: nn.Module, x: Tensor) -> Tensor:
        if not module.training:
            raise RuntimeError("not yet")
        return F.dropout(x, 0.5)

    report = dropkit.audit(net(fails), X, select=["DK101", "DK102", "DK103"])
    assert report.findings == ()
    assert len(report.not_applicable) == 3


def test_what_was_seen_before_a_failure_is_said() -> None:
    def fails(module: nn.Module, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.5)
        if not module.training:
            raise RuntimeError("not yet")
        return x

    assert mode(net(fails), X) == [("always-on-dropout", "error")]


def test_monte_carlo_dropout_is_told_from_a_part_that_was_forgotten() -> None:
    def model(*on: str) -> nn.Module:
        parts = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 8)
        made = nn.Sequential(nn.Sequential(*parts), nn.Dropout(0.2), nn.Linear(8, 1)).eval()
        for path in on:
            made.get_submodule(path).train()
        return made

    name = "left-in-train-mode"
    assert mode(model("0.2", "1"), X) == [(name, "note")]
    assert mode(model("0.2", "1"), X, purpose="inference") == [(name, "warning")]
    assert mode(model("0.2"), X) == [(name, "warning")]
    assert mode(model("0"), X) == [(name, "warning")]
    assert mode(model("0"), X, purpose="inference") == [(name, "error")]
    assert mode(model("0.0"), X, purpose="inference") == []
    assert mode(model("0.1"), X, purpose="inference") == [(name, "error")]
    assert mode(model("0"), X, purpose="train") == [("trained-in-eval-mode", "warning")]


def test_a_frozen_backbone_stays_as_it_is() -> None:
    body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 8))
    model = nn.Sequential(body, nn.Dropout(0.2), nn.Linear(8, 1))
    body.eval().requires_grad_(False)
    assert mode(model, X, purpose="train") == []
    body[2].bias.requires_grad_(True)
    assert mode(model, X, purpose="train") == [("trained-in-eval-mode", "warning")]
    model.eval()
    body.requires_grad_(False)
    (found,) = dropkit.audit(model, X, purpose="train", select=["DK105"]).findings
    assert "1 dropout " in found.message
    assert found.edit is not None
    assert not found.edit.safe  # it would switch the backbone, too


def test_rates_of_a_schedule_are_not_those_of_evaluation() -> None:
    def stepped(module: nn.Module, x: Tensor) -> Tensor:
        module.dropout += 0.01 * module.training
        return F.dropout(x, module.dropout, module.training)

    def stopped(module: nn.Module, x: Tensor) -> Tensor:
        module.dropout *= module.training
        return F.dropout(x, module.dropout, module.training)

    assert mode(net(stepped, dropout=0.1), X) == []
    assert mode(net(stopped, dropout=0.1), X) == [("rate-overwritten-by-eval", "error")]


def test_a_rate_that_training_lowers_asks_for_what_is_then_dropped() -> None:
    def lowered(module: nn.Module, x: Tensor) -> Tensor:
        if not module.training:
            return x
        module.drop_prob *= 0.6
        return x * (torch.rand_like(x) >= module.drop_prob) / (1 - module.drop_prob)

    report = dropkit.audit(net(lowered, drop_prob=0.5), X, select=["DK107", "DK4"])
    assert report.findings == ()


# ---- scaling


def in_training(mask: Callable[[Tensor], Tensor]) -> Body:
    return lambda module, x: mask(x) if module.training else x


UNSCALED = ("dropout-without-scaling", "error")
TWICE = ("dropout-scaled-twice", "error")


def indexed(x: Tensor) -> Tensor:
    x = x.clone()
    x[torch.rand_like(x) < 0.3] = 0.0
    return x


@pytest.mark.parametrize(
    "mask",
    [
        lambda x: x * (torch.rand_like(x) > 0.1),
        lambda x: x.masked_fill(torch.rand_like(x) < 0.3, 0),
        lambda x: torch.where(torch.rand_like(x) < 0.3, 0.0, x),
        lambda x: torch.where(torch.rand_like(x) < 0.3, torch.zeros_like(x), x),
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.7)) / 0.3,
        lambda x: x * (torch.rand(x.shape) > 0.3).float() * 0.7,
        lambda x: x * (torch.randn_like(x) > 0.3),
        indexed,
    ],
)
def test_unscaled_masks_are_found(mask: Callable[[Tensor], Tensor]) -> None:
    assert scaling(in_training(mask)) == [UNSCALED]


@pytest.mark.parametrize(
    "mask",
    [
        lambda x: x * (torch.rand_like(x) > 0.1) / 0.9,
        lambda x: x * (torch.rand_like(x) > 0.3).float().div_(0.7),
        lambda x: (x / 0.7) * (torch.rand_like(x) > 0.3),
        lambda x: x * (torch.rand_like(x) > 0.3) / torch.tensor(0.7),
        lambda x: F.normalize(x * (torch.rand_like(x) > 0.3)) * (1 / 0.7),
        lambda x: x * (m := (torch.rand_like(x) > 0.3).float()) * m.numel() / m.sum(),
        lambda x: x.masked_fill(torch.rand_like(x) < 0.3, -1e9),
        lambda x: torch.where(torch.rand_like(x) < 0.3, x.mean(), x),
        lambda x: x * (m := (torch.rand_like(x) > 0.3).float()) + x.flip(0) * (1 - m),
        lambda x: F.dropout(x, 0.3) * 2,
        lambda x: F.alpha_dropout(x, 0.3, True),
        lambda x: x * (1 + 0.5 * torch.randn_like(x)),
    ],
)
def test_scaled_and_filled_masks_are_left_alone(mask: Callable[[Tensor], Tensor]) -> None:
    assert scaling(in_training(mask)) == []


@pytest.mark.parametrize(
    "mask",
    [
        lambda x: F.dropout(x, 0.2) / 0.8,
        lambda x: F.dropout(x / 0.8, 0.2),
        lambda x: F.dropout(x, 0.5) * 2,
        lambda x: x * (torch.rand_like(x) > 0.2).float().div_(0.8) * 1.25,
        lambda x: (x / 0.8) * (torch.rand_like(x) > 0.2) / 0.8,
    ],
)
def test_masks_that_are_scaled_twice_are_found(mask: Callable[[Tensor], Tensor]) -> None:
    assert scaling(in_training(mask)) == [TWICE]


def test_a_factor_in_both_modes_keeps_them_in_step() -> None:
    def common(module: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, module.training) * 2

    def odd(module: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1, module.training) / 0.9

    assert scaling(common) == []
    assert scaling(odd) == [("dropout-scaled-twice", "warning")]


def test_classic_dropout_scales_in_evaluation() -> None:
    def activations(module: nn.Module, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) > 0.3) if module.training else x * 0.7

    def weights(module: nn.Module, x: Tensor) -> Tensor:
        weight = module.layer.weight
        mask = torch.rand_like(weight) > 0.3
        return F.linear(x, weight * mask if module.training else weight * (1 - 0.3))

    assert scaling(activations) == []
    assert scaling(weights, layer=nn.Linear(64, 64)) == []


def test_inputs_and_branches_are_milder() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(9, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.table(x)
            if self.training:
                y = y * (torch.rand(x.shape) > 0.2)[..., None]
            return self.last(y)

    words = torch.randint(0, 9, (32, 40))
    report = dropkit.audit(Words(), words, select=["DK4"])
    assert said(report, "DK4") == [("dropout-without-scaling", "note")]

    def branch(module: nn.Module, x: Tensor) -> Tensor:
        y = module.layer(x)
        return x + (y * (torch.rand(len(x), 1) > 0.2) if module.training else y)

    found = scaling(branch, rows=64, layer=nn.Linear(64, 64))
    assert found == [("dropout-without-scaling", "warning")]


def test_without_values_nothing_is_measured() -> None:
    with torch.device("meta"):
        model = net(in_training(lambda x: x * (torch.rand_like(x) > 0.1)))
    report = dropkit.audit(model, X, select=["DK4"], device="meta")
    assert report.findings == ()
    assert len(report.not_applicable) == 4


WRONG = [("wrong-fraction-dropped", "error")]


def home_made(rate: Callable[[nn.Module], float]) -> Body:
    def body(module: nn.Module, x: Tensor) -> Tensor:
        keep = 1 - rate(module)
        return x * (torch.rand_like(x) < keep) / keep if module.training else x

    return body


def test_fractions_are_compared_with_the_one_rate_that_is_held() -> None:
    right, off = home_made(lambda m: m.dropout), home_made(lambda m: m.dropout + 0.05)
    assert scaling(right, dropout=0.2) == []
    assert scaling(off, rows=256, dropout=0.2) == WRONG
    assert scaling(home_made(lambda m: 1 - m.dropout), dropout=0.2) == WRONG
    assert scaling(off, rows=256, dropout=0.2, other_dropout=0.1) == []  # which one is asked for?
    assert scaling(off, rows=256, dropout=0.2, warmup_steps=9) == []
    assert scaling(home_made(lambda m: 1 - m.keep_dropout), keep_dropout=0.8) == []


def test_a_mask_that_is_divided_by_its_own_mean_is_still_one() -> None:
    def normalized(module: nn.Module, x: Tensor) -> Tensor:
        if not module.training:
            return x
        seeds = (torch.rand_like(x) < 0.1).float()[:, None]
        block = 1 - F.max_pool1d(seeds, 9, 1, 4)[:, 0]
        return x * (block * (block.numel() / block.sum()))

    assert scaling(normalized, rows=256, drop_prob=0.1) == WRONG


def test_too_few_draws_decide_nothing() -> None:
    def blocks(module: nn.Module, x: Tensor) -> Tensor:
        if not module.training:
            return x
        seeds = (torch.rand_like(x) < 0.1).float()[:, None]
        block = 1 - F.max_pool1d(seeds, 9, 1, 4)[:, 0]
        return x * block * (block.numel() / block.sum().clamp(min=1))

    assert scaling(blocks, rows=2, drop_prob=0.4) == []
    assert scaling(blocks, rows=256, drop_prob=0.1) == WRONG


def test_the_bound_holds_the_exact_chance() -> None:
    for draws, rate in ((10, 0.5), (100, 0.1), (1000, 0.9), (4096, 0.02)):
        for count in range(0, draws + 1, max(1, draws // 50)):
            exact = binomial_chance(count, draws, rate)
            assert chance(count / draws, draws, rate) >= exact * (1 - 1e-9)


def test_right_masks_raise_no_alarm_whatever_the_seed() -> None:
    right = net(home_made(lambda m: m.dropout), dropout=0.2)
    for seed in range(40):
        torch.manual_seed(seed)
        assert said(dropkit.audit(right, torch.randn(4, 8), select=["DK4"]), "DK4") == []


# ---- weights


def test_weights_that_come_back_are_not_destroyed() -> None:
    def raw(module: nn.Module, x: Tensor) -> Tensor:
        kept = module.layer.weight.data
        module.layer.weight.data = F.dropout(kept, 0.2, module.training)
        try:
            return module.layer(x)
        finally:
            module.layer.weight.data = kept

    def lost(module: nn.Module, x: Tensor) -> Tensor:
        module.layer.weight.data = F.dropout(module.layer.weight.data, 0.2, module.training)
        return module.layer(x)

    name = ("weights-destroyed-by-dropout", "error")
    assert scaling(raw, layer=nn.Linear(64, 64)) == []
    assert scaling(lost, layer=nn.Linear(64, 64)) == [name]


def test_a_parameter_that_is_replaced_is_destroyed() -> None:
    def replaced(module: nn.Module, x: Tensor) -> Tensor:
        if module.training:
            module.layer.weight = nn.Parameter(F.dropout(module.layer.weight, 0.2))
        return module.layer(x)

    model = net(replaced, layer=nn.Linear(64, 64))
    before = model[2].layer.weight
    report = dropkit.audit(model, X, select=["DK404"])
    assert said(report, "DK4") == [("weights-destroyed-by-dropout", "error")]
    assert model[2].layer.weight is before
    assert (before != 0).all()


def test_weights_that_are_pruned_without_a_draw_are_another_matter() -> None:
    def pruned(module: nn.Module, x: Tensor) -> Tensor:
        weight = module.layer.weight.data
        weight.mul_(weight.abs() > 0.01)
        return module.layer(x)

    assert scaling(pruned, layer=nn.Linear(64, 64)) == []


# ---- both modes together


def test_what_evaluation_scales_as_well_is_scaled_twice() -> None:
    def inverted(m: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, True) if m.training else x * (1 - 0.5)

    def by_hand(m: nn.Module, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= 0.3) / 0.7 if m.training else 0.7 * x

    def behind(m: nn.Module, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.2, m.training)
        return x if m.training else x.mul(0.8)

    twice = [("dropout-scaled-twice", "error")]
    assert [scaling(body) for body in (inverted, by_hand, behind)] == [twice] * 3


def test_what_evaluation_scales_for_another_reason_is_right() -> None:
    def classic(m: nn.Module, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= 0.3) if m.training else x * 0.7

    def taken_back(m: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2, True) * 0.8 if m.training else x.div(1 / 0.8)

    def attention(m: nn.Module, x: Tensor) -> Tensor:
        scores = (x[:, :, None] * x[:, None]) * 4**-0.5
        return (F.dropout(scores.softmax(-1), 0.5, m.training) @ x[:, :, None])[..., 0]

    def cooled(m: nn.Module, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.5, m.training).exp()
        return x if m.training else x * 0.5

    def seldom(m: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(x, 0.001, True) if m.training else x * 1.0

    assert [scaling(b) for b in (classic, taken_back, attention, cooled, seldom)] == [[]] * 5


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_that_is_drawn_with_few_bits_is_measured(seed: int) -> None:
    def mask(m: nn.Module, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= m.dropout) / (1 - m.dropout) if m.training else x

    def judged(rate: float, dtype: torch.dtype) -> list[tuple[str, str]]:
        torch.manual_seed(seed)
        model, x = net(mask, width=512, dropout=rate).to(dtype), torch.randn(256, 8, dtype=dtype)
        return said(dropkit.audit(model, x, select=["DK403"]), "DK4")

    assert judged(0.001, torch.bfloat16) == [("wrong-fraction-dropped", "error")]
    assert judged(0.3, torch.bfloat16) == []
    assert judged(0.001, torch.float32) == []
