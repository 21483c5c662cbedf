"""Recurrent networks whose masks hold for a whole sequence, and whose weights can be dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_choice, check_number, check_rate
from dropkit.functional.locked import locked_dropout
from dropkit.kernel import Key, split
from dropkit.nn import stepping
from dropkit.nn.stepping import State, Weights

Sequences = TypeVar("Sequences", Tensor, PackedSequence)

_MASKS = ("sample", "batch")


class _Variational(nn.RNNBase):
    """What the LSTM and the GRU share: where masks go, and which kernel runs."""

    _fused: ClassVar[Any]  # torch.lstm or torch.gru
    _step: ClassVar[Any]  # a stepping.Step
    input_dropout: float
    recurrent_dropout: float
    output_dropout: float
    weight_dropout: float
    recurrent_mask: str

    def _set_rates(
        self,
        input_dropout: float,
        recurrent_dropout: float,
        output_dropout: float,
        weight_dropout: float,
        recurrent_mask: str,
    ) -> None:
        check_choice("recurrent_mask", recurrent_mask, _MASKS)
        self.input_dropout = input_dropout
        self.recurrent_dropout = recurrent_dropout
        self.output_dropout = output_dropout
        self.weight_dropout = weight_dropout
        self.recurrent_mask = recurrent_mask
        self._rates()

    def _rates(self) -> tuple[float, ...]:
        rates = (
            self.input_dropout, self.recurrent_dropout, self.output_dropout, self.weight_dropout,
            self.dropout,
        )  # fmt: skip
        for rate in rates:
            check_number(rate)
            check_rate(rate)
        return rates

    @property
    def _drops(self) -> bool:
        return self.training and any(self._rates())

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def extra_repr(self) -> str:
        rates = ("input_dropout", "recurrent_dropout", "output_dropout", "weight_dropout")
        shown = [f"{name}={getattr(self, name)}" for name in rates if getattr(self, name)]
        if self.recurrent_mask != "sample":
            shown.append(f"recurrent_mask={self.recurrent_mask!r}")
        return ", ".join([super().extra_repr(), *shown])

    def _run(self, x: Sequences, state: State, key: Key) -> tuple[Sequences, State]:
        """All layers over time-first or packed data."""
        layers, cells = self.num_layers, self.num_layers * self._directions
        own, between, steps, drops = _grouped(split(key, 2 + layers + 2 * cells), 2, layers, cells)
        stepped = bool(self.recurrent_dropout) and self.recurrent_mask == "sample"
        weights = self._dropped(drops, None if stepped else steps)
        each = 1 if stepped or self.dropout else layers
        x = locked_dropout(x, self.input_dropout, key=own[0])
        states: list[State] = []
        for first in range(0, layers, each):
            run = slice(first * self._directions, (first + each) * self._directions)
            if first:
                x = locked_dropout(x, self.dropout, key=between[first])
            part = tuple(s[run] for s in state)
            if stepped:
                x, last = self._stepped(x, part, weights[run], steps[run])
            else:
                x, last = self._at_once(x, part, weights[run], each)
            states.append(last)
        x = locked_dropout(x, self.output_dropout, key=own[1])
        return x, tuple(torch.cat(parts) for parts in zip(*states, strict=True))

    def _dropped(self, drops: Sequence[Key], columns: Sequence[Key] | None) -> list[list[Tensor]]:
        """The weights of each layer and direction for one call; those of the module stay."""
        dropped = []
        for number, names in enumerate(self._all_weights):
            weights = [getattr(self, name) for name in names]
            hidden = weights[1]
            if self.weight_dropout:
                hidden = kernel.dropout(hidden, self.weight_dropout, key=drops[number])
            if self.recurrent_dropout and columns is not None:
                hidden = kernel.dropout(
                    hidden, self.recurrent_dropout, key=columns[number], shared=(0,)
                )
            dropped.append([weights[0], hidden, *weights[2:]])
        return dropped

    def _at_once(
        self, x: Sequences, state: State, weights: Sequence[Sequence[Tensor]], layers: int
    ) -> tuple[Sequences, State]:
        """Some layers in torch's own kernel."""
        flat = _contiguous([weight for cell in weights for weight in cell])
        hidden = state if len(state) > 1 else state[0]
        settings = (flat, self.bias, layers, 0.0, True, self.bidirectional)
        fused = type(self)._fused
        if isinstance(x, PackedSequence):
            data, *last = fused(x.data, x.batch_sizes, hidden, *settings)
            return _repacked(x, data), tuple(last)
        data, *last = fused(x, hidden, *settings, False)
        return data, tuple(last)

    def _stepped(
        self,
        x: Sequences,
        state: State,
        weights: Sequence[Sequence[Tensor]],
        keys: Sequence[Key],
    ) -> tuple[Sequences, State]:
        """One layer, step by step."""
        data: Any = x
        counts = None
        if isinstance(x, PackedSequence):
            data, counts = x.data, x.batch_sizes.tolist()
        outputs: list[Tensor] = []
        states: list[State] = []
        for direction in range(self._directions):
            first = tuple(part[direction] for part in state)
            mask = kernel.dropout(
                torch.ones_like(first[0]), self.recurrent_dropout, key=keys[direction]
            )
            if isinstance(x, PackedSequence) and x.sorted_indices is not None:
                mask = mask.index_select(0, x.sorted_indices)
            cell = self._cell(weights[direction])
            output, last = stepping.run(
                type(self)._step, data, counts, first, cell, mask, direction == 1
            )
            outputs.append(output)
            states.append(last)
        joined = torch.cat(outputs, -1)
        ends = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
        return (_repacked(x, joined) if isinstance(x, PackedSequence) else joined), ends

    def _cell(self, weights: Sequence[Tensor]) -> Weights:
        bias_ih, bias_hh = weights[2:4] if self.bias else (None, None)
        projection = weights[-1] if self.proj_size else None
        return Weights(weights[0], weights[1], bias_ih, bias_hh, projection)

    def _call(
        self,
        x: Tensor | PackedSequence,
        state: State | None,
        key: Key | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """torch's call in training mode: any layout in, the same layout out."""
        if isinstance(x, PackedSequence):
            ready = self._ready(x.data, x.batch_sizes, state)
            ready = tuple(_permuted(part, x.sorted_indices) for part in ready)
            packed, last = self._run(x, ready, kernel.resolve_key(key, generator, x.data))
            return packed, tuple(_permuted(part, x.unsorted_indices) for part in last)
        if x.dim() not in (2, 3):
            raise SettingError(
                "input: expected 2 dimensions (time, features), or 3 with a batch; got shape "
                f"{tuple(x.shape)}"
            )
        batched = x.dim() == 3
        if not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
            state = None if state is None else tuple(part.unsqueeze(1) for part in state)
        ready = self._ready(x, None, state)
        turned = x.transpose(0, 1) if self.batch_first else x
        y, last = self._run(turned, ready, kernel.resolve_key(key, generator, x))
        if not batched:
            return y.squeeze(1), tuple(part.squeeze(1) for part in last)
        return (y.transpose(0, 1) if self.batch_first else y), last

    def _ready(self, x: Tensor, sizes: Tensor | None, state: State | None) -> State:
        """The first state, of zeros if there is none; torch's own checks of both."""
        if state is None:
            count = int(sizes[0]) if sizes is not None else x.shape[0 if self.batch_first else 1]
            rows = self.num_layers * self._directions
            state = tuple(x.new_zeros(rows, count, width) for width in self._widths)
        hidden: Any = state if len(state) > 1 else state[0]
        self.check_forward_args(x, hidden, sizes)
        return state

    @property
    def _widths(self) -> tuple[int, ...]:
        """How many features each part of the state has."""
        return (self.hidden_size,)


class VariationalLSTM(_Variational, nn.LSTM):
    r"""torch.nn.LSTM with masks that hold for a whole sequence, and DropConnect of its weights.

    .. math::
        x_t \to x_t \odot m_x, \qquad h_{t-1} \to h_{t-1} \odot m_h \;\text{(where } W_{hh}
        \text{ sees it)}, \qquad W_{hh} \to W_{hh} \odot M, \qquad y_t \to y_t \odot m_y

    Each mask is divided by 1 - p. In eval mode it is torch.nn.LSTM bit for bit, and it loads and
    saves the same state_dict. Weights are dropped out of place, so the parameters stay as they
    are. torch's fused kernel runs, layer by layer if `dropout` is set, unless recurrent masks are
    drawn for each sample: these need a loop over time in Python.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, proj_size, device,
            dtype: as in torch.nn.LSTM.
        dropout: the rate between layers; one mask for all time steps, unlike torch's.
        input_dropout: the rate on the features of the input.
        recurrent_dropout: the rate on h, where the hidden-to-hidden weights see it; one mask for
            all gates and time steps, and another for each layer and direction.
        output_dropout: the rate on the features of the output; the states are not dropped.
        weight_dropout: the rate on the hidden-to-hidden weights; one mask for a call.
        recurrent_mask: "sample", a recurrent mask for each sequence; or "batch", one for all of
            them, which is the same as dropping columns of the weights and keeps the fused kernel.

    Shape: as in torch.nn.LSTM; a packed sequence, or one without a batch, too. `forward(input,
    hx=None, *, key=None, generator=None)`.

    Raises:
        SettingError: a rate outside [0, 1]; another recurrent_mask.

    >>> import torch, dropkit.nn
    >>> lstm = dropkit.nn.VariationalLSTM(3, 4, input_dropout=0.5, weight_dropout=0.5)
    >>> y, (h, c) = lstm(torch.ones(7, 2, 3))
    >>> y.shape
    torch.Size([7, 2, 4])
    >>> torch.nn.LSTM(3, 4).load_state_dict(lstm.state_dict())
    <All keys matched successfully>

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent
    Neural Networks" (with its tied weights: the gates share a mask); Merity, Keskar & Socher 2018,
    "Regularizing and Optimizing LSTM Language Models" (AWD-LSTM) for weight_dropout, which there
    writes the dropped weights into the module. Masks follow a sequence through packing.
    """

    _fused = staticmethod(torch.lstm)
    _step = staticmethod(stepping.lstm_step)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        output_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        recurrent_mask: str = "sample",
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype,
        )  # fmt: skip
        self._set_rates(
            input_dropout, recurrent_dropout, output_dropout, weight_dropout, recurrent_mask
        )

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """The output, and the last (h, c)."""
        if not self._drops:
            return super().forward(input, hx)
        y, (h, c) = self._call(input, hx, key, generator)
        return y, (h, c)

    @property
    def _widths(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size


class VariationalGRU(_Variational, nn.GRU):
    r"""torch.nn.GRU with masks that hold for a whole sequence, and DropConnect of its weights.

    .. math:: n_t = \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} (h_{t-1} \odot m_h) + b_{hn}))

    and so for the gates; where h is carried over to the next step, it is not dropped. All else is
    said at `VariationalLSTM`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype: as
            in torch.nn.GRU.
        dropout, input_dropout, recurrent_dropout, output_dropout, weight_dropout, recurrent_mask:
            as in `VariationalLSTM`.

    Shape: as in torch.nn.GRU.

    Raises:
        SettingError: a rate outside [0, 1]; another recurrent_mask.

    >>> import torch, dropkit.nn
    >>> gru = dropkit.nn.VariationalGRU(3, 4, recurrent_dropout=0.5)
    >>> y, h = gru(torch.ones(7, 2, 3), key=1)
    >>> torch.equal(y[-1], h[0])
    True

    Source: Gal & Ghahramani 2016; Merity, Keskar & Socher 2018, who drop an LSTM's weights.
    """

    _fused = staticmethod(torch.gru)
    _step = staticmethod(stepping.gru_step)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        output_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        recurrent_mask: str = "sample",
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._set_rates(
            input_dropout, recurrent_dropout, output_dropout, weight_dropout, recurrent_mask
        )

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        key: Key | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """The output, and the last h."""
        if not self._drops:
            return super().forward(input, hx)
        y, (h,) = self._call(input, None if hx is None else (hx,), key, generator)
        return y, h


def _grouped(keys: Sequence[Key], *counts: int) -> list[Sequence[Key]]:
    """Keys by what they are for; as many groups of the last size as there are."""
    groups, start = [], 0
    for count in (*counts, counts[-1]):
        groups.append(keys[start : start + count])
        start += count
    return groups


def _permuted(part: Tensor, order: Tensor | None) -> Tensor:
    return part if order is None else part.index_select(1, order)


def _repacked(like: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def _contiguous(weights: list[Tensor]) -> list[Tensor]:
    """On CUDA, the weights as cuDNN wants them, so that it copies nothing and does not warn."""
    return chunk(weights) if weights[0].is_cuda else weights


def chunk(weights: list[Tensor]) -> list[Tensor]:
    """The weights as views of one tensor: matrices first, then biases, each in torch's order."""
    order = sorted(range(len(weights)), key=lambda n: weights[n].dim() == 1)
    whole = torch.cat([weights[n].reshape(-1) for n in order])
    views = whole.split_with_sizes([weights[n].numel() for n in order])
    placed = dict(zip(order, views, strict=True))
    return [placed[n].view(weight.shape) for n, weight in enumerate(weights)]
