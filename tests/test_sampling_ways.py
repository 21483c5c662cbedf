"""How a model is sampled: how many draws, in how much memory; and what cannot be, and is said."""

from __future__ import annotations

import copy
import io
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit import DropkitWarning, SamplingError, SettingError
from dropkit.posterior.replay import Replay
from sampled_models import MODELS, DropPath, Functional, made, two, unchanged

KEY = 3


# ---- how many draws, and what is kept of them


def test_moments_are_those_of_the_samples() -> None:
    model, inputs = made("module")
    whole = dropkit.sample(model, *inputs, draws=60, key=KEY)
    moments = dropkit.sample(model, *inputs, draws=60, key=KEY, keep="moments")
    torch.testing.assert_close(moments.mean, whole.mean)
    torch.testing.assert_close(moments.std, whole.std)
    with pytest.raises(SettingError, match="keep"):
        _ = moments.samples


def test_draws_are_made_until_the_mean_is_certain() -> None:
    model, inputs = made("module")
    draws = dropkit.sample(model, *inputs, draws="auto", tolerance=0.02, key=KEY)
    assert float(draws.error("mean").max()) <= 0.02
    needed = float(draws.var.max()) / 0.02**2
    assert 20 <= draws.count < 2 * needed + 20
    with pytest.warns(DropkitWarning, match=r"still .* after 30 draws; for 1e-09 it would take"):
        capped = dropkit.sample(model, *inputs, draws="auto", tolerance=1e-9, most=30, key=KEY)
    assert capped.count == 30


