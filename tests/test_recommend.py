"""Recommended rates are those of the table, each with its rule and its threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import dropkit
from dropkit.errors import SettingError
from dropkit.inspection.ranges import FEW, MASSIVE, SMALL
from dropkit.planning import policy
from dropkit.planning.advice import Recommendation
from dropkit.planning.policy import Group
from dropkit.planning.recommending import recommend

ROWS, MAPS, WORDS = torch.ones(6, 4), torch.ones(2, 3, 8, 8), torch.ones(3, 5, dtype=torch.long)


def mlp(*, first: float = 0.1, second: bool = True) -> nn.Module:
    drop = [nn.Dropout(0.2)] if second else []
    return nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Dropout(first), nn.Linear(32, 32), nn.ReLU(), *drop,
        nn.Linear(32, 3),
    )  # fmt: skip


class Encoder(nn.Module):
    """Embeddings, blocks that attend, a head."""

    def __init__(self, rate: float = 0.1, layers: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, rate, batch_first=True)
        self.embed, self.drop = nn.Embedding(20, 16), nn.Dropout(rate)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.drop_head, self.head = nn.Dropout(rate), nn.Linear(16, 2)

    def forward(self, words: Tensor) -> Tensor:
        states = self.blocks(self.drop(self.embed(words)))
        y: Tensor = self.head(self.drop_head(states[:, 0]))
        return y


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 16, 2, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(self.embed(words))[0])
        return y


class Deep(nn.Module):
    """Residual branches that are dropped as a whole; nothing stands in the first."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(3)
        )
        self.paths = nn.ModuleList([nn.Identity(), *(dropkit.nn.DropPath(0.2) for _ in range(2))])
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for branch, path in zip(self.branches, self.paths, strict=True):
            x = x + path(branch(x))
        y: Tensor = self.head(x)
        return y


def convolutions(*, norm: bool, rate: float = 0.5) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(),
        nn.Dropout2d(rate), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


# ---- each row of the table


@pytest.mark.parametrize(
    ("rows", "rate", "says"),
    [
        (None, 0.5, "start at 0.5"),
        (1, 0.5, "up to 10,000 rows are few"),
        (SMALL, 0.5, "up to 10,000 rows are few"),
        (SMALL + 1, 0.5, "10,000 to 1,000,000 rows: between"),
        (100_000, 0.4, "10,000 to 1,000,000 rows: between"),
        (policy.LARGE, 0.3, "from 1,000,000 rows on the low end"),
        (MASSIVE, 0.0, "trained on 1,000,000,000 rows or tokens and more"),
    ],
)
def test_more_rows_want_less_dropout(rows: int | None, rate: float, says: str) -> None:
    advice = recommend(mlp(), ROWS, rows=rows)["2.p"]
    assert (advice.rate, advice.now, advice.role) == (rate, 0.1, "hidden")
    assert says in advice.reason
    assert (advice.low, advice.high) == ((0.3, 0.5) if rate else (0.0, 0.1))


def test_rates_never_rise_with_rows() -> None:
    rates = [recommend(mlp(), ROWS, rows=10**power)["2.p"].rate for power in range(1, 10)]
    assert rates == sorted(rates, reverse=True)


def test_tokens_are_massive_as_rows_are_but_not_in_fine_tuning() -> None:
    assert set(recommend(Encoder(), WORDS, tokens=MASSIVE).rates.values()) == {0.0}
    assert set(recommend(Encoder(), WORDS, tokens=MASSIVE - 1).rates.values()) != {0.0}
    tuned = recommend(Encoder(), WORDS, tokens=MASSIVE, pretrained=True, rows=1000)
    assert tuned["drop_head.p"].rate == 0.2


def test_a_transformer_is_fine_tuned_with_its_lower_layers_off() -> None:
    """Catches a depth that is counted by sites, and a head that is taken for a layer."""
    said = recommend(Encoder(layers=4), WORDS, pretrained=True, rows=FEW)
    rates = {advice.name: advice.rate for advice in said}
    assert rates["drop.p"] == 0.0
    assert {rates[f"blocks.layers.{block}.dropout1.p"] for block in (0, 1)} == {0.0}
    assert {rates[f"blocks.layers.{block}.dropout1.p"] for block in (2, 3)} == {0.05}
    assert rates["drop_head.p"] == 0.2
    assert '"disable dropout on lower layers"' in said["drop.p"].reason
    assert "up to 100,000 rows" in said["drop_head.p"].reason
    more = recommend(Encoder(), WORDS, pretrained=True, rows=FEW + 1)
    assert more["blocks.layers.0.dropout1.p"].rate >= 0.05


