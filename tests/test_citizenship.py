"""Dropout as torch expects of an operator: derivatives, transforms, compilers, modes, threads."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, jacrev, jvp, vmap

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.kernel import cpu

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script:DeprecationWarning"  # torch's own compiler and forward mode
)

KEY = 99
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: F.dropout(x, 0.4, key=KEY),
    "shared": lambda x: F.dropout(x, 0.4, shared=(0,), key=KEY),
    "rates": lambda x: F.dropout(x, torch.tensor([0.1, 0.5, 0.9, 1.0, 0.0]), key=KEY),
    "classic": lambda x: F.dropout(x, 0.4, key=KEY, scaling="classic"),
    "all": lambda x: F.dropout(x, 1.0, key=KEY),
    "in place": lambda x: F.dropout(x * 1.0, 0.4, key=KEY, inplace=True),
    "relu": lambda x: F.activation_dropout(x, "relu", 0.4, key=KEY),
    "gelu": lambda x: F.activation_dropout(x, "gelu", 0.4, key=KEY),
    "gelu_tanh": lambda x: F.activation_dropout(x, "gelu_tanh", 0.4, key=KEY),
    "silu": lambda x: F.activation_dropout(x, "silu", 0.4, key=KEY),
    "add": lambda x: F.dropout_add(x, x.sin(), 0.4, bias=x[0].cos(), key=KEY),
    "noise": lambda x: F.gaussian_dropout(x, 0.4, key=KEY),
    "zoneout": lambda x: F.zoneout(x, x.sin(), 0.4, key=KEY),
}


def sample() -> Tensor:
    return torch.randn(3, 5, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", FORMS)
def test_derivatives_of_first_and_second_order(name: str) -> None:
    assert gradcheck(FORMS[name], sample(), check_batched_grad=True)
    assert gradgradcheck(FORMS[name], sample())


@pytest.mark.parametrize("name", FORMS)
def test_forward_mode_derivatives(name: str) -> None:
    assert gradcheck(FORMS[name], sample(), check_forward_ad=True, check_batched_forward_grad=True)
    x, t = sample().detach(), torch.randn(3, 5, dtype=torch.float64)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(FORMS[name](forward_ad.make_dual(x, t))).tangent
    assert torch.allclose(tangent, jvp(FORMS[name], (x,), (t,))[1])


@pytest.mark.parametrize("name", FORMS)
def test_functional_transforms(name: str) -> None:
    x = sample().detach()
    loss = lambda x: FORMS[name](x).square().sum()  # noqa: E731
    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    assert torch.allclose(grad(loss)(x), leaf.grad)  # type: ignore[arg-type]
    assert torch.allclose(jacrev(loss)(x), leaf.grad)  # type: ignore[arg-type]
    batch = torch.stack([x, x + 1])
    each = torch.stack([FORMS[name](row) for row in batch])
    assert torch.allclose(vmap(FORMS[name])(batch), each)


def test_fused_forms_are_their_compositions() -> None:
    x = torch.randn(40, 33)
    for name, activation in (
        ("relu", torch.relu),
        ("gelu", torch.nn.functional.gelu),
        ("silu", torch.nn.functional.silu),
    ):
        fused = F.activation_dropout(x, name, 0.3, key=KEY)  # type: ignore[arg-type]
        assert torch.equal(fused, F.dropout(activation(x), 0.3, key=KEY))
    bias, residual = torch.randn(33), torch.randn(40, 33)
    expected = residual + F.dropout(x + bias, 0.3, key=KEY)
    assert torch.equal(F.dropout_add(x, residual, 0.3, bias=bias, key=KEY), expected)
    expected = residual + F.dropout(x, 0.3, key=KEY)
    assert torch.equal(F.dropout_add(x, residual, 0.3, key=KEY), expected)


def test_vmap_draws_as_its_randomness_says() -> None:
    x = torch.ones(3, 64)
    same = vmap(F.dropout, randomness="same")(x)
    assert torch.equal(same, same[:1].expand_as(same))
    different = vmap(F.dropout, randomness="different")(x)
    assert not torch.equal(different[0], different[1])
    assert not torch.equal(different[1], different[2])
    closed = vmap(lambda _: F.dropout(torch.ones(64)), randomness="different")(x)
    assert not torch.equal(closed[0], closed[1])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(F.dropout)(x)
    keys = torch.arange(3)
    each = vmap(lambda x, key: F.dropout(x, key=key))(x, keys)
    assert torch.equal(each, torch.stack([F.dropout(x[0], key=key) for key in range(3)]))
    rates = torch.tensor([0.0, 0.5, 1.0])
    each = vmap(lambda x, p: F.dropout(x, p.expand(1), key=KEY))(x, rates)
    assert torch.equal(each, torch.stack([F.dropout(x[0], p, key=KEY) for p in (0.0, 0.5, 1.0)]))


# ---- compilers


def block(x: Tensor) -> Tensor:
    x = F.dropout(x, 0.3)
    x = F.dropout_add(x, x.sin(), 0.2, bias=x[0])
    return F.activation_dropout(x, "gelu", 0.5) + F.dropout(x, 0.5, shared=(0,))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_programs_draw_as_eager_ones(backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    for rows in (4, 6, 7):  # the last is traced with sizes left open
        x = torch.randn(rows, 33)
        results = []
        for run in (block, compiled):
            torch.manual_seed(rows)
            leaf = x.clone().requires_grad_()
            y = run(leaf)
            y.square().sum().backward()
            results.append((y.detach(), leaf.grad))
        for eager, traced in zip(*results, strict=True):
            assert torch.allclose(eager, traced, atol=1e-5)


def test_equal_calls_in_a_compiled_program_draw_apart() -> None:
    """Common subexpressions are merged by compilers; two draws are none."""
    torch._dynamo.reset()
    twice = torch.compile(
        lambda x: (F.dropout(x), F.dropout(x)), fullgraph=True, backend="aot_eager"
    )
    first, second = twice(torch.ones(100))
    assert not torch.equal(first, second)
    third, _ = twice(torch.ones(100))
    assert not torch.equal(first, third)


def test_scopes_of_keys_reach_compiled_programs() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(F.dropout, fullgraph=True, backend="aot_eager")
    with F.keyed(5):
        expected = F.dropout(torch.ones(100))
    for _ in range(2):
        with F.keyed(5):
            assert torch.equal(compiled(torch.ones(100)), expected)


class Keyed(torch.nn.Module):
    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        return F.dropout(x, 0.5, key=key)


class Free(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


def test_exported_programs_draw() -> None:
    rows = torch.export.Dim("rows")
    sizes = {"x": {0: rows}, "key": None}
    example = (torch.ones(4, 5), torch.tensor(3))
    keyed = torch.export.export(Keyed(), example, dynamic_shapes=sizes).module()
    assert torch.equal(keyed(torch.ones(9, 5), torch.tensor(8)), F.dropout(torch.ones(9, 5), key=8))
    free = torch.export.export(Free(), (torch.ones(50),)).module()
    assert not torch.equal(free(torch.ones(50)), free(torch.ones(50)))


# ---- modes and memory


def test_nothing_is_kept_but_the_key() -> None:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.dropout(x, 0.5)
        F.dropout(x.view(10, 100), 0.5, shared=(1,))
        F.dropout_add(x, x, 0.5)
        assert kept == []
        y = F.activation_dropout(x, "relu", 0.5)
    assert [tensor.data_ptr() for tensor in kept] == [y.data_ptr()]


def test_autocast_leaves_the_type() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.dropout(torch.ones(3)).dtype == torch.float32
        product = torch.ones(3, 3) @ torch.ones(3, 3)
        assert F.dropout(product).dtype == torch.bfloat16
        assert F.dropout_add(product, torch.ones(3, 3)).dtype == torch.float32


def test_fake_and_meta_tensors_pass() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        assert block(torch.ones(2, 3)).shape == (2, 3)
    assert block(torch.ones(2, 3, device="meta")).shape == (2, 3)


@pytest.mark.parametrize("name", FORMS)
def test_negated_views_are_what_they_mean(name: str) -> None:
    """torch marks a tensor as negated and leaves its memory: who reads that has the sign wrong."""
    x = sample().detach()
    assert torch.equal(FORMS[name](torch._neg_view(x)), FORMS[name](-x))
    given, through, slope = sample(), sample(), torch.randn(3, 5, dtype=torch.float64)
    with torch.no_grad():
        through.copy_(given)
    FORMS[name](given).backward(torch._neg_view(slope))
    FORMS[name](through).backward(-slope)
    assert torch.equal(given.grad, through.grad)


def test_conjugated_views_are_what_they_mean() -> None:
    z = torch.randn(40, dtype=torch.complex64)
    expected = F.dropout(z.conj().resolve_conj(), 0.4, key=KEY)
    assert torch.equal(F.dropout(z.conj(), 0.4, key=KEY), expected)
    F.dropout(z.conj(), 0.4, key=KEY, inplace=True)
    assert torch.equal(z, expected.conj())


def test_jagged_tensors_drop_their_values() -> None:
    parts = [torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)]
    x = torch.nested.as_nested_tensor(parts, layout=torch.jagged)
    y = F.dropout(x, 0.4, key=KEY)
    assert y.is_nested and y.shape == x.shape
    assert torch.equal(y.values(), F.dropout(torch.cat(parts), 0.4, key=KEY))
    y.values().sum().backward()
    assert torch.equal(parts[0].grad, F.dropout(torch.ones(8, 4), 0.4, key=KEY)[:3])


def test_sparse_tensors_are_refused() -> None:
    with pytest.raises(SettingError, match=r"expected a dense tensor.*to_dense"):
        F.dropout(torch.eye(3).to_sparse(), 0.4)


def test_operands_of_other_types_are_promoted_as_torch_does_it() -> None:
    """A bias wider than x was once written, at its width, into memory of x's."""
    x, bias = torch.randn(64, 32).bfloat16(), torch.randn(32)
    y = F.dropout_add(x, x, 0.4, bias=bias, key=KEY)
    assert torch.equal(y, x + F.dropout(x + bias, 0.4, key=KEY))
    short = torch.randn(4, requires_grad=True)
    F.dropout_add(torch.ones(4), torch.ones(4), 0.4, bias=short, key=KEY).sum().backward()
    assert torch.equal(short.grad, F.dropout(torch.ones(4), 0.4, key=KEY))


