"""Monte Carlo dropout: that each site acts, by its law, and that nothing else does or stays."""

from __future__ import annotations

import copy
import io
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
from dropkit import DropkitWarning, SamplingError, SettingError
from dropkit.posterior.replay import Replay
from sampled_models import MODELS, DropPath, Functional, Residual, made

KEY = 3


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """The model and all generators are afterwards what they were, bit by bit."""
    tensors = {name: (x, x.detach().clone(), x._version) for name, x in _tensors(model)}
    modes = [part.training for part in model.modules()]
    own = [dict(vars(part)) for part in model.modules()]
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    try:
        yield
    finally:
        for name, x in _tensors(model):
            same, content, version = tensors[name]
            assert x is same and torch.equal(x, content) and x._version == version, name
            assert x.grad is None
        assert modes == [part.training for part in model.modules()]
        for part, before in zip(model.modules(), own, strict=True):
            assert vars(part).keys() == before.keys()
            assert all(vars(part)[name] is before[name] for name in before)
            assert not part._forward_hooks and not part._forward_pre_hooks
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1:] == (random.getstate(), str(np.random.get_state()))


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


# ---- every kind of site


@pytest.mark.parametrize("kind", MODELS)
def test_every_site_acts_and_the_model_stays(kind: str) -> None:
    model, inputs = made(kind)
    with unchanged(model):
        draws = dropkit.sample(model, *inputs, draws=6, key=KEY)
    assert draws.sites and all(site.acted for site in draws.sites)
    assert bool((draws.std > 0).any())
    with unchanged(model):  # what was learned of it the first time leaves no trace either
        again = dropkit.sample(model, *inputs, draws=6, key=KEY)
    torch.testing.assert_close(again.samples, draws.samples)


@pytest.mark.parametrize("kind", MODELS)
def test_all_ways_give_the_same_draws(kind: str) -> None:
    """Mutants: a constant kept by reference, and written into later; a view taken for its base."""
    model, inputs = made(kind)
    loop = dropkit.sample(model, *inputs, draws=7, key=KEY, strategy="loop").samples
    for strategy in ("prefix", "fold", "auto"):
        other = dropkit.sample(model, *inputs, draws=7, key=KEY, strategy=strategy).samples
        torch.testing.assert_close(other, loop)


@pytest.mark.parametrize("kind", MODELS)
def test_a_draw_is_the_same_alone(kind: str) -> None:
    model, inputs = made(kind)
    few = dropkit.sample(model, *inputs, draws=2, key=KEY).samples
    many = dropkit.sample(model, *inputs, draws=30, key=KEY, strategy="fold").samples
    torch.testing.assert_close(few, many[:2])
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize("kind", sorted(MODELS.keys() - {"ours"}))
def test_the_law_is_that_of_training(kind: str) -> None:
    """Mean and variance of the outputs, against the model's own dropout in torch's draws.

    A difference of 5 standard errors in any of the first 60 numbers is an alarm: by chance it comes
    once in 14,000 runs; keys and seeds are fixed.
    """
    model, inputs = made(kind)
    count = 400
    ours = dropkit.sample(model, *inputs, draws=count, key=KEY).samples.flatten(1)[:, :60].double()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        model.train()
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        theirs = torch.stack([model(*inputs).flatten()[:60] for _ in range(count)]).double()
    error = ((ours.var(0) + theirs.var(0)) / count).sqrt()
    assert bool(((ours.mean(0) - theirs.mean(0)).abs() <= 5 * error + 1e-6).all())
    spread = (ours - ours.mean(0)).square(), (theirs - theirs.mean(0)).square()
    error = ((spread[0].var(0) + spread[1].var(0)) / count).sqrt()
    assert bool(((spread[0].mean(0) - spread[1].mean(0)).abs() <= 5 * error + 1e-6).all())