def test_rows_that_were_not_said_are_taken_for_few_and_that_is_said() -> None:
    said = recommend(Encoder(), WORDS, pretrained=True)
    assert said["drop.p"].rate == 0.0
    assert "How many rows was not said" in str(said)
    assert "How many rows" not in str(recommend(Encoder(), WORDS, pretrained=True, rows=10))


def test_transformers_drop_less_than_other_networks() -> None:
    rates = recommend(Encoder(), WORDS, rows=1000)
    assert rates["blocks.layers.0.dropout.p"].rate == 0.15
    assert rates["drop.p"].rate == 0.15
    assert rates["drop_head.p"].rate == 0.5


def test_maps_drop_less_beside_a_batch_norm() -> None:
    assert recommend(convolutions(norm=True), MAPS)["3.p"].rate == 0.1
    assert recommend(convolutions(norm=True), MAPS, rows=100)["3.p"].rate == 0.2
    assert recommend(convolutions(norm=False), MAPS, rows=100)["3.p"].rate == 0.25
    assert "batch norm adds noise" in recommend(convolutions(norm=True), MAPS)["3.p"].reason


def test_nothing_is_dropped_on_the_output() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Dropout(0.5))
    advice = recommend(model, ROWS, rows=10)["3.p"]
    assert (advice.rate, advice.high, advice.role) == (0.0, 0.0, "output")


def test_stochastic_depth_is_a_ramp_that_rows_do_not_move() -> None:
    for rows in (None, 100, 10**6):
        said = recommend(Deep(), ROWS, rows=rows)
        assert [a.rate for a in said if a.role == "path"] == [0.05, 0.1]
        assert [a.high for a in said if a.role == "path"] == [0.25, 0.5]
    assert said.inserts == {}  # its branches are dropped as a whole


def test_what_was_seen_of_training_goes_before_rows() -> None:
    under = recommend(mlp(first=0.4, second=False), ROWS, rows=100, fit="underfits")
    assert under["2.p"].rate == 0.2
    assert under.inserts == {}
    over = recommend(mlp(first=0.6), ROWS, rows=10**7, fit="overfits")
    assert (over["2.p"].rate, over["5.p"].rate) == (0.6, 0.5)


# ---- what is put in


def test_places_without_dropout_are_named_with_their_kind() -> None:
    said = recommend(mlp(second=False), ROWS, rows=100)
    assert said.rates == {"2.p": 0.5}
    assert said.inserts == {"5": 0.5}
    assert (said["5"].insert, said["5"].now, said["5"].how) == (True, None, "elements")
    assert recommend(mlp(), ROWS).inserts == {}


def test_sequences_are_dropped_with_one_mask() -> None:
    said = recommend(Recurrent(), WORDS, rows=100)
    assert said.rates == {"lstm.dropout": 0.5}
    assert "torch draws anew at each step" in said["lstm.dropout"].reason
    assert {a.name: a.how for a in said if a.insert} == {"lstm": "locked", "head": "locked"}


def test_transformers_that_drop_elsewhere_are_not_dropped_once_more() -> None:
    assert recommend(Encoder(), WORDS, rows=100).inserts == {}
    assert recommend(Encoder(0.0), WORDS, rows=100).inserts == {}


def test_massive_data_and_batch_norms_leave_nothing_to_put_in() -> None:
    assert recommend(mlp(second=False), ROWS, rows=MASSIVE).inserts == {}
    assert "3" not in recommend(convolutions(norm=True), MAPS, rows=10).inserts


# ---- how it is used


def test_a_plan_takes_the_rates_and_a_proof_holds() -> None:
    for model, x in ((mlp(), ROWS), (Encoder(), WORDS), (Recurrent(), WORDS), (Deep(), ROWS)):
        plan = dropkit.rates(model, x)
        said = recommend(model, x, rows=1000)
        plan.update(said.rates)
        proven = plan.apply().proof
        assert proven is not None
        assert proven.holds
        assert set(plan.rates.values()) <= set(said.rates.values())


def test_plans_and_maps_are_taken_for_models() -> None:
    model = mlp()
    direct = recommend(model, ROWS, rows=1000)
    assert recommend(dropkit.rates(model, ROWS), rows=1000).rates == direct.rates
    found = dropkit.sites(model, ROWS)
    assert recommend(found, rows=1000).rates == direct.rates
    assert recommend(list(found), rows=1000).rates == direct.rates


