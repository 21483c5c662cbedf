"""Layers for stochastic depth: residual branches and whole layers are skipped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dropkit import functional, kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import SCALINGS, check_choice, check_number, check_rate
from dropkit.functional.path import MODES
from dropkit.kernel import Key, Scaling
from dropkit.kernel.context import traced, transformed
from dropkit.nn.base import Layer


class DropPath(Layer):
    r"""Drop whole samples of a residual branch in training; takes what timm's layer takes.

    .. math:: y_n = x_n \, m_n / (1 - p), \qquad P(m_n = 0) = p

    Args:
        drop_prob: the fraction dropped, p; it is also the attribute `p`.
        scale_by_keep: if False, nothing is divided by 1 - p, in training or after it.

    Shape: (N, ...); the result has the input's. Called with `key=`, `offset=` or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: drop_prob outside [0, 1].
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.DropPath(0.5)(torch.ones(4, 2), key=8)
    tensor([[2., 2.],
            [0., 0.],
            [2., 2.],
            [2., 2.]])

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth"; by sample, as in timm.
    """

    law = functional.drop_path
    options = ("scale_by_keep",)
    scale_by_keep: bool = True

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__(drop_prob)
        self.scale_by_keep = scale_by_keep

    @property
    def drop_prob(self) -> float:
        """p, by the name that timm has for it."""
        return self.p

    @drop_prob.setter
    def drop_prob(self, p: float) -> None:
        self.p = p


class StochasticDepth(Layer):
    r"""Drop a residual branch by sample or by batch; takes what torchvision's layer takes.

    Args:
        p: the fraction dropped.
        mode: "row", a draw for each sample, or "batch", one for all.
        scaling: "inverted", or "classic": scale by 1 - p outside of training instead.

    Shape: (N, ...); the result has the input's. Called with `key=`, `offset=` or `generator=`: as
    `Dropout`.

    Raises:
        SettingError: p outside [0, 1]; another mode.
        RuntimeError: integers.

    >>> import torch
    >>> from dropkit import nn
    >>> nn.StochasticDepth(0.5, "batch")(torch.ones(4), key=2)
    tensor([2., 2., 2., 2.])

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth": mode "batch" with
    `scaling="classic"`.
    """

    law = functional.stochastic_depth
    options = ("mode", "scaling")
    mode: str = "row"
    scaling: Scaling = "inverted"

    def __init__(self, p: float = 0.5, mode: str = "row", *, scaling: Scaling = "inverted") -> None:
        super().__init__(p)
        check_choice("mode", mode, MODES)
        check_choice("scaling", scaling, SCALINGS)
        self.mode, self.scaling = mode, scaling


class StochasticResidual(nn.Module):
    r"""A residual block whose branch is dropped: x + drop_path(branch(x)).

    Args:
        branch: a module whose result has its input's shape.
        p: the fraction of the samples for which it is dropped.
        subset: run the branch only for the samples that keep it, a number that is the same each
            time: `functional.drop_path_subset`.

    Shape: (N, ...); the result has the input's. Called with `key=` or `generator=`: as `Dropout`.

    Raises:
        SettingError: p outside [0, 1]; a branch that changes the shape, with `subset`.

    >>> import torch
    >>> from dropkit import nn
    >>> block = nn.StochasticResidual(torch.nn.Identity(), 0.5, subset=True)
    >>> block(torch.ones(6), key=1)
    tensor([3., 1., 3., 1., 3., 1.])

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth"; Oquab et al. 2023, "DINOv2:
    Learning Robust Visual Features without Supervision", section 5.
    """

    def __init__(self, branch: nn.Module, p: float = 0.0, *, subset: bool = False) -> None:
        super().__init__()
        self.branch, self.path, self.subset = branch, DropPath(p), subset

    def forward(
        self, x: Tensor, *, key: Key | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """x and what the branch adds to it."""
        if self.subset:
            return functional.drop_path_subset(
                x, self.branch, self.path.p, self.training, key=key, generator=generator
            )
        added: Tensor = self.path(self.branch(x), key=key, generator=generator)
        return x + added

    def extra_repr(self) -> str:
        """Whether the branch runs for a subset."""
        return "subset=True" if self.subset else ""


class LayerDrop(nn.ModuleList):
    r"""Layers in a row, each skipped with probability p in training.

    A list of modules, with the keys of `torch.nn.ModuleList` and `torch.nn.Sequential` in its
    state. Called, it runs those that are kept, each on the result of the one before. A layer's
    result has to be fit to be its input, and nothing is scaled: layers have residual connections of
    their own.

    Args:
        layers: modules, of which the first argument and the result are alike.
        p: the fraction skipped.

    Called with further arguments, it hands them to each layer; `key=` and `generator=` are its own.
    Under torch.compile, and with a fake or a torch.func tensor, every layer is run, and the results
    of the skipped ones are not used: the values are the same, the time is not saved, and their
    gradients are 0 and not None.

    Raises:
        SettingError: p outside [0, 1].

    >>> import torch
    >>> from dropkit import nn
    >>> stack = nn.LayerDrop((torch.nn.Linear(4, 4) for _ in range(6)), p=0.5)
    >>> stack.kept(key=1)
    (False, False, True, True, True, False)
    >>> stack(torch.ones(2, 4), key=1).shape
    torch.Size([2, 4])

    Source: Fan, Grave & Joulin 2020, "Reducing Transformer Depth on Demand with Structured
    Dropout". fairseq's list skips when it is iterated over; this one when it is called, so that
    walking over it finds every layer.
    """

    def __init__(self, layers: Iterable[nn.Module] = (), p: float = 0.2) -> None:
        super().__init__(layers)
        check_number(p)
        check_rate(p)
        self.p = p

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(found, LayerDrop):  # a slice
            found.p = self.p
        return found

    def forward(
        self,
        x: Any,
        *args: Any,
        key: Key | None = None,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the layers that are kept make of x."""
        if self.training and self.p and (traced(_tensor(x)) or transformed()):
            return self._select(x, self._keep(key, generator), *args, **kwargs)
        for layer, kept in zip(self, self.kept(key=key, generator=generator), strict=True):
            if kept:
                x = layer(x, *args, **kwargs)
        return x

    def kept(
        self, *, key: Key | None = None, generator: torch.Generator | None = None
    ) -> tuple[bool, ...]:
        """Which layers a pass runs; drawn afresh, for loops of one's own."""
        if not self.training or self.p == 0:
            return (True,) * len(self)
        return tuple(self._keep(key, generator).tolist())

    def extra_repr(self) -> str:
        """The rate."""
        return f"p={self.p}"

    def _keep(self, key: Key | None, generator: torch.Generator | None) -> Tensor:
        """Drawn on the CPU, since Python has to know."""
        cpu = torch.device("cpu")
        check_rate(self.p)
        drawn = kernel.resolve_key(key, generator, cpu)
        return kernel.keep((len(self),), self.p, key=drawn, device=cpu)

    def _select(self, x: Any, keep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(x, Tensor):
            raise SettingError(
                "x: expected a tensor, since under torch.compile and torch.func all layers are run "
                f"and their results selected; got {type(x).__name__}. Try torch.compile of each "
                "layer"
            )
        y: Tensor = x
        for number, layer in enumerate(self):
            y = torch.where(keep[number].to(x.device), layer(y, *args, **kwargs), y)
        return y


def _tensor(x: object) -> Tensor | None:
    return x if isinstance(x, Tensor) else None
