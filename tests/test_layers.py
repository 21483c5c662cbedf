"""What every layer keeps: its law, torch's manners, and the transformations of torch."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import dropkit.functional as F
from dropkit import nn
from dropkit.errors import SettingError
from dropkit.testing import CHECKS, Subject, check
from layer_subjects import SUBJECTS

SLOW = {
    "rate", "rate_by_position", "independent_elements", "independent_layers", "expectation",
    "noise", "compiled", "compiled_inductor", "key_compiled", "key_threads", "checkpointed",
    "double_backward",
}  # fmt: skip
"""Checks that take seconds without the kernels; what they check of the laws is below."""

DROP_INS = (
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout",
)  # fmt: skip
MAP = (4, 6, 8, 7)
LAYERS: list[torch.nn.Module] = [
    nn.Dropout(0.3),
    nn.Dropout(0.3, shared=(1, -1), scaling="classic"),
    nn.Dropout2d(0.3),
    nn.SpatialDropout(0.3, channels_last=True),
    nn.AlphaDropout(0.3),
    nn.FeatureAlphaDropout(0.3),
    nn.DropBlock2d(0.3, block_size=3),
    nn.DropBlock2d(0.3, block_size=(3, 4), inside=True, shared=(1,)),
    nn.DropPath(0.3),
    nn.StochasticDepth(0.3, "batch"),
    nn.StochasticResidual(torch.nn.Identity(), 0.3),
    nn.StochasticResidual(torch.nn.Identity(), 0.3, subset=True),
    nn.HeadDropout(0.3, axis=1),
    nn.TokenDropout(0.3),
    nn.TokenDropout(0.3, replacement=torch.nn.Parameter(torch.zeros(MAP[-1]))),
    nn.GaussianDropout(0.3),
    nn.GaussianNoise(0.3, shared=(0,)),
    nn.LayerDrop([torch.nn.Tanh(), torch.nn.Sigmoid(), torch.nn.ReLU()], 0.5),
]

KEPT = (nn.StochasticResidual, nn.LayerDrop)
"""These keep what their branches keep, and round what their branches round."""


def each(layers: list[Any]) -> Any:
    return pytest.mark.parametrize("layer", layers, ids=lambda layer: str(layer).split("\n")[0])


def map_of(*, grad: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.linspace(1, 2, 4 * 6 * 8 * 7).view(MAP).to(dtype)
    return x.requires_grad_(grad)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_layer_conforms(subject: Subject) -> None:
    check(subject, only=[name for name in CHECKS if name not in SLOW]).raise_for_failures()


# ---- torch's manners


@pytest.mark.parametrize("name", DROP_INS)
def test_a_drop_in_is_torchs_own(name: str) -> None:
    ours, torchs = getattr(nn, name), getattr(torch.nn, name)
    assert issubclass(ours, torchs)
    assert repr(ours(0.3)) == repr(torchs(0.3))
    assert repr(ours(0.3, True)) == repr(torchs(0.3, True))
    assert vars(ours())["p"] == vars(torchs())["p"]
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"has to be between 0 and 1, but got {p}"):
            ours(p)
        layer = ours()
        layer.p = p
        with pytest.raises(ValueError, match="has to be between 0 and 1"):
            layer(torch.ones(1, 1, 1))


def outcome(layer: torch.nn.Module, x: Tensor) -> tuple[Any, ...]:
    """The shape of a result, or the error; and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said: Any = layer(x).shape
        except RuntimeError as error:
            said = str(error)
    return said, [(str(one.message), one.category) for one in caught]


@pytest.mark.parametrize("name", DROP_INS)
def test_a_drop_in_takes_refuses_and_warns_as_torchs(name: str) -> None:
    for training, p, inplace in itertools.product((True, False), (0.0, 0.5, 1.0), (True, False)):
        ours = getattr(nn, name)(p, inplace).train(training)
        torchs = getattr(torch.nn, name)(p, inplace).train(training)
        for rank, size in itertools.product(range(7), (0, 2)):
            x = torch.ones((size,) * rank)
            assert outcome(ours, x.clone()) == outcome(torchs, x.clone()), (rank, size)


@pytest.mark.parametrize(("kind", "shape"), [("Dropout1d", (9, 5)), ("Dropout3d", (9, 2, 3, 4))])
def test_without_a_batch_it_is_as_a_batch_of_one(kind: str, shape: tuple[int, ...]) -> None:
    """Mutant: (C, D, H, W) taken for (N, C, ...)."""
    layer, x = getattr(nn, kind)(0.5), torch.ones(shape)
    assert torch.equal(layer(x, key=3), layer(x[None], key=3)[0])
    assert set(layer(x, key=3).flatten(1).mean(1).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_constants_are_torchs(kind: str, p: float) -> None:
    """Of both the dropped and the kept, so that a mutant of the scale, shift or fill is seen."""
    for x in (torch.zeros(40, 50, 2).double(), torch.ones(40, 50, 2).double()):
        ours, torchs = (getattr(room, kind)(p)(x).unique() for room in (nn, torch.nn))
        assert len(ours) == 2
        assert torch.allclose(ours, torchs, rtol=1e-12)


def test_alpha_at_rate_one_is_zero_as_torchs() -> None:
    assert torch.equal(
        nn.AlphaDropout(1.0)(torch.ones(5)), torch.nn.AlphaDropout(1.0)(torch.ones(5))
    )


def test_alpha_works_in_place_where_asked() -> None:
    x = torch.ones(50)
    assert nn.AlphaDropout(0.5, inplace=True)(x) is x
    assert set(x.tolist()) != {1.0}


@each([layer for layer in LAYERS if isinstance(layer, torch.nn.modules.dropout._DropoutNd)])
def test_tools_that_look_for_torchs_base_find_it(layer: Any) -> None:
    layer = copy.deepcopy(layer)
    layer.p = 0.0
    assert torch.equal(layer.train()(map_of()), map_of())


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.Dropout(0.1, shared=[1]), "Dropout(p=0.1, inplace=False, shared=(1,))"),
        (nn.DropBlock2d(), "DropBlock2d(p=0.1)"),
        (nn.DropBlock2d(0.2, (3, 5)), "DropBlock2d(p=0.2, block_size=(3, 5))"),
        (nn.DropPath(0.2, False), "DropPath(p=0.2, scale_by_keep=False)"),
        (nn.StochasticDepth(0.2, "batch"), "StochasticDepth(p=0.2, mode='batch')"),
        (nn.GaussianNoise(0.2, shared=(0,)), "GaussianNoise(std=0.2, shared=(0,))"),
        (nn.TokenDropout(0.2, 7), "TokenDropout(p=0.2, replacement=7)"),
    ],
)
def test_a_repr_tells_what_is_not_usual(layer: torch.nn.Module, told: str) -> None:
    assert repr(layer) == told


