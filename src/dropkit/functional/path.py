"""Stochastic depth: residual branches are dropped as a whole, for a sample or for a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_choice, check_number, check_rate
from dropkit.functional.dropout import dropout
from dropkit.kernel import Key, Scaling
from dropkit.records import Shard

MODES = ("row", "batch")


def drop_path(
    x: Tensor,
    p: float | Tensor = 0.0,
    training: bool = True,
    scale_by_keep: bool = True,
    *,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Drop whole samples of a residual branch.

    .. math:: y_n = x_n \, m_n / (1 - p), \qquad P(m_n = 0) = p

    Args:
        x: (N, ...), what a branch adds to its trunk.
        scale_by_keep: if False, nothing is divided by 1 - p, in training or after it.
        p, training, key, offset, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1].

    >>> import torch, dropkit.functional as F
    >>> F.drop_path(torch.ones(4, 3), 0.5, key=8)
    tensor([[2., 2., 2.],
            [0., 0., 0.],
            [2., 2., 2.],
            [2., 2., 2.]])

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth"; by sample, as Larsson et al.
    2017, "FractalNet", and timm do it. Unlike timm's function it drops unless told that this is not
    training.
    """
    check_rate(p, x)
    if not training:
        return x
    scaling: Scaling = "inverted" if scale_by_keep else "classic"
    return stochastic_depth(x, p, key=key, offset=offset, generator=generator, scaling=scaling)


def stochastic_depth(
    x: Tensor,
    p: float | Tensor = 0.5,
    mode: str = "row",
    training: bool = True,
    *,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
    scaling: Scaling = "inverted",
) -> Tensor:
    """Drop whole samples of a residual branch, or the branch for the whole batch.

    Args:
        x: (N, ...), what a branch adds to its trunk.
        mode: "row", a draw for each sample, or "batch", one for all.
        p, training, key, offset, generator, scaling: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1]; another mode.

    >>> import torch, dropkit.functional as F
    >>> F.stochastic_depth(torch.ones(4), 0.5, "batch", key=2)
    tensor([2., 2., 2., 2.])

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", which is mode "batch" with
    `scaling="classic"`.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            stochastic_depth, (x,), x, p, mode, training,
            key=key, offset=offset, generator=generator, scaling=scaling,
        )  # fmt: skip
    check_choice("mode", mode, MODES)
    shared = range(x.dim()) if mode == "batch" else range(1, x.dim())
    if mode == "batch" and isinstance(offset, int):
        offset = 0  # there is one draw, wherever x begins
    return dropout(
        x, p, training, shared=tuple(shared), key=key, offset=offset, generator=generator,
        scaling=scaling,
    )  # fmt: skip


def drop_path_subset(
    x: Tensor,
    branch: Callable[[Tensor], Tensor],
    p: float = 0.5,
    training: bool = True,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Add a residual branch to its trunk, and compute it for none but the samples that keep it.

    .. math:: y_n = x_n + m_n \, f(x)_n \, N / k, \qquad k = \max(1, round((1 - p) N))

    Exactly k of N samples keep the branch, each subset as likely as another; so the expectation is
    exact, and the branch's time and memory shrink with the rate.

    Args:
        x: (N, ...), the trunk.
        branch: a function of some of its samples, of which the result has the same shape.
        p: the fraction dropped, a number from 0 to 1; at 1 the branch is not run.
        training: if False, x + branch(x).
        key, generator: as in `dropout`.

    Raises:
        SettingError: p outside [0, 1] or a tensor; x without samples along axis 0; a branch that
            changes the shape.

    >>> import torch, dropkit.functional as F
    >>> F.drop_path_subset(torch.zeros(6), lambda some: some + 1, 0.5, key=1)
    tensor([2., 0., 2., 0., 2., 0.])

    Source: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision",
    section 5. There k is rounded down; here it is the nearest.
    """
    check_number(p, "dropkit.functional.drop_path")
    check_rate(p)
    if not x.dim():
        raise SettingError("x: expected samples along axis 0; got a tensor without axes")
    count = x.shape[0]
    kept = kept_of(count, p) if training else count
    if not kept:
        return x
    if kept == count:
        return x + _checked(branch(x), x)
    key = kernel.resolve_key(key, generator, x)
    rows = kernel.subset(1, count, kept, key=key, device=x.device)[0]
    some = x.index_select(0, rows)
    added = _checked(branch(some), some).to(x.dtype)
    return x.index_add(0, rows, added, alpha=count / kept)


def kept_of(count: int, p: float) -> int:
    """How many of `count` a rate keeps: the nearest number, but at least one unless p is 1.

    >>> [kept_of(10, p) for p in (0.0, 0.26, 0.5, 0.99, 1.0)]
    [10, 7, 5, 1, 0]
    """
    if p == 1 or count == 0:
        return 0
    return max(1, int((1.0 - p) * count + 0.5))


def depth_rates(p: float, depth: int) -> tuple[float, ...]:
    """Rates that grow linearly with depth: 0 for the first of `depth` branches, p for the last.

    Raises:
        SettingError: p outside [0, 1], depth below 1.

    >>> depth_rates(0.2, 5)
    (0.0, 0.05, 0.1, 0.15000000000000002, 0.2)

    Source: Huang et al. 2016, section 3; as there, the deeper the likelier. They begin with p /
    depth; 0 for the first is what timm and torchvision's vision transformers do. One branch alone
    has the rate p.
    """
    check_rate(p)
    if depth < 1:
        raise SettingError(f"depth: expected a number of branches, 1 or more; got {depth}")
    return (p,) if depth == 1 else tuple(p * (block / (depth - 1)) for block in range(depth))


def _checked(y: Tensor, x: Tensor) -> Tensor:
    if y.shape != x.shape:
        raise SettingError(
            f"branch: expected a result of the shape that it was given, {_sizes(x.shape)}; got "
            f"{_sizes(y.shape)}"
        )
    return y


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape)
