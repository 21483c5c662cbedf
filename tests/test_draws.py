"""Draws: each quantity is what its formula says, on any outputs, and refuses what it cannot say."""

from __future__ import annotations

import math
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dropkit.errors import DropkitWarning, SettingError
from dropkit.posterior.draws import Draws
from made_up_draws import noise

LOGITS = 3 * noise(40, 6, 5)


def shannon(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1)


# ---- values


def test_of_values_every_quantity_is_its_definition() -> None:
    """Mutants: the variance that divides by T; quantiles of the nearest draw."""
    x = noise(30, 4, 2).float()
    draws, wide = Draws.of(x), x.double().numpy()
    assert draws.count == 30
    assert np.allclose(draws.mean, wide.mean(0), rtol=1e-14, atol=0)
    assert np.allclose(draws.var, wide.var(0, ddof=1), rtol=1e-12, atol=0)
    assert torch.equal(draws.std, draws.var.sqrt())
    for q in (0.0, 0.05, 0.5, 0.777, 1.0):
        assert np.allclose(draws.quantile(q), np.quantile(wide, q, axis=0), rtol=1e-12, atol=0)
    low, high = draws.interval(0.8)
    assert torch.equal(low, draws.quantile(0.1)) and torch.equal(high, draws.quantile(0.9))
    assert torch.equal(draws.epistemic, draws.var)
    assert draws.mean.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_high(dtype: torch.dtype) -> None:
    """Mutant: a mean in float16, which overflows at 65504."""
    x = (1000 * noise(100, 3).abs() + 40000).to(dtype)
    assert torch.allclose(Draws.of(x).mean, x.double().mean(0), rtol=1e-14)


def test_one_draw_has_a_mean_and_no_spread() -> None:
    draws = Draws.of(torch.ones(1, 3))
    assert torch.equal(draws.mean, torch.ones(3, dtype=torch.float64))
    with pytest.raises(SettingError, match="expected 2 or more draws; got 1"):
        _ = draws.std


def test_noise_is_the_aleatoric_part() -> None:
    draws = Draws.of(noise(9, 4))
    with pytest.raises(SettingError, match=r"with_noise\(variance\)"):
        _ = draws.aleatoric
    assert torch.equal(draws.with_noise(0.5).aleatoric, torch.full((4,), 0.5, dtype=torch.float64))
    assert torch.equal(draws.with_noise(0.5).var, draws.var)
    with pytest.raises(SettingError, match="expected 0 or more; got -1"):
        draws.with_noise(-1.0)
    with pytest.raises(SettingError, match=r"broadcasts to one draw's, \(4,\); got \(3,\)"):
        draws.with_noise(torch.ones(3))
    with pytest.raises(SettingError, match="expected draws of values; got logits"):
        Draws.of(LOGITS, outputs="logits").with_noise(1.0)


# ---- classes


def test_of_classes_every_quantity_is_its_definition() -> None:
    """Mutants: entropy of the mean logits; bits; BALD's terms swapped; a mode of mean logits."""
    draws, p = Draws.of(LOGITS, outputs="logits"), LOGITS.softmax(-1)
    assert torch.allclose(draws.probabilities, p.mean(0), rtol=1e-13)
    assert torch.allclose(draws.entropy, shannon(p.mean(0)), rtol=1e-12)
    assert torch.allclose(draws.expected_entropy, shannon(p).mean(0), rtol=1e-12)
    information = shannon(p.mean(0)) - shannon(p).mean(0)
    assert torch.allclose(draws.mutual_information, information, rtol=1e-10)
    votes = torch.nn.functional.one_hot(p.argmax(-1), 5).double().mean(0)
    assert torch.equal(draws.variation_ratio, 1 - votes.amax(-1))
    assert torch.equal(draws.epistemic, draws.mutual_information)
    assert torch.equal(draws.aleatoric, draws.expected_entropy)
    assert torch.allclose(draws.mean, LOGITS.mean(0), rtol=1e-12)  # of the outputs as they are


def test_uniform_and_certain_classes_are_the_ends() -> None:
    flat = Draws.of(torch.zeros(7, 3, 8), outputs="logits")
    assert torch.allclose(flat.entropy, torch.full((3,), math.log(8), dtype=torch.float64))
    assert float(flat.mutual_information.abs().max()) == 0
    split = Draws.of(torch.eye(4).unsqueeze(1), outputs="probabilities")  # each draw another class
    assert float(split.mutual_information) == pytest.approx(math.log(4), rel=1e-15)
    assert float(split.expected_entropy) == 0 and float(split.variation_ratio) == 0.75