@pytest.mark.parametrize("draws_at_once", [1, 3])
def test_memory_bounds_how_many_draws_are_done_at_once(
    draws_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = made("module")
    peaks, counts = [], []
    many = Replay.many

    def watched(self: Replay, first: int, count: int) -> Any:
        peaks.append(self.peak())
        counts.append(count)
        return many(self, first, count)

    monkeypatch.setattr(Replay, "many", watched)
    whole = dropkit.sample(model, *inputs, draws=20, key=KEY, strategy="fold").samples
    room = draws_at_once * peaks[0]
    counts.clear()
    parts = dropkit.sample(model, *inputs, draws=20, key=KEY, strategy="fold", memory=room).samples
    assert max(counts) == draws_at_once
    torch.testing.assert_close(parts, whole)


def test_where_memory_ends_fewer_draws_are_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = made("module")
    whole = dropkit.sample(model, *inputs, draws=20, key=KEY, strategy="fold").samples
    many = Replay.many

    def small(self: Replay, first: int, count: int) -> Any:
        if count > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return many(self, first, count)

    monkeypatch.setattr(Replay, "many", small)
    parts = dropkit.sample(model, *inputs, draws=20, key=KEY, strategy="fold").samples
    torch.testing.assert_close(parts, whole)


# ---- what changes between two calls


def test_nothing_is_stale() -> None:
    """Weights that were trained on, a rate that was set, a layer put in, other inputs."""
    model, x = two(), torch.randn(4, 8)
    dropkit.sample(model, x, draws=3, key=KEY)
    with torch.no_grad():
        model[1].weight.mul_(2)
    fresh = copy.deepcopy(model)
    torch.testing.assert_close(
        dropkit.sample(model, x, draws=3, key=KEY).samples,
        dropkit.sample(fresh, x, draws=3, key=KEY).samples,
    )
    model[3].p = 0.9
    assert [site.rate for site in dropkit.sample(model, x, draws=3).sites] == [0.2, 0.9]
    model[3] = nn.Identity()
    assert [site.rate for site in dropkit.sample(model, x, draws=3).sites] == [0.2]
    assert dropkit.sample(model, torch.randn(9, 8), draws=3).samples.shape == (3, 9, 3)


def test_another_call_has_sites_of_its_own() -> None:
    """Mutant: sites that are looked for at the first call alone."""

    class Deep(nn.Module):
        rate = 0.1

        def forward(self, x: Tensor, deep: bool = False) -> Tensor:
            x = F.dropout(x, self.rate, self.training)
            return F.dropout(x, 0.9, self.training) if deep else x

        def embed(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.4, self.training)

    model, x = Deep().eval(), torch.ones(20, 20)
    rates = [
        [s.rate for s in dropkit.sample(model, x, draws=2, deep=deep).sites] for deep in (0, 1)
    ]
    assert rates == [[0.1], [0.1, 0.9]]
    assert [s.rate for s in dropkit.sample(model, x, draws=2, method="embed").sites] == [0.4]
    model.rate = 0.5
    share = float((dropkit.sample(model, x, draws=50, key=KEY).samples == 0).double().mean())
    assert abs(share - 0.5) < 5 * 0.5 / 20000**0.5


def test_a_dropout_that_only_some_draws_come_to_acts_there() -> None:
    class Sometimes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(x, 0.5, self.training)
            if not self.training and float(x[0]) == 0:
                x = F.dropout(x, 0.9, self.training)
            return x

    draws = dropkit.sample(Sometimes().eval(), torch.ones(400), draws=30, key=KEY)
    shares = (draws.samples == 0).double().mean(1)
    twice = draws.samples[:, 0] == 0
    assert bool((shares[twice] > 0.9).all()) and bool((shares[~twice] < 0.6).all())


class _Remembers(nn.Module):
    """Changes as it predicts: a buffer, an attribute, and what it gives is a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("out", torch.zeros(40))
        self.past: Tensor | float = 0.0
        self.log: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.log.append(1)
        self.past = self.past + self.drop(x)
        self.out.copy_(self.past + self.count)
        return self.out


def test_each_draw_begins_where_the_model_was() -> None:
    """Mutants: a walk over draws; a live buffer for a constant; a view of what is overwritten."""
    x = torch.ones(40)
    for strategy in ("loop", "prefix", "fold", "auto"):
        model = _Remembers().eval()
        for _ in range(2):
            with unchanged(model):
                samples = dropkit.sample(model, x, draws=9, key=KEY, strategy=strategy).samples
            assert model.log == [] and model.past == 0.0
            assert set(samples.unique().tolist()) == {1.0, 3.0}


# ---- what cannot be noted on a tape


class _Reads(nn.Module):
    """Looks at drawn values: by NumPy, or to decide."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.drop, self.by = nn.Dropout(0.5), by

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        if self.by == "numpy":
            return torch.from_numpy(x.numpy() * 2)
        if self.by == "decision":
            return x if float(x.sum()) > 64 else -x
        return x + torch.nonzero(x).shape[0]


@pytest.mark.parametrize("by", ["numpy", "decision", "shape"])
def test_where_python_looks_at_a_draw_the_model_runs_each_time(by: str) -> None:
    model, x = _Reads(by).eval(), torch.ones(8, 8)
    samples = dropkit.sample(model, x, draws=12, key=KEY).samples
    loop = dropkit.sample(model, x, draws=12, key=KEY, strategy="loop").samples
    assert torch.equal(samples, loop) and bool((samples.std(0) > 0).any())
    with pytest.raises(SettingError, match="Try strategy='loop' or 'auto'"):
        dropkit.sample(model, x, draws=12, strategy="fold")


def test_a_value_that_leaves_torch_unseen_is_found_out() -> None:
    """Through memory that NumPy shares: no call of torch tells; another draw does."""

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.shared = np.zeros((8, 8), dtype=np.float32)

        def forward(self, x: Tensor) -> Tensor:
            torch.from_numpy(self.shared).copy_(self.drop(x))
            return torch.tensor(self.shared * 2)

    model, x = Hidden().eval(), torch.ones(8, 8)
    samples = dropkit.sample(model, x, draws=6, key=KEY).samples
    assert torch.equal(samples, dropkit.sample(model, x, draws=6, key=KEY, strategy="loop").samples)
    assert not torch.equal(samples[0], samples[1])


# ---- bad input, and what has to be said


def test_no_site_is_an_error_that_says_what_was_looked_at() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.0)).eval()
    with pytest.raises(SamplingError, match=r"all 1 of Sequential are at 0 \(1 \(dropout\)\)"):
        dropkit.sample(model, torch.ones(2, 8))
    with pytest.raises(SamplingError, match=r"no dropout at all\. Try insert="):
        dropkit.sample(nn.Linear(8, 8), torch.ones(2, 8))


def test_outputs_that_do_not_vary_are_an_error() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            self.drop(x)
            return x * 2

    with pytest.raises(
        SamplingError, match=r"the same in all draws, to the last bit.*drop .Dropout"
    ):
        dropkit.sample(Unused().eval(), torch.ones(2, 8))


def test_nan_is_traced_to_its_draw_and_site() -> None:
    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Dropout(0.1), nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x / x)

    with pytest.raises(SamplingError, match=r"draw 0 gave NaN\. It comes into last"):
        dropkit.sample(Divides().eval(), torch.ones(20, 20))


