"""Several masks for one batch: R-Drop and multi-sample dropout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dropkit.functional as F
from dropkit.errors import SettingError
from dropkit.nn import Dropout, MultiSampleDropout


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([0, 2, 1, 2])


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Dropout(0.5), nn.Linear(16, 3))


# ---- R-Drop


def test_r_drop_is_its_formula() -> None:
    net, x = model(), numbers(4, 6)
    with F.keyed(F.derive(9, 0)):
        first = net(x)
    with F.keyed(F.derive(9, 1)):
        second = net(x)
    assert not torch.equal(first, second)
    p, q = first.softmax(1), second.softmax(1)
    divergence = 0.5 * ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean()
    entropy = nn.functional.cross_entropy
    expected = 0.5 * (entropy(first, TARGET) + entropy(second, TARGET)) + 0.7 * divergence
    torch.testing.assert_close(F.r_drop(net, x, TARGET, alpha=0.7, key=9), expected)
    F.r_drop(net, x, TARGET).backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_the_divergence_is_symmetric_and_not_negative() -> None:
    a, b = numbers(50, 7), numbers(51, 7)[1:]
    assert torch.equal(F.symmetric_kl(a, b), F.symmetric_kl(b, a))
    assert float(F.symmetric_kl(a, b)) > 0 == float(F.symmetric_kl(a, a))
    torch.testing.assert_close(F.symmetric_kl(a + 5, b), F.symmetric_kl(a, b))
    pair = [t[:3].double().requires_grad_() for t in (a, b)]
    assert torch.autograd.gradcheck(F.symmetric_kl, pair)


def test_r_drop_of_a_regression() -> None:
    outputs = iter([torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0])])
    loss = F.r_drop(
        lambda x: next(outputs), torch.ones(1), torch.tensor([1.0, 3.0]),
        loss=nn.functional.mse_loss, alpha=2.0, divergence="values",
    )  # fmt: skip
    assert float(loss) == 0.5 * 0.5 + 2.0 * 0.5 * 0.5


def test_r_drop_takes_any_divergence_and_a_generator() -> None:
    net, x = model(), numbers(4, 6)
    far = lambda a, b: (a - b).abs().max()  # noqa: E731
    losses = [
        F.r_drop(net, x, TARGET, divergence=far, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(*losses)


# ---- multi-sample dropout


def test_the_output_is_the_mean_over_masks() -> None:
    head, x = nn.Linear(6, 3), numbers(4, 6)
    layer = MultiSampleDropout(head, 0.5, samples=7)
    masked = F.dropout(x.expand(7, 4, 6), 0.5, key=2)
    torch.testing.assert_close(layer(x, key=2), torch.stack([head(m) for m in masked]).mean(0))
    assert not torch.equal(masked[0], masked[1])
    assert torch.equal(layer.eval()(x), head(x))
    assert "p=0.5, samples=7" in repr(layer)


def test_the_loss_is_the_mean_over_masks() -> None:
    head, x = nn.Linear(6, 3), numbers(4, 6)
    layer = MultiSampleDropout(head, 0.5, samples=7)
    loss = lambda y: nn.functional.cross_entropy(y, TARGET)  # noqa: E731
    masked = F.dropout(x.expand(7, 4, 6), 0.5, key=2)
    expected = torch.stack([loss(head(m)) for m in masked]).mean()
    torch.testing.assert_close(layer(x, loss, key=2), expected)
    assert torch.equal(layer.eval()(x, loss), loss(head(x)))


def test_gradients_and_compile() -> None:
    x = numbers(3, 4, dtype=torch.float64).requires_grad_()
    run = lambda x: F.multi_sample_dropout(x, torch.sin, 0.5, samples=3, key=1)  # noqa: E731
    assert torch.autograd.gradcheck(run, (x,))
    layer = MultiSampleDropout(nn.Linear(6, 3), 0.5)
    compiled = torch.compile(lambda x, k: layer(x, key=k), fullgraph=True, backend="aot_eager")
    y = numbers(4, 6)
    torch.testing.assert_close(compiled(y, torch.tensor(3)), layer(y, key=3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: F.r_drop(model().eval(), numbers(4, 6), TARGET), "training mode"),
        (lambda: F.r_drop(model(), numbers(4, 6), TARGET, alpha=-1.0), "alpha"),
        (lambda: F.r_drop(model(), numbers(4, 6), TARGET, divergence="kl"), "logits, values"),
        (lambda: MultiSampleDropout(nn.Identity(), samples=0), "samples"),
        (lambda: MultiSampleDropout(nn.Identity(), 1.5), "between 0 and 1"),
        (lambda: F.multi_sample_dropout(torch.ones(()), torch.sin), "batch axis"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        call()