def test_probabilities_and_logits_say_the_same() -> None:
    one = Draws.of(LOGITS, outputs="logits")
    two = Draws.of(LOGITS.softmax(-1), outputs="probabilities")
    for name in ("probabilities", "entropy", "mutual_information", "variation_ratio"):
        assert torch.allclose(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-14)
        assert torch.allclose(one.error(name), two.error(name), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, -2, -3])
def test_the_classes_may_lie_along_any_axis(axis: int) -> None:
    """Mutant: an axis that counts the draws too."""
    x = noise(20, 4, 4, 4)
    moved = Draws.of(x, outputs="logits", class_axis=axis)
    plain = Draws.of(x.movedim(axis + 1 if axis >= 0 else axis, -1), outputs="logits")
    assert torch.allclose(moved.entropy, plain.entropy)
    assert torch.allclose(moved.probabilities.sum(axis), torch.ones(4, 4, dtype=torch.float64))
    assert torch.allclose(moved.probabilities.movedim(axis, -1), plain.probabilities)
    errors = moved.error("probabilities").movedim(axis, -1)
    assert torch.allclose(errors, plain.error("probabilities"))


def test_extreme_logits_neither_overflow_nor_hide() -> None:
    """Mutants: log(softmax(x)); entropies in float16."""
    x = torch.tensor([[[3e4, -3e4, 0.0]], [[-3e4, 3e4, 0.0]]], dtype=torch.float16)
    draws = Draws.of(x, outputs="logits")
    assert float(draws.entropy) == pytest.approx(math.log(2), rel=1e-15)
    assert float(draws.mutual_information) == pytest.approx(math.log(2), rel=1e-15)
    sure = Draws.of(torch.tensor([[[40.0, 0.0]]]), outputs="logits")
    assert float(sure.entropy) == pytest.approx(41 * math.exp(-40), rel=1e-6)