def test_a_model_on_the_meta_device_is_judged_alike() -> None:
    with torch.device("meta"):
        model, words = Encoder(), torch.ones(3, 5, dtype=torch.long)
    assert recommend(model, words, rows=1000).rates == recommend(Encoder(), WORDS, rows=1000).rates


def test_one_number_for_two_roles_gets_the_lower_rate() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.embed = nn.Dropout(0.1), nn.EmbeddingBag(20, 16)
            self.hidden, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, words: Tensor) -> Tensor:
            x = self.drop(self.embed(words))
            y: Tensor = self.head(self.drop(self.hidden(x).relu()))
            return y

    said = recommend(Shared(), WORDS, rows=100)
    assert said.rates == {"drop.p": 0.3}
    plan = dropkit.rates(Shared(), WORDS)
    plan.update(said.rates)
    plan.apply()


def test_a_rate_that_nothing_moves_is_advised_and_not_asked_for() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(4, 32), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.hidden(x).relu()
            if self.training:
                x = x * torch.bernoulli(torch.full_like(x, 0.75)) / 0.75
            y: Tensor = self.head(x)
            return y

    said = recommend(Masked(), ROWS, rows=100)
    assert [(a.now, a.rate, a.fixed) for a in said] == [(0.25, 0.5, True)]
    assert said.rates == {}
    assert "Nothing moves the rate of" in str(said)


def test_the_model_is_untouched() -> None:
    model = mlp(second=False)
    torch.manual_seed(2)
    expected = torch.rand(2)
    torch.manual_seed(2)
    recommend(model, ROWS, rows=10)
    assert torch.equal(torch.rand(2), expected)
    assert model[2].p == 0.1  # type: ignore[index]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_table_says_each_reason_once() -> None:
    said = recommend(Encoder(), WORDS, rows=1000, task="classification")
    text = str(said)
    assert text.splitlines()[0] == "Encoder: 1,000 rows, classification"
    assert "blocks.layers.[0-3].dropout1.p" in text
    assert text.count("large models over-regularize easily") == 1
    assert "dropkit.guard" in text
    assert "nothing said of its data" in str(recommend(mlp(), ROWS))


# ---- the policy


def test_every_group_has_a_row_within_its_own_range() -> None:
    assert set(policy.USUAL) == set(get_args(Group)) - {"output"}
    for usual in policy.USUAL.values():
        assert usual.range.low <= usual.start <= usual.range.high
        assert usual.reason
        assert usual.source
    for row in (policy.OUTPUT, policy.PRETRAINING, policy.LOWER, policy.UPPER, policy.TUNED_HEAD):
        assert row.low <= row.rate <= row.high
        assert policy.GUIDE in row.source


def bad(**told: Any) -> Callable[[], Recommendation]:
    return lambda: recommend(mlp(), ROWS, **told)


BAD: dict[str, tuple[Callable[[], Recommendation], str]] = {
    "rows": (bad(rows=0), "rows: expected a whole number above 0; got 0"),
    "half": (bad(rows=2.5), "rows: .*got 2.5"),
    "tokens": (bad(tokens=-1), "tokens: expected"),
    "task": (bad(task="vision"), "task: expected classification or regression or language"),
    "fit": (bad(fit="under"), "fit: expected underfits or overfits; got 'under'"),
    "pretrained": (bad(pretrained="yes"), "pretrained: expected True or False"),
    "no model": (lambda: recommend(3), "expected a module with its inputs, a plan"),  # type: ignore[arg-type]
    "no inputs": (lambda: recommend(mlp()), "expected inputs"),
    "no such name": (lambda: recommend(mlp(), ROWS)["9"], "expected a name.*'2.p'"),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        call()


class Guarded(nn.Module):
    """A dropout, or none, as a number of the model has it."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(16, 64), nn.Dropout(0.3), nn.Linear(64, 4)
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(self.drop(x) if self.number == 1 else x)


@pytest.mark.parametrize("number", [1.0, 0.5])
def test_no_dropout_is_advised_where_one_is(number: float) -> None:
    """Mutant: places are looked for while all numbers are a little moved."""
    model, x = Guarded(number), torch.randn(8, 16)
    said = dropkit.recommend(model, x, rows=1000)
    assert bool(said.inserts) == (number != 1)
    if said.inserts:
        dropkit.insert(model, said, x)