def test_masks_are_exact() -> None:
    """Zeros among n elements of all draws: within 5 deviations of the binomial law."""
    x = torch.ones(100, 100)
    samples = dropkit.sample(nn.Dropout(0.3).eval(), x, draws=50, key=KEY).samples
    zeros, n = int((samples == 0).sum()), samples.numel()
    assert abs(zeros - 0.3 * n) < 5 * (0.21 * n) ** 0.5
    assert set(samples.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    kept = samples.flatten(1).ne(0).double() - 0.7  # no two draws agree more than by chance
    agreement = (kept @ kept.T / 1e4).fill_diagonal_(0).abs().max()
    assert float(agreement) < 5.5 * 0.21 / 100  # 1225 pairs


def test_batch_norm_stays_in_evaluation_mode() -> None:
    """Also where its module has to be opened: functional batch norm beside a stochastic path."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.ones(8))
            self.register_buffer("var", torch.full((8,), 4.0))
            self.drop_prob = 0.5

        def forward(self, x: Tensor) -> Tensor:
            x = F.batch_norm(x, self.mean, self.var, training=self.training)
            return DropPath.forward(self, x)

    model, x = Both().eval(), torch.randn(64, 8)
    with unchanged(model):
        samples = dropkit.sample(model, x, draws=20, key=KEY).samples
    kept = samples[samples != 0]
    torch.testing.assert_close(kept.unique(), (2 * model(x)).unique())


# ---- which sites, at which rates


def _two() -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).eval()


@pytest.mark.parametrize(
    ("choice", "paths"),
    [
        (None, ["0", "3"]), ("3", ["3"]), ("input", ["0"]), (["input", "hidden"], ["0", "3"]),
        (lambda site: site.rate == 0.5, ["3"]), ("*", ["0", "3"]),
    ],
)  # fmt: skip
def test_sites_are_chosen(choice: Any, paths: list[str]) -> None:
    draws = dropkit.sample(_two(), torch.randn(4, 8), draws=2, key=KEY, sites=choice)
    assert [site.site.path for site in draws.sites if site.acted] == paths


def test_what_is_not_chosen_does_not_act_because_its_module_was_opened() -> None:
    class Block(nn.Module):
        drop_prob = 0.3

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.inner(x), 0.5, self.training)
            return DropPath.forward(self, x)  # its mask makes whole rows 0, and no elements

    model, x = Block().eval(), torch.randn(64, 8)
    samples = dropkit.sample(model, x, draws=9, key=KEY, sites=lambda s: s.kind == "path").samples
    zero = samples == 0
    assert bool(zero.any()) and torch.equal(zero.any(-1), zero.all(-1))


def test_rates_are_moved_and_given_back() -> None:
    x = torch.ones(100, 100)
    for model in (nn.Dropout(0.3), DropPath(0.3), dropkit.nn.Dropout(0.3)):
        with unchanged(model.eval()):
            samples = dropkit.sample(model, x, draws=40, key=KEY, rates=0.8).samples
        rows = samples[..., 0] == 0
        assert abs(float(rows.double().mean()) - 0.8) < 5 * 0.4 / rows.numel() ** 0.5
        torch.testing.assert_close(samples.max(), torch.tensor(5.0))


def test_a_rate_that_nobody_holds_is_not_moved_in_silence() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (torch.rand_like(x) > 0.5) * 2 if self.training else x

    with pytest.raises(SettingError, match="no attribute holds its rate"):
        dropkit.sample(Fixed().eval(), torch.ones(40, 40), rates=0.1)


def test_what_acts_by_itself_goes_on_as_it_does() -> None:
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(F.dropout(x, 0.25), 0.5, self.training)

    x = torch.ones(100, 100)
    draws = dropkit.sample(Always().eval(), x, draws=20, key=KEY, sites=lambda s: s.rate == 0.5)
    share = float((draws.samples == 0).double().mean())
    assert abs(share - (1 - 0.75 * 0.5)) < 0.01
    assert [site.rate for site in draws.sites] == [0.5]


# ---- what masks are shared along


@pytest.mark.parametrize("kind", ["module", "functional", "lstm", "encoder_layer", "dropout2d"])
def test_a_network_is_thinned_for_all_rows(kind: str) -> None:
    model, (x,) = made(kind)
    axis = 1 if kind == "lstm" else 0
    same = x.select(axis, 0).unsqueeze(axis).expand_as(x).contiguous()
    options: dict[str, Any] = {"draws": 5, "key": KEY, "batch_axis": axis}
    rows = dropkit.sample(model, same, mask_scope="batch", **options).samples
    first = rows.select(axis + 1, 0).unsqueeze(axis + 1).expand_as(rows)
    torch.testing.assert_close(rows, first)
    rows = dropkit.sample(model, same, mask_scope="element", **options).samples
    assert not torch.equal(rows, rows.select(axis + 1, 0).unsqueeze(axis + 1).expand_as(rows))


def test_a_fixed_network_is_the_same_in_all_calls_whatever_the_batch() -> None:
    model, (x,) = made("module")
    whole = dropkit.sample(model, x, draws=5, mask_scope="fixed").samples
    parts = [
        dropkit.sample(model, part, draws=5, mask_scope="fixed").samples for part in x.split([1, 3])
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_mask_that_the_model_draws_itself_is_not_shared_in_silence() -> None:
    with pytest.raises(SettingError, match=r"path .DropPath. draws its own"):
        dropkit.sample(Residual().eval(), torch.randn(4, 8), mask_scope="batch")


# ---- models without dropout


@pytest.mark.parametrize(
    ("rates", "acted"),
    [
        (0.2, [("2", "hidden"), ("4", "head")]), ({"head": 0.2}, [("4", "head")]),
        ({"0": 0.1, "hidden": 0.3}, [("0", "input"), ("2", "hidden")]),
    ],
)  # fmt: skip
def test_dropout_is_put_in_for_a_while(rates: Any, acted: list[tuple[str, str]]) -> None:
    layers = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    model, x = nn.Sequential(*layers).eval(), torch.randn(4, 8)
    with unchanged(model):
        draws = dropkit.sample(model, x, draws=5, key=KEY, insert=rates)
    assert [(one.site.path, one.site.role) for one in draws.sites if one.acted] == acted


def test_what_is_put_in_is_what_a_module_there_would_be() -> None:
    first, last, x = nn.Linear(8, 8), nn.Linear(8, 3), torch.randn(4, 8)
    with_module = nn.Sequential(first, nn.Dropout(0.5), last).eval()
    without = nn.Sequential(first, last).eval()
    a = dropkit.sample(with_module, x, draws=2000, key=1)
    b = dropkit.sample(without, x, draws=2000, key=2, insert={"head": 0.5})
    error = (a.error("mean") ** 2 + b.error("mean") ** 2).sqrt()
    assert bool(((a.mean - b.mean).abs() < 5 * error).all())
    error = (a.error("var") ** 2 + b.error("var") ** 2).sqrt()
    assert bool(((a.var - b.var).abs() < 5 * error).all())


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
    model, x = _two(), torch.randn(4, 8)
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
        ({"rates": 1.5}, "rates: expected fractions from 0 to 1"),
        ({"insert": 1.5}, "insert: expected rates between 0 and 1"),
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
        pytest.raises(SamplingError, match=r"its inputs \(\(2, 3\)\); draw 0 ra"),
    ):
        dropkit.sample(model, torch.ones(2, 3), key=KEY)


class _Fails(nn.Module):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.drop, self.calls, self.error = nn.Dropout(0.5), [0], error

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        self.seen = x
        if self.calls[0] > 5 and not self.training:
            raise self.error("now")
        return self.drop(x) if float(self.drop(x).sum()) > -1 else x


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_model_that_stops_halfway_is_given_back(error: type[BaseException]) -> None:
    model = _Fails(error).eval()
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