def test_an_excluded_class_has_no_share() -> None:
    x = LOGITS.clone()
    x[..., 2] = -math.inf
    draws = Draws.of(x, outputs="logits")
    rest = Draws.of(x[..., [0, 1, 3, 4]], outputs="logits")
    assert torch.allclose(draws.entropy, rest.entropy, rtol=1e-13)
    for name in ("entropy", "mutual_information"):
        assert torch.allclose(draws.error(name), rest.error(name), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mutual_information_is_never_negative_by_rounding(dtype: torch.dtype) -> None:
    """Mutants: no clamp; computed in the samples' own precision."""
    same = (5 * noise(1, 500, 10)).to(dtype).expand(30, -1, -1)
    found = Draws.of(same, outputs="logits").mutual_information
    assert float(found.min()) >= 0 and float(found.max()) < 1e-13
    shares = Draws.of(same.softmax(-1), outputs="probabilities").mutual_information
    assert float(shares.min()) >= 0 and float(shares.max()) < 1e-13


def test_what_is_negative_beyond_rounding_stays() -> None:
    """Mutant: a clamp that hides a wrong entropy."""
    from dropkit.posterior.entropies import mutual_information

    logs = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    assert float(mutual_information(logs, torch.tensor(0.8).double())) < -0.1


@pytest.mark.parametrize(
    "name", ["probabilities", "entropy", "expected_entropy", "mutual_information"]
)
def test_values_have_no_classes(name: str) -> None:
    draws = Draws.of(noise(5, 3))
    for ask in (lambda: getattr(draws, name), lambda: draws.error(name)):
        with pytest.raises(SettingError, match='outputs="logits"'):
            ask()


# ---- temperature


def test_a_tempered_draw_is_softer() -> None:
    logits = Draws.of(LOGITS, outputs="logits", key=3)
    soft = logits.tempered(2.5)
    assert torch.allclose(soft.samples, LOGITS / 2.5) and soft.key == 3
    shares = Draws.of(LOGITS.softmax(-1), outputs="probabilities").tempered(2.5)
    assert torch.allclose(shares.probabilities, soft.probabilities, rtol=1e-10)
    with pytest.raises(SettingError, match="above 0; got 0"):
        logits.tempered(0)
    with pytest.raises(SettingError, match='outputs="logits"'):
        Draws.of(noise(5, 3)).tempered(2.0)


# ---- trees


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Mapped(OrderedDict[str, Any]):
    """As Transformers' outputs are: a dict by another name."""


Pair = namedtuple("Pair", ["first", "second"])
A, B = noise(12, 3, 4), noise(12, 2)
TREES: dict[str, Any] = {
    "dict": {"a": A, "b": B},
    "nested": {"a": [A, (B,)], "n": 7},
    "tuple": (A, B),
    "list": [A, "kept", B],
    "namedtuple": Pair(A, B),
    "ordered": Mapped(a=A, b=B),
    "user": UserDict(a=A, b=B),
    "frozen": MappingProxyType({"a": A, "b": B}),
    "dataclass": Output(A),
    "dataclass within": {"out": Output(A, B)},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_results_have_the_structure_of_the_samples(tree: Any) -> None:
    """Mutants: a plain dict for every mapping; leaves in another order."""
    from dropkit.posterior.trees import flatten

    draws = Draws.of(tree)
    before, after = flatten(tree), flatten(draws.mean)
    assert type(draws.mean) is type(tree) or isinstance(tree, MappingProxyType)
    assert after.names == before.names
    for sample, mean in zip(before.leaves, after.leaves, strict=True):
        if isinstance(sample, Tensor):
            assert torch.allclose(mean, sample.mean(0))
        else:
            assert mean is sample
    assert all(x is y for x, y in zip(flatten(draws.samples).leaves, before.leaves, strict=True))


def test_a_part_is_taken_by_key_field_or_place() -> None:
    assert torch.equal(Draws.of(TREES["dict"])["b"].mean, Draws.of(B).mean)
    assert torch.equal(Draws.of(TREES["dict"])[1].mean, Draws.of(B).mean)
    assert torch.equal(Draws.of(TREES["nested"])["a"][1][0].mean, Draws.of(B).mean)
    assert torch.equal(Draws.of(TREES["namedtuple"])[0].mean, Draws.of(A).mean)
    assert torch.equal(Draws.of(TREES["dataclass"])["logits"].mean, Draws.of(A).mean)
    part = Draws.of({"x": A}, outputs="logits", class_axis=0, key=9)["x"]
    assert (part.outputs, part.class_axis, part.key) == ("logits", 0, 9)
    with pytest.raises(SettingError, match=r"draws\['c'\].*tree with \['a'\], \['b'\]"):
        Draws.of(TREES["dict"])["c"]
    with pytest.raises(SettingError, match="one tensor, which has no parts"):
        Draws.of(A)[0]
    with pytest.raises(SettingError, match="expected a part with tensors"):
        Draws.of(TREES["nested"])["n"]


def test_the_part_that_lacks_classes_is_named() -> None:
    draws = Draws.of({"logits": LOGITS, "loss": noise(40)}, outputs="logits")
    with pytest.raises(SettingError, match=r"draws\['loss'\]: expected an axis of classes"):
        _ = draws.entropy
    assert draws["logits"].entropy.shape == (6,)


# ---- integers


def test_choices_have_a_variation_ratio_and_no_mean() -> None:
    """Mutant: the mean of token ids."""
    tokens = torch.tensor([[1, 5, 9], [1, 5, 7], [1, 2, 7], [1, 5, 8]])
    draws = Draws.of(tokens)
    assert draws.variation_ratio.tolist() == [0.0, 0.25, 0.5]
    for name in ("mean", "std"):
        with pytest.raises(SettingError, match=r"int64.*try variation_ratio"):
            getattr(draws, name)
    with pytest.raises(SettingError, match="variation_ratio"):
        draws.quantile(0.5)
    assert Draws.of(tokens > 4).variation_ratio.tolist() == [0.0, 0.25, 0.0]


# ---- ragged


def test_draws_of_different_lengths_are_listed_and_not_averaged() -> None:
    texts = [{"ids": torch.arange(n), "score": torch.tensor([float(n)])} for n in (3, 4, 3)]
    draws = Draws.gather(texts, key=5)
    assert draws.count == 3 and draws.samples == texts and draws.key == 5
    for ask in (lambda: draws.mean, lambda: draws.error("mean"), lambda: draws.to_frame()):
        with pytest.raises(SettingError, match="different lengths"):
            ask()
    assert draws["score"].mean.tolist() == [pytest.approx(10 / 3)]
    assert "different shapes" in repr(draws)


def test_gathered_draws_of_one_shape_are_stacked() -> None:
    draws = Draws.gather(list(LOGITS), outputs="logits")
    assert torch.equal(draws.samples, LOGITS) and draws.outputs == "logits"
    with pytest.raises(SettingError, match="one structure"):
        Draws.gather([{"a": A}, {"b": A}])
    with pytest.raises(SettingError, match="one or more; got none"):
        Draws.gather([])


# ---- what is wrong is said


def test_numbers_that_are_none_are_said_once_and_stay_visible() -> None:
    """Mutants: nanmean; a sort that hides NaN at its end; votes for NaN."""
    x = noise(10, 3)
    x[4, 1], x[7, 1] = math.nan, math.inf
    with pytest.warns(DropkitWarning, match=r"2 of 10 draws.*number 4 \(numbers: 4, 7\)") as said:
        draws = Draws.of(x)
    assert len(said) == 1
    for found in (draws.mean, draws.std, draws.quantile(0.1), draws.error("quantile", 0.5)):
        assert found.isfinite().tolist() == [True, False, True]
    logits = LOGITS.clone()
    logits[0, 2, 3] = math.nan
    with pytest.warns(DropkitWarning, match="1 of 40"):
        classes = Draws.of(logits, outputs="logits")
    for name in ("probabilities", "entropy", "mutual_information", "variation_ratio"):
        assert not getattr(classes, name)[2].isfinite().any()
        assert getattr(classes, name)[1].isfinite().all()


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (np.zeros((3, 2)), {}, "expected tensors of draws; got ndarray"),
        ({}, {}, "got nothing"),
        (torch.zeros(0, 3), {}, "one or more draws"),
        (torch.tensor(1.0), {}, "one or more draws"),
        ((torch.zeros(3, 1), torch.zeros(4, 1)), {}, "as many in each"),
        (torch.zeros(3, 2), {"outputs": "classes"}, "values, logits, probabilities"),
        (torch.ones(3, 2), {"outputs": "probabilities"}, "sum that is off by 1"),
        (torch.tensor([[[-0.5, 1.5]]]), {"outputs": "probabilities"}, r"outside \[0, 1\]"),
        (torch.full((3, 1), 0.7), {"outputs": "probabilities"}, r"stack\(\[1 - p, p\]"),
    ],
)
def test_what_are_no_draws_is_refused(samples: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Draws.of(samples, **options)


@pytest.mark.parametrize("level", [0, 1, -0.1, 90])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(SettingError, match="between 0 and 1"):
        Draws.of(A).interval(level)


def test_a_quantile_is_a_share() -> None:
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(SettingError, match="from 0 to 1"):
            Draws.of(A).quantile(q)
    with pytest.raises(SettingError, match="from 0 to 1"):
        Draws.of(A).error("quantile")


def test_an_unknown_quantity_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingError, match=r"mutual_information.*got 'median'"):
        Draws.of(A).error("median")


