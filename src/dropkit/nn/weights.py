"""DropConnect as layers, and of any module's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_number, check_rate
from dropkit.functional.weights import drop_connect, dropped
from dropkit.kernel import Key


class DropConnectLinear(nn.Linear):
    r"""torch.nn.Linear each of whose weights is dropped with probability p, in training.

    .. math:: y = x \, (W \odot M)^T / (1 - p) + b

    One mask serves a batch. The parameters stay as they are; in eval mode it is torch.nn.Linear,
    whose state_dict it loads and saves.

    Args:
        in_features, out_features, bias, device, dtype: as in torch.nn.Linear.
        p: the fraction of weights dropped, from 0 to 1.
        drop_bias: whether elements of the bias are dropped too.

    Shape: (..., in_features) to (..., out_features).

    Raises:
        SettingError: p outside [0, 1].

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.DropConnectLinear(3, 2, p=0.5)
    >>> layer(torch.ones(4, 3)).shape
    torch.Size([4, 2])

    Source: Wan et al. 2013, "Regularization of Neural Networks using DropConnect"; where we
    differ stands at `dropkit.functional.drop_connect`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        p: float = 0.5,
        drop_bias: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        check_number(p)
        check_rate(p)
        self.p = p
        self.drop_bias = drop_bias

    def forward(
        self,
        input: Tensor,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The outputs, with dropped weights in training."""
        return drop_connect(
            input, self.weight, self.bias, self.p, self.training,
            drop_bias=self.drop_bias, key=key, generator=generator,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The sizes, and the rate."""
        return f"{super().extra_repr()}, p={self.p}"


class _DropConnectConv(nn.modules.conv._ConvNd):
    """A convolution with dropped weights."""

    p: float
    drop_bias: bool

    def forward(
        self,
        input: Tensor,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The outputs, with dropped weights in training."""
        weights = dropped(
            self.weight, self.bias, self.p, self.training, self.drop_bias, key, generator
        )
        result: Tensor = self._conv_forward(input, *weights)
        return result

    def extra_repr(self) -> str:
        """The sizes, and the rate."""
        return f"{super().extra_repr()}, p={self.p}"  # type: ignore[no-untyped-call]

    def _set_rate(self, p: float, drop_bias: bool) -> None:
        check_number(p)
        check_rate(p)
        self.p = p
        self.drop_bias = drop_bias


class DropConnectConv1d(_DropConnectConv, nn.Conv1d):
    """torch.nn.Conv1d each of whose weights is dropped with probability p, in training.

    Args:
        settings: those of torch.nn.Conv1d.
        p, drop_bias: as in `DropConnectLinear`, where all else is said.

    >>> import torch, dropkit.nn
    >>> dropkit.nn.DropConnectConv1d(3, 4, 5, p=0.2)(torch.ones(2, 3, 8)).shape
    torch.Size([2, 4, 4])
    """

    def __init__(
        self, *settings: Any, p: float = 0.5, drop_bias: bool = False, **named: Any
    ) -> None:
        super().__init__(*settings, **named)
        self._set_rate(p, drop_bias)


class DropConnectConv2d(_DropConnectConv, nn.Conv2d):
    """torch.nn.Conv2d each of whose weights is dropped with probability p, in training.

    Args:
        settings: those of torch.nn.Conv2d.
        p, drop_bias: as in `DropConnectLinear`, where all else is said.

    >>> import torch, dropkit.nn
    >>> dropkit.nn.DropConnectConv2d(3, 4, 3, padding=1, p=0.2)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self, *settings: Any, p: float = 0.5, drop_bias: bool = False, **named: Any
    ) -> None:
        super().__init__(*settings, **named)
        self._set_rate(p, drop_bias)


class DropConnectConv3d(_DropConnectConv, nn.Conv3d):
    """torch.nn.Conv3d each of whose weights is dropped with probability p, in training.

    Args:
        settings: those of torch.nn.Conv3d.
        p, drop_bias: as in `DropConnectLinear`, where all else is said.

    >>> import torch, dropkit.nn
    >>> dropkit.nn.DropConnectConv3d(3, 4, 2, p=0.2)(torch.ones(2, 3, 4, 4, 4)).shape
    torch.Size([2, 4, 3, 3, 3])
    """

    def __init__(
        self, *settings: Any, p: float = 0.5, drop_bias: bool = False, **named: Any
    ) -> None:
        super().__init__(*settings, **named)
        self._set_rate(p, drop_bias)


class WeightDrop(nn.Module):
    r"""Any module, called in training with some of its parameters dropped.

    .. math:: y = module(x;\, W \odot M / (1 - p))

    The parameters keep their names, their values and their places in an optimizer: dropped copies
    stand in for them during the call (torch.func.functional_call). A tied parameter is dropped in
    all of its places, by one mask. In eval mode the module is
    called as it is. For an LSTM or a GRU, `VariationalLSTM(weight_dropout=...)` does it without
    a change of the module even for the time of the call.

    Args:
        module: what is called.
        names: of its parameters, as named_parameters has them: "weight", "0.weight".
        p: the fraction dropped, from 0 to 1.

    Shape: those of the module. The masks' keys are drawn; `dropkit.functional.keyed` fixes them.

    Raises:
        SettingError: p outside [0, 1]; a name that is not a parameter's.

    >>> import torch, dropkit.nn
    >>> layer = dropkit.nn.WeightDrop(torch.nn.Linear(3, 2), ["weight"], p=0.5)
    >>> [name for name, _ in layer.named_parameters()]
    ['module.weight', 'module.bias']
    >>> layer(torch.ones(4, 3)).shape
    torch.Size([4, 2])

    Source: Merity, Keskar & Socher 2018, "Regularizing and Optimizing LSTM Language Models"; their
    code renames the parameter to weight_raw, and leaves the dropped weights in the module.
    """

    def __init__(self, module: nn.Module, names: str | Sequence[str], p: float = 0.5) -> None:
        super().__init__()
        check_number(p)
        check_rate(p)
        names = (names,) if isinstance(names, str) else tuple(names)
        there = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        for name in names:
            if name not in there:
                raise SettingError(
                    f"names: expected parameters of the module, among {', '.join(there)}; got "
                    f"{name!r}"
                )
        self.module = module
        self.names = names
        self.p = p

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives with dropped weights; without a change in eval mode."""
        check_rate(self.p)
        if not self.training or self.p == 0:
            return self.module(*args, **kwargs)
        return functional_call(self.module, self._dropped(), args, kwargs)

    def _dropped(self) -> dict[str, Tensor]:
        weights = [self.module.get_parameter(name) for name in self.names]
        key = kernel.resolve_key(None, None, weights[0]) if weights else 0
        dropped: dict[Tensor, Tensor] = {}
        start = 0
        for weight in dict.fromkeys(weights):  # one that is tied has several names
            dropped[weight] = kernel.dropout(weight, self.p, key=key, offset=start)
            start += weight.numel()  # its own part of the stream
        return {name: dropped[of] for name, of in zip(self.names, weights, strict=True)}

    def extra_repr(self) -> str:
        """The names, and the rate."""
        return f"names={list(self.names)}, p={self.p}"


def weight_drop(module: nn.Module, names: str | Sequence[str], p: float = 0.5) -> WeightDrop:
    """`WeightDrop(module, names, p)`, under the name that it has elsewhere.

    >>> import torch, dropkit.nn
    >>> dropkit.nn.weight_drop(torch.nn.Linear(3, 2), "weight", 0.2).p
    0.2
    """
    return WeightDrop(module, names, p)
