"""Models that go other ways with other inputs, or in other draws; and models that sample others."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F

import dropkit
from dropkit import DropkitWarning, SettingError
from sampled_models import DropPath, unchanged

KEY = 3

# ---- ways that hang on inputs

DECISIONS: dict[str, Callable[[Tensor, Tensor, Any], Any]] = {
    "truth": lambda x, y, option: x.sum() < 0,
    "number": lambda x, y, option: float(x.sum()) < 0,
    "array": lambda x, y, option: x.numpy().sum() < 0,
    "list": lambda x, y, option: x.tolist()[0][0] < 0,
    "chosen": lambda x, y, option: x[x < 0].numel() > 0,
    "found": lambda x, y, option: len(torch.nonzero(x < 0)) > 0,
    "equal": lambda x, y, option: torch.equal(x, -torch.ones_like(x)),
    "after a draw": lambda x, y, option: float(y[0, 0]) < 99 and float(x.sum()) < 0,
    "shape": lambda x, y, option: len(x) > 5,
    "object": lambda x, y, option: option.deep,
}


class Option:
    """What it says of itself does not tell what it holds."""

    def __init__(self, deep: bool) -> None:
        self.deep = deep


class Branches(nn.Module):
    """In evaluation mode one branch calls nothing that the other does not."""

    def __init__(self, decide: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.decide = nn.Dropout(0.1), decide

    def forward(self, x: Tensor, option: Any) -> Tensor:
        y = self.first(x)
        if self.decide(x, y, option):
            return F.dropout(y, 0.5) if self.training else y
        return y


@pytest.mark.parametrize("kind", DECISIONS)
@pytest.mark.parametrize("strategy", ["auto", "loop"])
def test_a_line_that_looks_at_the_mode_is_found_on_any_way(kind: str, strategy: Any) -> None:
    """Mutants: a way is known by its operators alone, without what Python was told; of what it was
    told only truths count; a way is looked at once for all shapes; an object is known by name."""
    model, x = Branches(DECISIONS[kind]).eval(), torch.ones(4, 8)
    fresh = copy.deepcopy(model)
    other = {"shape": torch.ones(9, 8), "object": x}.get(kind, -x)
    option = Option(False)
    options: dict[str, Any] = {"draws": 20, "key": KEY, "strategy": strategy}
    for _ in range(2):
        option.deep = False
        plain = dropkit.sample(model, x, option, **options)
        assert [site.rate for site in plain.sites] == [0.1]
        option.deep = kind == "object"
        with unchanged(model):
            deep = dropkit.sample(model, other, option, **options)
        assert sorted(site.rate or 0 for site in deep.sites) == [0.1, 0.5]
    wanted = dropkit.sample(fresh, other, option, **options)
    torch.testing.assert_close(deep.samples, wanted.samples)


def test_a_model_that_is_fastest_by_itself_is_followed_too() -> None:
    """Mutant: a first draw that nobody notes is taken, whatever the model asked of its inputs."""
    model, x = Branches(DECISIONS["truth"]).eval(), torch.ones(4, 8)
    option = Option(True)
    dropkit.sample(model, x, option, draws=9, key=KEY)
    from dropkit.posterior import preparing

    for way in preparing._learned[model].ways.values():
        way.times, way.tries[1] = {0: 1e-9, 1: 1.0, 4: 1.0}, 9
        way.tries[4] = 9
        assert way.loops(8)
    sites = dropkit.sample(model, -x, option, draws=9, key=KEY).sites
    assert sorted(site.rate or 0 for site in sites) == [0.1, 0.5]


@pytest.mark.parametrize(
    ("times", "following"),
    [
        ({0: 1.0, 1: 2.0}, 4),  # by the tape slower, and many at once may be faster
        ({0: 1.0, 1: 4.1}, 0),  # four at once would not be, at the best
        ({0: 1.0, 1: 2.0, 4: 1.5}, 16),
        ({0: 1.0, 1: 2.0, 4: 2.2}, 0),  # it does not pay
        ({0: 1.0, 1: 0.9, 4: 0.3}, 16),
        ({0: 1.0, 1: 0.9, 4: 0.3, 16: 0.4}, 4),
    ],
)
def test_more_draws_at_once_are_tried_as_long_as_that_may_pay(
    times: dict[int, float], following: int
) -> None:
    """Mutant: no fold is tried where one draw by the tape takes longer than the model: GRUs."""
    from dropkit.posterior.running import Way

    way = Way(proven=True, folds=True, times=times)
    way.tries.update({count: 9 for count in times})
    assert way.next(999) == following
    assert way.loops(999) == (following == 0)


@pytest.mark.parametrize("most", [3, 49, 999])
def test_what_is_slower_at_any_number_is_left(most: int) -> None:
    """Mutant: as many as fit are asked for in each call, since four times more might pay."""
    from dropkit.posterior.running import Way

    way = Way(proven=True, folds=True)
    way.took(0, 1.0)
    for _ in range(4):  # calls
        left = 49
        while left > 0:
            count = min(way.next(min(left, most)), left, most)
            way.took(count, 3.0 * count or 1.0)
            left -= max(count, 1)
    assert way.loops(min(49, most))


# ---- and masks that are shared along the batch


class Late(nn.Module):
    """A dropout that is come to where a decision says so, once or more often."""

    def __init__(self, rate: float, decide: Callable[..., bool], most: int) -> None:
        super().__init__()
        self.first, self.decide, self.most = nn.Dropout(rate), decide, most

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for _ in range(self.most):
            if not self.decide(x, y):
                break
            y = F.dropout(y, 0.3, self.training)
        return y


def _rows_alike(samples: Tensor) -> bool:
    return torch.equal(samples, samples[:, :1].expand_as(samples))


def test_a_site_that_a_hidden_flag_comes_to_is_shared_along_the_batch() -> None:
    """Mutant: dropouts that do nothing in evaluation mode are no part of the way of a model."""
    flags = [False]
    model, x = Late(0.1, lambda x, y: flags[0], 1).eval(), torch.ones(4, 8)
    options: dict[str, Any] = {"draws": 20, "key": KEY, "mask_scope": "batch"}
    dropkit.sample(model, x, **options)
    flags[0] = True
    late = dropkit.sample(model, x, **options)
    assert _rows_alike(late.samples) and [site.calls for site in late.sites] == [1, 1]


@pytest.mark.parametrize("scope", ["batch", "fixed"])
def test_a_site_that_other_inputs_come_to_is_shared_along_the_batch(scope: Any) -> None:
    """Mutant: an axis is known only of the sites of the first inputs."""
    model, x = Late(0.1, lambda x, y: bool(x.sum() < 0), 1).eval(), torch.ones(4, 8)
    fresh = copy.deepcopy(model)
    options: dict[str, Any] = {"draws": 20, "key": KEY, "mask_scope": scope}
    assert _rows_alike(dropkit.sample(model, x, **options).samples)
    late = dropkit.sample(model, -x, **options)
    assert _rows_alike(late.samples) and [site.calls for site in late.sites] == [1, 1]
    torch.testing.assert_close(late.samples, dropkit.sample(fresh, -x, **options).samples)


def test_a_site_that_some_draws_come_to_is_shared_along_the_batch() -> None:
    """Mutants: an axis is known only of what one draw comes to; or all are looked for in one."""
    x = torch.ones(4, 8)
    for at in range(8):
        model = Late(0.5, lambda x, y, at=at: float(y[0, at]) == 0, 3).eval()
        draws = dropkit.sample(model, x, draws=40, key=KEY, mask_scope="batch")
        assert _rows_alike(draws.samples) and [site.calls for site in draws.sites] == [1, 3]


def test_a_site_that_few_draws_come_to_is_not_left_unshared_in_silence() -> None:
    model = Late(0.02, lambda x, y: float(y[0, 0]) == 0, 1).eval()
    x = torch.ones(4, 8)
    assert dropkit.sample(model, x, draws=400, key=KEY).sites[1].calls == 1
    with (
        unchanged(model),
        pytest.raises(SettingError, match="is come to more often in some, or draws"),
    ):
        dropkit.sample(model, x, draws=400, key=KEY, mask_scope="batch")


def test_shared_masks_that_are_the_same_by_chance_are_no_error() -> None:
    """Mutant: each row counts as if it had a mask of its own.

    Of 4 numbers that 5 rows share, all are the same in 3 draws at a chance of 1 in 256.
    """
    model, x = nn.Dropout(0.5).eval(), torch.ones(5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DropkitWarning)
        many = [
            dropkit.sample(model, x, draws=3, key=key, mask_scope="batch").samples
            for key in range(800)
        ]
    assert any(bool((samples == samples[:1]).all()) for samples in many)


def test_an_empty_batch_gives_empty_draws() -> None:
    """Mutants: a size divided by no rows; a shared mask that has to be seen in what is empty."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    dropkit.sample(model, torch.ones(5, 4), draws=3, key=KEY, mask_scope="batch")
    for scope in ("element", "batch"):
        with pytest.warns(DropkitWarning, match="the outputs are empty"):
            draws = dropkit.sample(model, torch.ones(0, 4), draws=60, key=KEY, mask_scope=scope)
        assert draws.samples.shape == (60, 0, 4)