def test_draws_cannot_be_changed_by_a_new_name() -> None:
    with pytest.raises(AttributeError):
        Draws.of(A).mean = 3  # type: ignore[misc]
    assert repr(Draws.of(LOGITS, outputs="logits")) == "Draws(40 draws of logits: shape (6, 5))"


# ---- tables


def test_a_table_has_a_row_for_each_row() -> None:
    frame = Draws.of(LOGITS, outputs="logits").to_frame()
    shares = [f"probability_{c}" for c in range(5)]
    rest = ["entropy", "mutual_information", "variation_ratio"]
    assert list(frame.columns) == ["prediction", *shares, *rest] and len(frame) == 6
    assert np.allclose(frame[shares].sum(axis=1), 1)
    assert (frame["prediction"] == frame[shares].to_numpy().argmax(axis=1)).all()
    values = Draws.of(noise(20, 6, 2)).to_frame()
    assert list(values.columns)[:3] == ["mean_0", "mean_1", "std_0"]
    assert (values["low_0"] < values["high_0"]).all()
    several = Draws.of({"a": noise(20, 6), "ids": torch.ones(20, 6, dtype=torch.int64)}).to_frame()
    assert list(several.columns) == ["mean_a", "std_a", "low_a", "high_a", "variation_ratio_ids"]
    with pytest.raises(SettingError, match=r"as many rows in each part.*\[2, 6\]"):
        Draws.of({"a": noise(20, 6), "b": noise(20, 2)}).to_frame()
    with pytest.raises(SettingError, match="draws of a single number"):
        Draws.of(noise(20)).to_frame()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from dropkit.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pandas.*dropkit\[tables\]"):
        Draws.of(A).to_frame()
    with pytest.raises(MissingExtraError, match=r"matplotlib.*dropkit\[tables\]"):
        Draws.of(A).plot("intervals", A[0])