@each(LAYERS)
def test_a_layer_can_be_copied_and_kept(layer: torch.nn.Module) -> None:
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    for twin in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(stream, weights_only=False),
    ):
        assert repr(twin) == repr(layer)
        assert twin.state_dict().keys() == layer.state_dict().keys()
        assert torch.equal(twin(map_of(), key=3), layer(map_of(), key=3))
    assert not list(layer.buffers())


# ---- the transformations of torch


@each([layer for layer in LAYERS if not isinstance(layer, KEPT)])
def test_half_precision_stays_and_rounds_once(layer: torch.nn.Module) -> None:
    x = map_of(dtype=torch.bfloat16)
    with torch.no_grad():
        y = layer(x, key=5)
        exact = layer(x.double(), key=5)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.double(), exact, rtol=2**-8 * 1.01, atol=1e-6)


@each(LAYERS)
def test_gradients_are_of_the_same_mask(layer: torch.nn.Module) -> None:
    x = map_of(grad=True)
    (grad,) = torch.autograd.grad(layer(x, key=5).sum(), x)
    step = 1e-3
    with torch.no_grad():
        ends = [layer(x.detach().double() + way * step, key=5) for way in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert torch.allclose(grad.double(), slope, atol=1e-3)


@each([layer for layer in LAYERS if not isinstance(layer, KEPT) and not list(layer.parameters())])
def test_nothing_is_kept_for_backward(layer: torch.nn.Module) -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        layer(map_of(grad=True))
    assert kept == []


def chain(x: Tensor, keys: list[int]) -> Tensor:
    for key, layer in zip(keys, LAYERS, strict=True):
        x = layer(x, key=key)
    return x


def test_all_layers_compile_into_one_graph() -> None:
    torch.compiler.reset()
    compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")
    keys = list(range(len(LAYERS)))
    x, same = map_of(grad=True), map_of(grad=True)
    y, expected = compiled(x, keys), chain(same, keys)
    assert torch.allclose(y, expected)
    y.sum().backward()
    expected.sum().backward()
    assert torch.allclose(x.grad, same.grad)


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.3), nn.DropBlock2d(0.3, 3, inside=True)])
def test_sizes_may_change_under_a_compiler(layer: torch.nn.Module) -> None:
    """Mutant: a constant whose square the compiler has to know."""
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for sizes in ((4, 3, 5, 6), (3, 4, 6, 7)):
        assert torch.allclose(compiled(torch.ones(sizes), key=1), layer(torch.ones(sizes), key=1))


def test_all_layers_are_exported_with_draws_of_their_own() -> None:
    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(*LAYERS)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.layers(x)
            return result

    torch.manual_seed(1)
    program = torch.export.export(Chain().train(), (map_of(),)).module()
    assert program(map_of()).shape == MAP
    assert not torch.equal(program(map_of()), program(map_of()))


@each(LAYERS)
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_decides_by_its_randomness(layer: torch.nn.Module) -> None:
    x = map_of().expand(3, *MAP)
    same = torch.func.vmap(layer, randomness="same")(x)
    assert torch.equal(same[0], same[1])
    torch.manual_seed(1)
    parts = (torch.func.vmap(layer, randomness="different")(x) for _ in range(50))
    assert any(not torch.equal(part[0], part[1]) for part in parts)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(layer)(x)


@each(LAYERS)
def test_autocast_leaves_types_alone(layer: torch.nn.Module) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(map_of(), key=1).dtype == torch.float32


@each(LAYERS)
def test_outside_of_training_nothing_is_drawn(layer: torch.nn.Module) -> None:
    layer = copy.deepcopy(layer).eval()
    before = torch.get_rng_state()
    y = layer(map_of())
    assert torch.equal(torch.get_rng_state(), before)
    if not isinstance(layer, KEPT) and getattr(layer, "scaling", "") != "classic":
        assert torch.equal(y, map_of())


@each(LAYERS)
def test_a_key_and_a_generator_are_one_too_many(layer: torch.nn.Module) -> None:
    with pytest.raises(SettingError, match="got both"):
        layer(map_of(), key=1, generator=torch.Generator())


def test_every_layer_has_a_function() -> None:
    laws = {kind.law for kind in vars(nn).values() if hasattr(kind, "law")}
    assert laws <= {getattr(F, name) for name in F.__all__}