def test_a_model_that_is_random_by_itself_is_said_to_be() -> None:
    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(x) + torch.randn_like(x)

    with pytest.warns(DropkitWarning, match="random in evaluation mode by itself"):
        draws = dropkit.sample(Variational().eval(), torch.ones(50, 50), draws=20, key=KEY)
    assert float(draws.var.mean()) == pytest.approx(1.0 + 1.0, abs=0.1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"draws": 1}, "draws: expected 2 or more"),
        ({"draws": True}, "draws: expected 2 or more"),
        ({"draws": "auto"}, "tolerance: expected"),
        ({"strategy": "fast"}, "strategy: expected auto, loop, prefix or fold"),
        ({"keep": "all"}, "keep: expected samples or moments"),
        ({"sites": "attention"}, "got 'attention', which fits none. Try"),
        ({"rates": {"hiden": 0.1}}, "got 'hiden', which fits none. Try 'hidden'"),
        ({"rates": 1.5}, "rates: expected rates from 0 to 1"),
        ({"rates": True}, "rates: expected rates from 0 to 1; got True"),
        ({"rates": 0.1, "insert": 0.1}, "rates: expected none beside insert"),
        ({"mask_scope": "rows"}, "mask_scope: expected element, batch or fixed"),
        ({"sites": 5}, "sites: expected roles, paths, or a function of a site; got 5"),
        ({"batch_axis": "a"}, "batch_axis: expected a whole number"),
        ({"batch_axis": 1, "mask_scope": "batch"}, "got 1, where it takes 8 and not 16: Runtime"),
        ({"batch_axis": 5, "mask_scope": "batch"}, r"with rows in it; got 5, of \(2, 8\)"),
        ({"class_axis": "a"}, "class_axis: expected a whole number; got 'a'"),
        ({"outputs": "classes"}, "outputs: expected one of values, logits, probabilities"),
        ({"tolerance": 0.1}, "tolerance: expected none with draws=50"),
        ({"keywords": [1]}, "keywords: expected a mapping"),
        ({"memory": "1GB"}, "memory: expected bytes, a whole number"),
        ({"insert": 1.5}, "insert: expected rates from 0 to 1"),
        ({"insert": 1.0}, "insert: expected rates between 0 and 1"),
        ({"memory": 3}, r"memory: expected room for one draw, \d+ bytes; got 3"),
        ({"method": "generate"}, "method: expected one of Sequential's"),
        ({"key": 1 << 70}, "key: expected an integer of 64 bits"),
    ],
)
def test_a_bad_option_is_an_error(options: dict[str, Any], said: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    with unchanged(model), pytest.raises(SettingError, match=said):
        dropkit.sample(model, torch.ones(2, 8), **{"key": KEY, **options})


def test_inputs_that_do_not_fit_are_an_error_and_leave_the_model_alone() -> None:
    model, inputs = made("module")
    dropkit.sample(model, *inputs, draws=2)
    with (
        unchanged(model),
        pytest.raises(SamplingError, match=r"its inputs \(\(2, 5, 3\)\); draw 0"),
    ):
        dropkit.sample(model, torch.ones(2, 5, 3), key=KEY)


def _failing(error: type[BaseException]) -> nn.Module:
    calls = iter(range(6))  # where no look at the model puts it back

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            if next(calls, None) is None:
                raise error("now")
            return self.drop(x) if float(self.drop(x).sum()) > -1 else x

    return Fails().eval()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_model_that_stops_halfway_is_given_back(error: type[BaseException]) -> None:
    model = _failing(error)
    with unchanged(model), pytest.raises((SamplingError, KeyboardInterrupt), match="now"):
        dropkit.sample(model, torch.ones(4, 8), draws=9, key=KEY)


# ---- others


def test_a_guard_lets_sampling_pass_and_nothing_else() -> None:
    model, inputs = made("ours")
    with dropkit.guard(model), torch.no_grad():
        assert dropkit.sample(model, *inputs, draws=3, strategy="loop").count == 3
        model.train()
        with pytest.raises(dropkit.DropoutInInferenceError):
            model(*inputs)


def test_trees_of_outputs() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor, *, scale: float) -> dict[str, Any]:
            y = self.drop(x) * scale
            return {"mean": y, "more": (y.sum(), "name"), "fixed": x}

    draws = dropkit.sample(Heads().eval(), torch.ones(2, 3), draws=8, key=KEY, scale=3.0)
    assert draws.samples["mean"].shape == (8, 2, 3) and draws.samples["more"][1] == "name"
    assert draws["more"][0].samples.shape == (8,)
    assert float(draws["fixed"].std.max()) == 0