# ---- models that sample others


class Outer(nn.Module):
    def __init__(self, inner: nn.Module, own: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Dropout(0.5), nn.Dropout(0.2)
        self.inner = inner if own else None
        self.other = [inner]

    def forward(self, x: Tensor) -> Tensor:
        means = dropkit.sample(self.other[0], self.first(x), draws=4, key=1).mean
        return self.last(means.float())


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "inner", [nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), DropPath(0.5)], ids=["layer", "path"]
)
def test_a_model_may_sample_another_as_it_predicts(inner: nn.Module, own: bool) -> None:
    """Mutant: sites that the inner call samples are the outer's, which never act, and are said."""
    model, x = Outer(inner.eval(), own).eval(), torch.randn(6, 8)
    with unchanged(model):
        draws = dropkit.sample(model, x, draws=9, key=KEY)
    assert [site.site.path for site in draws.sites] == ["first", "last"]
    assert all(site.calls == 1 for site in draws.sites)
    loop = dropkit.sample(model, x, draws=9, key=KEY, strategy="loop").samples
    torch.testing.assert_close(draws.samples, loop)


# ---- models in shards


@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="torch has it since 2.6")
def test_shards_are_refused_and_whole_tensors_are_sampled() -> None:
    """Mutant: what fully_shard holds is compared as if it were whole, and is not put back."""
    made = [nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 4)).eval() for _ in "ab"]
    x = torch.randn(4, 8)
    wanted = [dropkit.sample(model, x, draws=5, key=KEY).samples for model in made]
    plain = [model(x).detach() for model in made]
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for model, reshards in zip(made, (True, False), strict=True):
            fsdp.fully_shard(model, mesh=mesh, reshard_after_forward=reshards)
            with torch.no_grad():
                torch.testing.assert_close(model(x), plain[made.index(model)])
        with pytest.raises(SettingError, match=r"0\.weight is a shard, DTensor"):
            dropkit.sample(made[0], x, draws=5, key=KEY)
        torch.testing.assert_close(dropkit.sample(made[1], x, draws=5, key=KEY).samples, wanted[1])
        with torch.no_grad():
            for model, value in zip(made, plain, strict=True):
                torch.testing.assert_close(model(x), value)
    finally:
        dist.destroy_process_group()
