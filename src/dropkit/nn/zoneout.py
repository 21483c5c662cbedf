"""Zoneout as recurrent cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_number, check_rate
from dropkit.functional.zoneout import zoneout
from dropkit.kernel import Key, split


def _zoned(
    new: Sequence[Tensor],
    old: Sequence[Tensor],
    rates: Sequence[float],
    training: bool,
    key: Key | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, ...]:
    """Zoneout of each part of a state, with a stream of its own."""
    keys: Sequence[Key | None] = [None] * len(new)
    if training and any(rates):
        keys = split(kernel.resolve_key(key, generator, new[0]), len(new))
    return tuple(
        zoneout(fresh, stale, rate, training, key=own)
        for fresh, stale, rate, own in zip(new, old, rates, keys, strict=True)
    )


def _check(*rates: float) -> None:
    for rate in rates:
        check_number(rate)
        check_rate(rate)


class Zoneout(nn.Module):
    r"""A recurrent cell whose units keep their previous value with probability p.

    .. math:: h_t = m_t \odot cell(x_t, h_{t-1}) + (1 - m_t) \odot h_{t-1}

    In eval mode, the expectation.

    Args:
        cell: a module called as cell(x, state), which gives the next state: a tensor, or a
            tuple of tensors. Without a state it starts from zeros, as torch's cells do.
        p: the fraction of units that keep their value; or one for each part of the state.

    Shape: those of the cell. `forward(x, state=None, *, key=None, generator=None)`.

    Raises:
        SettingError: a rate outside [0, 1]; as many rates as the state has no parts.

    >>> import torch, dropkit.nn
    >>> cell = dropkit.nn.Zoneout(torch.nn.RNNCell(3, 4), p=0.5)
    >>> state = torch.zeros(2, 4)
    >>> for x in torch.ones(5, 2, 3):
    ...     state = cell(x, state)
    >>> state.shape
    torch.Size([2, 4])

    Source: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
    Activations".
    """

    def __init__(self, cell: nn.Module, p: float | Sequence[float] = 0.1) -> None:
        super().__init__()
        self.cell = cell
        self.p = tuple(p) if isinstance(p, Sequence) else p
        _check(*self.p if isinstance(self.p, tuple) else (self.p,))

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """The next state."""
        new = self.cell(x, state)
        whole = isinstance(new, Tensor)
        parts = (new,) if whole else tuple(new)
        rates = self.p if isinstance(self.p, tuple) else (self.p,) * len(parts)
        if len(rates) != len(parts):
            raise SettingError(
                f"p: expected a rate, or one for each of the {len(parts)} parts of the cell's "
                f"state; got {len(rates)}"
            )
        old = [torch.zeros_like(part) for part in parts]
        if state is not None:
            old = [state] if whole else list(state)
        zoned = _zoned(parts, old, rates, self.training, key, generator)
        return zoned[0] if whole else zoned

    def extra_repr(self) -> str:
        """The rates."""
        return f"p={self.p}"


class ZoneoutLSTMCell(nn.LSTMCell):
    r"""torch.nn.LSTMCell with zoneout of the cell and of the hidden state.

    .. math::
        c_t = m_c \odot \tilde c_t + (1 - m_c) \odot c_{t-1}, \qquad
        h_t = m_h \odot \tilde h_t + (1 - m_h) \odot h_{t-1}

    where (h~, c~) is what torch.nn.LSTMCell gives: h~ is made of c~, not of c. In eval mode, the
    expectations. It loads and saves the state_dict of torch.nn.LSTMCell.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.LSTMCell.
        cell_zoneout: the fraction of units of c that keep their value; the paper takes 0.5.
        hidden_zoneout: the same for h; the paper takes 0.05.

    Shape: as in torch.nn.LSTMCell. `forward(input, hx=None, *, key=None, generator=None)`.

    Raises:
        SettingError: a rate outside [0, 1].

    >>> import torch, dropkit.nn
    >>> cell = dropkit.nn.ZoneoutLSTMCell(3, 4, cell_zoneout=1.0, hidden_zoneout=1.0)
    >>> h, c = cell(torch.ones(2, 3), (torch.ones(2, 4), torch.ones(2, 4)))
    >>> bool((h == 1).all() and (c == 1).all())
    True

    Source: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
    Activations".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        cell_zoneout: float = 0.5,
        hidden_zoneout: float = 0.05,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        _check(cell_zoneout, hidden_zoneout)
        self.cell_zoneout = cell_zoneout
        self.hidden_zoneout = hidden_zoneout

    def forward(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The next (h, c)."""
        new = super().forward(input, hx)
        old = hx if hx is not None else tuple(torch.zeros_like(part) for part in new)
        rates = (self.hidden_zoneout, self.cell_zoneout)
        h, c = _zoned(new, old, rates, self.training, key, generator)
        return h, c

    def extra_repr(self) -> str:
        """The cell's sizes, and the rates."""
        rates = f"cell_zoneout={self.cell_zoneout}, hidden_zoneout={self.hidden_zoneout}"
        return f"{super().extra_repr()}, {rates}"


class ZoneoutGRUCell(nn.GRUCell):
    r"""torch.nn.GRUCell with zoneout of its state.

    .. math:: h_t = m \odot \tilde h_t + (1 - m) \odot h_{t-1}

    In eval mode, the expectation. It loads and saves the state_dict of torch.nn.GRUCell.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.GRUCell.
        p: the fraction of units that keep their value.

    Shape: as in torch.nn.GRUCell. `forward(input, hx=None, *, key=None, generator=None)`.

    Raises:
        SettingError: a rate outside [0, 1].

    >>> import torch, dropkit.nn
    >>> cell = dropkit.nn.ZoneoutGRUCell(3, 4, p=0.2)
    >>> cell(torch.ones(2, 3)).shape
    torch.Size([2, 4])

    Source: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
    Activations".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        p: float = 0.1,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        _check(p)
        self.p = p

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The next h."""
        new = super().forward(input, hx)
        old = torch.zeros_like(new) if hx is None else hx
        return zoneout(new, old, self.p, self.training, key=key, generator=generator)

    def extra_repr(self) -> str:
        """The cell's sizes, and the rate."""
        return f"{super().extra_repr()}, p={self.p}"