def test_under_compile_autocast_and_inference_mode() -> None:
    model, inputs = made("module")
    plain = dropkit.sample(model, *inputs, draws=4, key=KEY).samples
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(dropkit.sample(compiled, *inputs, draws=4, key=KEY).samples, plain)
    with torch.inference_mode():
        torch.testing.assert_close(dropkit.sample(model, *inputs, draws=4, key=KEY).samples, plain)
    with torch.autocast("cpu", torch.bfloat16):
        half = dropkit.sample(model, *inputs, draws=4, key=KEY)
        loop = dropkit.sample(model, *inputs, draws=4, key=KEY, strategy="loop")
    assert half.samples.dtype == torch.bfloat16
    torch.testing.assert_close(half.samples, loop.samples, atol=0.02, rtol=0.0)  # of values near 1


def test_an_accelerated_model_is_sampled_alike() -> None:
    model, inputs = made("encoder")
    plain = dropkit.sample(model, *inputs, draws=4, key=KEY).samples
    dropkit.accelerate(model)
    torch.testing.assert_close(dropkit.sample(model, *inputs, draws=4, key=KEY).samples, plain)


# ---- a program for a service


@pytest.mark.parametrize("kind", MODELS)
def test_a_program_gives_the_first_draw_of_its_key(kind: str) -> None:
    model, inputs = made(kind)
    with unchanged(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch.export has to say of its own state
        program = dropkit.sampling_program(model, *inputs).module()
    for key in (7, 8):
        draw = dropkit.sample(model, *inputs, draws=20, key=key).samples[0]
        torch.testing.assert_close(program(torch.tensor(key), *inputs), draw)


def test_a_program_is_saved_and_takes_other_batches() -> None:
    model, (x,) = made("module")
    shapes = ({0: torch.export.Dim("rows", min=2)},)
    program, file = dropkit.sampling_program(model, x, dynamic_shapes=shapes), io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    other = torch.randn(9, 5, 8)
    draw = dropkit.sample(model, other, draws=2, key=7).samples[0]
    torch.testing.assert_close(torch.export.load(file).module()(torch.tensor(7), other), draw)


# ---- the rate as a knob


def test_a_rate_is_moved_where_the_truth_tells_and_not_where_it_does_not() -> None:
    model, (x,) = made("functional")
    rows = x.reshape(-1, 8).repeat(10, 1)
    exact = model(rows).detach()  # as if there were no dropout
    lower = dropkit.retune(model, rows, targets=exact, draws=20, key=KEY)
    assert lower.best.factor == 0.25 and lower.best.gain > 2 * lower.best.error
    draws = dropkit.sample(model, rows, draws=2, key=9).samples  # as the model's own rates have it
    own = dropkit.retune(model, rows, targets=draws[0], draws=50, key=KEY)
    assert own.best.factor == 1.0 and own.rates == {"*": 0.3}
    assert "<- chosen" in str(own)


def test_modes_of_the_user_stay() -> None:
    """A model in training mode is sampled as in evaluation mode, and is in training mode after."""
    model, x = nn.Sequential(Functional(), nn.BatchNorm1d(3)), torch.randn(4, 8)
    with unchanged(model):
        trained = dropkit.sample(model, x, draws=4, key=KEY).samples
    torch.testing.assert_close(dropkit.sample(model.eval(), x, draws=4, key=KEY).samples, trained)


def test_a_way_that_the_values_decide_is_looked_at_when_it_is_gone() -> None:
    """Mutant: sites of the first inputs alone."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.extra = nn.Dropout(0.1), DropPath(0.5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.extra(y) if float(x.sum()) < 0 else y

    model, x = Branches().eval(), torch.ones(40, 8)
    for _ in range(2):
        draws = dropkit.sample(model, x, draws=20, key=KEY)
        assert [site.site.path for site in draws.sites] == ["first"]
        other = dropkit.sample(model, -x, draws=20, key=KEY)
        assert [site.acted for site in other.sites] == [True, True]
    fresh = dropkit.sample(Branches().eval(), -x, draws=20, key=KEY)
    torch.testing.assert_close(other.samples, fresh.samples)


def test_threads_sample_side_by_side() -> None:
    """Mutant: who ends takes the hooks of the others with it."""
    model, (x,) = made("encoder")
    other = copy.deepcopy(model)
    wanted = dropkit.sample(model, x, draws=12, key=KEY, strategy="loop").samples
    wrong = []

    def run(mine: nn.Module) -> None:
        for _ in range(8):
            got = dropkit.sample(mine, x, draws=12, key=KEY, strategy="loop").samples
            wrong.append(not torch.allclose(got, wanted))

    threads = [threading.Thread(target=run, args=(one,)) for one in (model, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 16