def test_what_names_a_mask_may_change_before_backward() -> None:
    x, key, rates = torch.ones(64, requires_grad=True), torch.tensor(5), torch.full((64,), 0.5)
    y = F.dropout(x, rates, key=key)
    key += 1
    y.sum().backward()
    assert torch.equal(x.grad, y)
    z = F.dropout(x, rates, key=key)
    rates.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_integer_keys_may_change_under_a_compiler() -> None:
    compiled = torch.compile(lambda x, key: F.dropout(x, 0.4, key=key), backend="inductor")
    for key in (1, 2, 3, -1):
        assert torch.equal(compiled(torch.ones(40), key), F.dropout(torch.ones(40), 0.4, key=key))


@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated")  # torch does it
def test_vmap_keeps_its_randomness_under_a_compiler() -> None:
    compiled = torch.compile(vmap(F.dropout, randomness="different"), backend="aot_eager")
    assert len(compiled(torch.ones(8, 64)).unique(dim=0)) == 8


def test_counted_keys_give_one_mask_or_say_so() -> None:
    x = torch.ones(8, 64)
    with F.keyed(3), pytest.raises(SettingError, match="a tensor of keys"):
        vmap(F.dropout, randomness="different")(x)
    with F.keyed(3):
        assert len(vmap(F.dropout, randomness="same")(x).unique(dim=0)) == 1
    keys = torch.stack([torch.tensor(key) for key in (1, 2, 3, 4, 5, 6, 7, 8)])
    drawn = vmap(lambda x, key: F.dropout(x, key=key))(x, keys)
    assert len(drawn.unique(dim=0)) == 8


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.drop_block(x, 0.1, 3),
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
        lambda x: F.embedding_dropout(x[0, 0], torch.zeros(8, dtype=torch.int64), 9, 0.1),
        lambda x: F.gaussian_dropout(x, 0.5),
        lambda x: F.zoneout(x, x, 0.5),
        lambda x: F.activation_dropout(x, "gelu", 0.5),
        lambda x: F.concrete_dropout(x, x[0, 0, 0, 0]),
        lambda x: F.patch_dropout(x[0], 0.5)[0],
    ],
)
def test_shapes_are_known_without_memory(function: Callable[[Tensor], Tensor]) -> None:
    meta, real = torch.empty(2, 3, 8, 8, device="meta"), torch.ones(2, 3, 8, 8)
    y = function(meta)
    assert y.is_meta
    assert y.shape == function(real).shape


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_no_trace_can_record_is_said() -> None:
    for function in (F.dropout2d, F.drop_block):
        with pytest.raises(SettingError, match=r"torch\.export"):
            torch.jit.trace(lambda x, f=function: f(x, 0.4), torch.ones(2, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_traced_program_draws() -> None:
    traced = torch.jit.trace(lambda x: F.dropout(x, 0.4), torch.ones(2000), check_trace=False)
    y = traced(torch.ones(2000))
    assert set(y.unique().tolist()) == set(F.dropout(torch.ones(2000), 0.4).unique().tolist())
    assert not torch.equal(y, traced(torch.ones(2000)))


def test_a_thread_that_began_in_inference_mode_draws_elsewhere() -> None:
    drawn: list[Tensor] = []

    def run() -> None:
        with torch.inference_mode():
            F.dropout(torch.ones(8))
        drawn.append(F.dropout(torch.ones(8)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(drawn) == 1


@pytest.mark.parametrize("view", ["leaf", "expanded"])
def test_nothing_is_overwritten_before_it_is_refused(view: str) -> None:
    if view == "leaf":
        whole = torch.ones(6, requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf Variable"):
            F.dropout(whole[:3], 0.5, key=KEY, inplace=True)
    else:
        whole = torch.ones(1)
        with pytest.raises(RuntimeError, match="single memory location"):
            F.dropout(whole.expand(6), 0.5, key=KEY, inplace=True)
    assert (whole == 1).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.gaussian_dropout(x, 0.3),
        lambda x: F.drop_block(x, 0.3, 2),
        lambda x: F.variational_dropout(x, torch.zeros(())),
    ],
)
def test_the_input_is_let_go(function: Callable[[Tensor], Tensor]) -> None:
    """Hooks on saved tensors see no closure; a weak reference does."""
    leaf = torch.randn(2, 3, 4, 4, requires_grad=True)
    x = leaf * 2
    alive = weakref.ref(x)
    y = function(x)
    del x
    gc.collect()
    assert y.requires_grad and alive() is None


def test_function_modes_see_the_call() -> None:
    seen = []

    class Spy(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Spy():
        F.dropout(torch.ones(3))
    assert F.dropout in seen


# ---- threads and processes


def test_a_hundred_threads_draw_the_same() -> None:
    x, results = torch.ones(40_000), [torch.empty(0)] * 100
    expected = F.dropout(x, 0.5, key=KEY)

    def work(n: int) -> None:
        results[n] = F.dropout(x, 0.5, key=KEY)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_enter(threads: int) -> None:
    x = torch.randn(300, 1001)
    expected = F.dropout(x, 0.1, key=KEY)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(F.dropout(x, 0.1, key=KEY), expected)
        y = F.dropout(x.t(), 0.1, key=KEY)
        assert torch.equal(y, F.dropout(x.t().contiguous(), 0.1, key=KEY))
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(
    not hasattr(os, "fork") or cpu.NATIVE is None,
    reason="needs os.fork, and the C++ kernels: torch itself hangs in a forked child",
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: that is the test
def test_a_forked_child_draws() -> None:
    """As a worker of a DataLoader does, after its parent has used threads."""
    x = torch.ones(200_000)
    expected = F.dropout(x, 0.5, key=KEY).tolist()
    child = os.fork()
    if not child:  # torch's own reductions would hang here: libgomp does not survive a fork
        os._exit(F.dropout(x, 0.5, key=KEY).tolist() != expected)
    assert os.waitpid(child, 0)[1] == 0
