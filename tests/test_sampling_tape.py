"""Random programs, which write into values, views and buffers: each draw is what the model gives.

A program takes a pool of values (ROWS, STEPS, WIDTH), and each of its steps adds to it or writes
into it. The loop, which runs the model itself, is the oracle; a tape has to give the same.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as trees

import dropkit
from dropkit import SamplingError, SettingError
from dropkit.posterior.recording import Recorder
from sampled_models import unchanged

ROWS, STEPS, WIDTH = 3, 2, 4
KEY = 11
Pool = list[Tensor]
Act = Callable[["Program", Tensor, Tensor], Tensor | tuple[Tensor, ...] | None]
"""A step of a program, of two values: it gives new ones, or writes into the first."""


# ---- what drops


def by_module(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.drop(x)


def in_place(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.drop_in_place(x)


def by_function(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return F.dropout(x, 0.3, net.training)


def by_channel(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return F.dropout2d(x.unsqueeze(-1), 0.3, net.training).squeeze(-1)


def by_alpha(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return F.alpha_dropout(x, 0.3, net.training)


def by_hand(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x * (torch.rand(x.shape) > 0.4) / 0.6 if net.training else x


def by_bernoulli(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x.mul_(torch.empty_like(x).bernoulli_(0.6)) if net.training else x


def by_noise(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x * (1 + 0.3 * torch.randn_like(x)) if net.training else x


def by_weights(net: Program, x: Tensor, y: Tensor) -> Tensor:
    rate = 0.3 if net.training else 0.0
    return F.scaled_dot_product_attention(x, y, x, dropout_p=rate, is_causal=True)


def by_attention(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.attention(x, y, y)[0]


def by_encoder(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.encoder(x)


def by_recurrence(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.recurrent(x)[0]


def of_which_nothing_is_used(net: Program, x: Tensor, y: Tensor) -> None:
    net.drop(x).sum()


# ---- what writes


def writes_all(net: Program, x: Tensor, y: Tensor) -> None:
    x.relu_().add_(y)


def writes_a_column(net: Program, x: Tensor, y: Tensor) -> None:
    x[..., 1] = y[..., 2]


def writes_a_row(net: Program, x: Tensor, y: Tensor) -> None:
    x[0] *= 2
    x[1] = y[2]


def writes_over_itself(net: Program, x: Tensor, y: Tensor) -> None:
    x[..., 1:] = x[..., :-1].clone()


def writes_through_a_view(net: Program, x: Tensor, y: Tensor) -> Tensor:
    turned = x.transpose(0, -1)
    turned.mul_(0.9)
    turned[0] += 1
    return turned.contiguous().transpose(0, -1)


def writes_through_parts(net: Program, x: Tensor, y: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    low.sub_(high)
    return torch.cat([high, low], -1)


def writes_one_of_many(net: Program, x: Tensor, y: Tensor) -> Tensor:
    steps = x.unbind(1)
    steps[0].tanh_()
    return torch.stack(steps[::-1], 1)


def writes_into_new_room(net: Program, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    room = torch.empty(ROWS, STEPS, 2 * WIDTH)
    room[..., :WIDTH], room[..., WIDTH:] = x, 2 * y
    low, high = room.chunk(2, -1)
    high.add_(low)
    return low, high


def writes_step_by_step(net: Program, x: Tensor, y: Tensor) -> Tensor:
    room = torch.zeros(ROWS, STEPS, WIDTH)
    for step in range(STEPS):
        room[:, step] = x[:, STEPS - 1 - step]
    return room


def writes_where_told(net: Program, x: Tensor, y: Tensor) -> Tensor:
    room = torch.zeros(ROWS, STEPS, WIDTH)
    torch.add(x, 1, out=room)
    return room


def writes_a_buffer(net: Program, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    before = net.seen * 1
    net.seen.copy_(x)
    after = net.seen + 1
    net.seen.add_(y)
    return before, after, net.seen.clone()


def writes_a_state(net: Program, x: Tensor, y: Tensor) -> Tensor:
    net.state = net.state + x
    return net.state * 0.5


def writes_a_copy(net: Program, x: Tensor, y: Tensor) -> Tensor:
    room = torch.empty(ROWS, STEPS, WIDTH)
    room.copy_(x)
    room[..., 0] = 7
    return room + x


def writes_by_index(net: Program, x: Tensor, y: Tensor) -> None:
    x[[0, 1]] = x[[1, 0]]
    x.index_put_((torch.tensor([0, 2]),), torch.tensor(1.5))


def writes_where(net: Program, x: Tensor, y: Tensor) -> None:
    x.masked_fill_(x > 1, 0.5)


def writes_a_diagonal(net: Program, x: Tensor, y: Tensor) -> None:
    x.diagonal(0, -2, -1).zero_()


def writes_past_autograd(net: Program, x: Tensor, y: Tensor) -> None:
    x.data.add_(0.25)


def writes_flat(net: Program, x: Tensor, y: Tensor) -> None:
    x.reshape(-1)[::2] += 0.5


# ---- what computes


def weighs(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.linear(x)


def convolves(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return F.relu(net.conv(x.transpose(1, 2)), inplace=True).transpose(1, 2)


def convolves_channels_last(net: Program, x: Tensor, y: Tensor) -> Tensor:
    image = x.unsqueeze(1).contiguous(memory_format=torch.channels_last)
    return F.max_pool2d(net.image(image), (1, 3), stride=1, padding=(0, 1))[:, 1]


def normalizes(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return net.layer_norm(net.batch_norm(x.transpose(1, 2)).transpose(1, 2))


def mixes_rows(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x - y.mean(0, keepdim=True)


def contracts(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("btc,bsc,bsd->btd", x, y, x) / WIDTH


def loops(net: Program, x: Tensor, y: Tensor) -> Tensor:
    hidden, found = torch.zeros(ROWS, WIDTH), []
    for step in range(STEPS):
        hidden = torch.tanh(net.linear(hidden) + net.drop(x[:, step]))
        found.append(hidden)
    return torch.stack(found, 1)


def sorts(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x.gather(-1, y.argsort(-1)) + x.topk(WIDTH, -1)[0]


def selects(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x > 0, x.cumsum(-1), y)


def casts(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return (x.double() * 1.5).float() + y.to(torch.bfloat16).float()


def expands(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x[:, :1].expand(ROWS, STEPS, WIDTH) * y


def decides(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return F.dropout(x, 0.5, net.training) if float(x.sum()) > 0 else x * 2


def counts(net: Program, x: Tensor, y: Tensor) -> Tensor:
    return x + x[x > 0].sum()


DROPS: tuple[Act, ...] = (
    *(by_module, in_place, by_function, by_channel, by_alpha, by_hand, by_bernoulli, by_noise),
    *(by_weights, by_attention, by_encoder, by_recurrence, of_which_nothing_is_used),
)
WRITES: tuple[Act, ...] = (
    *(writes_all, writes_a_column, writes_over_itself, writes_through_a_view, writes_where),
    *(writes_through_parts, writes_one_of_many, writes_into_new_room, writes_step_by_step),
    *(writes_where_told, writes_a_buffer, writes_a_state, writes_by_index, writes_a_diagonal),
    *(writes_a_copy, writes_a_row, writes_past_autograd, writes_flat),
)
OTHERS: tuple[Act, ...] = (
    *(weighs, convolves, convolves_channels_last, normalizes, mixes_rows, contracts, loops),
    *(sorts, selects, casts, expands, decides, counts),
)


class Program(nn.Module):
    """A few steps on a pool of values, drawn from a seed; the outputs may share memory."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        chance = random.Random(seed)
        self.linear, self.conv = nn.Linear(WIDTH, WIDTH), nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.image = nn.Conv2d(1, 2, 3, padding=1)
        self.batch_norm, self.layer_norm = nn.BatchNorm1d(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.3, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.2, batch_first=True)
        self.recurrent = nn.GRU(WIDTH, WIDTH, 2, dropout=0.4, batch_first=True)
        self.drop, self.drop_in_place = nn.Dropout(0.5), nn.Dropout(0.3, inplace=True)
        self.register_buffer("seen", torch.ones(ROWS, STEPS, WIDTH))
        self.state = torch.zeros(ROWS, STEPS, WIDTH)
        kinds = [DROPS, *chance.choices((DROPS, WRITES, OTHERS), (2, 5, 3), k=chance.randint(3, 9))]
        self.steps = [(chance.choice(kind), chance.random(), chance.random()) for kind in kinds]
        self.ending = chance.randrange(4)
        self.requires_grad_(False)  # autograd forbids to write into some views

    def forward(self, x: Tensor) -> Any:
        pool = [x, self.linear(x)]
        for act, near, far in self.steps:  # most often of the newest
            first, second = pool[-1 - int(near**2 * len(pool))], pool[int(far * len(pool))]
            made = act(self, first, second)
            if made is not None:
                pool.extend(made if isinstance(made, tuple) else (made,))
        last = pool[-1]
        if self.ending == 0:
            return last
        if self.ending == 1:
            return {"last": last, "some": (pool[len(pool) // 2], last[:1])}
        if self.ending == 2:
            return [last.transpose(0, 1), last, x]
        return sum(value.double() for value in pool)


def sampled(model: Program, strategy: Any, draws: int) -> list[Tensor] | str:
    """The draws; or why there are none."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, STEPS, WIDTH)
    with unchanged(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", dropkit.errors.DropkitWarning)
        try:
            found = dropkit.sample(model, x, draws=draws, key=KEY, strategy=strategy).samples
        except (SettingError, SamplingError) as error:
            return str(error)
    return [leaf for leaf in trees.tree_leaves(found) if isinstance(leaf, Tensor)]


def alike(first: list[Tensor], second: list[Tensor]) -> None:
    """As far as both go: of values as large as 1, float32 gives 4 digits after many steps."""
    for a, b in zip(first, second, strict=True):
        count = min(len(a), len(b))
        size = max(1.0, float(a[:count].abs().max()))
        torch.testing.assert_close(a[:count], b[:count], rtol=0.0, atol=2e-4 * size)


# ---- the laws

SEEDS = range(80)
UNSEEN = "not seen by torch", "otherwise than one by one"
"""What is said of a tape that gave something else than the model: here it has to see all."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_program_gives_the_same_draws_in_any_way(seed: int) -> None:
    """The first and last way are the loop: what is learned in between is of no matter."""
    model = Program(seed).eval()
    oracle = sampled(model, "loop", 12)
    if isinstance(oracle, str):
        assert oracle.startswith(("expected a model that drops", "expected outputs that vary"))
        return
    for strategy, draws in (("prefix", 5), ("fold", 3), ("auto", 12), ("fold", 12), ("loop", 5)):
        found = sampled(model, strategy, draws)
        if isinstance(found, str):  # "vary": a few draws may be the same by chance
            assert found.startswith(("strategy: expected", "expected outputs that vary")), found
            assert not any(reason in found for reason in UNSEEN), found
            assert strategy != "auto" or not found.startswith("strategy"), found
            continue
        alike(oracle, found)


def test_most_random_programs_can_be_noted() -> None:
    """A tape that gave up at once would be right in all of the above."""
    ways = {
        strategy: sum(not isinstance(sampled(Program(seed).eval(), strategy, 3), str)
                      for seed in SEEDS[:20])
        for strategy in ("loop", "prefix", "fold")
    }  # fmt: skip
    assert ways["prefix"] >= 0.6 * ways["loop"] and ways["fold"] >= 0.4 * ways["loop"], ways


def test_many_draws_that_do_not_vary_are_refused() -> None:
    model = Program(0).eval()
    model.steps, model.ending = [(of_which_nothing_is_used, 0.0, 0.0)], 0
    found = sampled(model, "auto", 2000)
    assert isinstance(found, str) and found.startswith("expected outputs that vary")


def bound(draws: int) -> float:
    """By Hoeffding the share of half of the draws is further off than this once in 10^9."""
    return math.sqrt(math.log(2e9) / (2 * draws))


@pytest.mark.parametrize("seed", SEEDS[::8])
def test_a_random_program_draws_as_in_training(seed: int) -> None:
    """Of each output the share above what is the median of both, and that of far ones from it.

    With 22 programs of at most 100 numbers each a false alarm comes once in 200,000 runs; keys and
    seeds are fixed. Mutant: a site that does not act.
    """
    draws_as_in_training(Program(seed).eval(), 300)


@pytest.mark.parametrize("act", DROPS[:-1], ids=lambda act: act.__name__)
def test_each_dropout_draws_as_in_training(act: Act) -> None:
    """Twice in a row. Mutants: a site that does not act; one that has the same mask each time."""
    model = Program(0).eval()
    model.steps, model.ending = 2 * [(act, 0.0, 0.0)], 1
    draws_as_in_training(model, 1000)


def draws_as_in_training(model: Program, draws: int) -> None:
    found = sampled(model, "loop", draws)
    plain_draws = trained(model, draws)
    if isinstance(found, str):  # then nothing of it may vary in training
        assert all(torch.equal(x, x[:1].expand_as(x)) for x in plain_draws), found
        return
    for ours, plain in zip(found, plain_draws, strict=True):
        both = torch.cat([ours, plain]).flatten(1).double()
        far = (both - both.median(0).values).abs()
        for shares in (above_median(both), above_median(far)):
            assert float((shares[:draws].mean(0) - shares.mean(0)).abs().max()) < bound(draws)


def above_median(values: Tensor) -> Tensor:
    """Above by more than rounding: masks are few, and so are the values."""
    scale = values.abs().amax(0).clamp(min=1.0)
    return (values > values.median(0).values + 1e-4 * scale).double()


def trained(model: Program, draws: int) -> list[Tensor]:
    """Draws by hand: all but the batch norm is in training mode, and torch draws the masks."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, STEPS, WIDTH)
    for part in model.modules():
        part.training = not isinstance(part, nn.BatchNorm1d)
    seen, state, passes = model.seen.clone(), model.state, []
    with torch.no_grad():
        for _ in range(draws):
            leaves = trees.tree_leaves(model(x.clone()))
            passes.append([leaf.clone() for leaf in leaves])
            model.seen.copy_(seen)
            model.state = state
    return [torch.stack(leaves) for leaves in zip(*passes, strict=True)]


# ---- one by one: what random programs were found to need


@pytest.mark.parametrize("act", [*WRITES, *OTHERS], ids=lambda act: act.__name__)
def test_each_step_between_two_dropouts(act: Act) -> None:
    """So that none of them hangs on the luck of a seed."""
    model = Program(0).eval()
    model.steps, model.ending = [(by_module, 0.0, 0.0), (act, 0.0, 0.9), (by_function, 0.0, 0.9)], 3
    oracle = sampled(model, "loop", 9)
    assert isinstance(oracle, list), oracle
    for strategy in ("prefix", "fold", "auto"):
        found = sampled(model, strategy, 9)
        if isinstance(found, list):
            alike(oracle, found)
        else:
            assert strategy != "auto" and found.startswith("strategy: expected"), found
            assert not any(reason in found for reason in UNSEEN), found


def test_a_tape_that_forgets_what_was_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle can tell: without its steps that write, a tape is not taken for the model."""
    model = Program(0).eval()
    model.steps = [(by_module, 0.0, 0.0), (writes_a_column, 0.0, 0.9)]
    monkeypatch.setattr(Recorder, "_write", _unnoted)
    found = sampled(model, "prefix", 9)
    assert isinstance(found, str) and UNSEEN[0] in found, found


def _unnoted(self: Any, func: Any, args: Any, kwargs: Any, hot: bool) -> Any:
    return func(*args, **kwargs)
