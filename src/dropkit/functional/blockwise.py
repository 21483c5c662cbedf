"""Attention with dropout in blocks of rows: weights and mask are made again, and never whole.

A block is small enough to stay in a cache while it is worked on; so this is faster, too, than the
plain formula, which walks through memory for each of its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from dropkit.kernel import Key, autograd, dispatch
from dropkit.kernel.context import rewritten, traced
from dropkit.kernel.indexing import indexing, mask_strides
from dropkit.kernel.mask import Mask, inverted
from dropkit.records import Shard

_BLOCK = 1 << 16
"""Weights in a block, for each thread: 256 KiB in float32, a part of a second-level cache."""

_BLOCK_ELSEWHERE = 1 << 24
"""On other devices launches cost more than trips to memory."""

_FEWEST_ROWS = 16
"""With fewer the products of matrices lose more than a cache gains."""

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]
Formula = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Law(NamedTuple):
    """What is asked for, apart from the tensors."""

    rate: float
    causal: bool
    scale: float
    key: Key
    offset: int | Shard


class _Indexed(NamedTuple):
    """A law for tensors of four axes: batch, head, row, column."""

    law: Law
    strides: tuple[int, ...]
    base: int
    formula: Formula
    has_heads: bool
    """Whether there are heads in a batch, and not a row of matrices."""


class _Place(NamedTuple):
    """Where a block is: the number of its part of the batch, and what it has of each axis."""

    number: int
    batch: slice
    heads: slice
    rows: slice
    columns: slice
    """Those after it are masked for all of its rows."""


class _Block(NamedTuple):
    """Rows of some heads, as matrices, and where to work on them."""

    place: _Place
    room: _Room
    query: Tensor
    key: Tensor
    value: Tensor


class _Room:
    """Memory for a block, which the next of its sizes uses again."""

    def __init__(self, sizes: Sequence[int], like: Tensor, wide: torch.dtype) -> None:
        self._sizes, self._like, self._wide = sizes, like, wide

    def _new(self, *sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=self._wide, device=self._like.device)

    @cached_property
    def weights(self) -> Tensor:
        """(heads, rows, columns)."""
        return self._new(*self._sizes)

    @cached_property
    def dropped(self) -> Tensor:
        """(heads, rows, columns)."""
        return self._new(*self._sizes)

    @cached_property
    def slope(self) -> Tensor:
        """(heads, rows, columns)."""
        return self._new(*self._sizes)

    @cached_property
    def _products(self) -> dict[tuple[int, int], Tensor]:
        return {}

    def product(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        """A product of matrices, until the next of its size."""
        size = left.size(1), right.size(2)
        out = self._products.get(size)
        if out is None:
            out = self._products[size] = self._new(self._sizes[0], *size)
        return multiply(left, right, out, scale)


def multiply(left: Tensor, right: Tensor, out: Tensor, scale: float = 1.0) -> Tensor:
    """A product of matrices, times `scale`, into `out`."""
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def attention(inputs: Inputs, law: Law, formula: Formula) -> Tensor | None:
    """What `formula` computes; None where this way cannot: no weights, or a scattered shard."""
    *parts, mask = inputs
    batch = torch.broadcast_shapes(*(part.shape[:-2] for part in parts))  # type: ignore[no-untyped-call]
    sizes = (*batch, parts[0].size(-2), parts[1].size(-2))
    place = _place(sizes, law.offset)
    if math.prod(sizes) == 0 or place is None:
        return None
    four = [_four(part.expand(*batch, *part.shape[-2:])) for part in parts]
    if mask is not None:
        mask = _four(mask.expand(sizes) if len(sizes) > 4 else mask)
    out: Tensor = _Blockwise.apply(*four, mask, _Indexed(law, *place, formula, len(sizes) == 4))  # type: ignore[no-untyped-call]
    return out.reshape(*batch, *out.shape[-2:])


def _four(x: Tensor) -> Tensor:
    """x with four axes."""
    return x.flatten(0, -4) if x.dim() > 4 else x[(None,) * (4 - x.dim())]


def _place(sizes: Sequence[int], offset: int | Shard) -> tuple[tuple[int, ...], int] | None:
    """The mask strides of the weights as four axes, and the index of the first."""
    found, base = indexing(sizes, (), offset)
    strides = mask_strides(sizes, frozenset()) if found is None else found
    while len(sizes) > 4:
        if strides[0] != strides[1] * sizes[1]:
            return None
        sizes, strides = (sizes[0] * sizes[1], *sizes[2:]), strides[1:]
    return (0,) * (4 - len(sizes)) + strides, base


class _Blockwise(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, law: _Indexed
    ) -> Tensor:
        ctx.law = law
        batch, heads, rows, _ = query.shape
        if law.has_heads:  # after rows in memory, as torch's own has it
            out = query.new_empty(batch, rows, heads, value.size(-1)).transpose(1, 2)
        else:
            out = query.new_empty(batch, heads, rows, value.size(-1))
        work = _Work((query, key, value, mask), law)
        kept = work.small_weights() if any(ctx.needs_input_grad) else None
        ctx.save_for_backward(query, key, value, mask, kept)
        results, whole = work.pieces(out), work.pieces(kept)
        for block in work.blocks():
            room = block.room
            weights = work.weights(
                block, work.matrices(whole, block.place) if whole else room.weights
            )
            dropped = work.drop(block, weights, room.dropped if whole else weights)
            work.put(results, block, room.product(dropped, block.value))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        needed = ctx.needs_input_grad[:4]
        law: _Indexed = ctx.law
        *inputs, kept = ctx.saved_tensors
        if torch.is_grad_enabled() or rewritten(grad):
            return *_twice(inputs, grad, needed, law.formula), None
        return *_once(_Work(inputs, law), kept, grad, needed), None


def _twice(
    inputs: Sequence[Any], grad: Tensor, needed: Sequence[bool], formula: Formula
) -> Iterator[Tensor | None]:
    """The gradients, by operators that have gradients of their own."""
    wanted = [part for part, need in zip(inputs, needed, strict=True) if need]
    again = torch.is_grad_enabled()
    with torch.autocast(grad.device.type, enabled=False), torch.enable_grad():
        out = formula(*inputs)
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=again))
    return (next(found) if need else None for need in needed)


def _once(
    work: _Work, kept: Tensor | None, grad: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of query, key, value and mask, where needed."""
    slopes = [
        work.slope_like(part) if need and part is not None else None
        for part, need in zip(work.inputs, needed, strict=True)
    ]
    above, whole = work.pieces(grad), work.pieces(kept)
    of_query, of_key, of_value = map(work.pieces, slopes[:3])
    scale = work.law.scale
    for block in work.blocks():
        place, room, query, key, value = block
        grads = work.matrices(above, place)
        weights = work.matrices(whole, place) if whole else work.weights(block, room.weights)
        dropped = work.drop(block, weights, room.dropped)
        if of_value:
            work.add(of_value, block, room.product(dropped.mT, grads))
        slope = multiply(grads, value.mT, room.slope).mul_(dropped)
        slope.addcmul_(weights, slope.sum(-1, keepdim=True), value=-1.0)  # of the scores
        if slopes[3] is not None:
            part = work.cut(slopes[3], block)
            part += work.four(block, slope).sum_to_size(part.shape)
        if of_query:
            work.put(of_query, block, room.product(slope, key, scale))
        if of_key:
            work.add(of_key, block, room.product(slope.mT, query, scale))
    return slopes


class _Work:
    """The blocks of an attention, worked on one after another in the same memory."""

    def __init__(self, inputs: Sequence[Any], indexed: _Indexed) -> None:
        query, key, _, self.mask = self.inputs = inputs
        self.law, self._strides, self._base = indexed[:3]
        self._affine = inverted(self.law.rate)
        self._wide = torch.float64 if query.dtype == torch.float64 else torch.float32
        self._size = (*query.shape[:3], key.size(2))
        self._steps = self._plan(query.is_cpu)
        self._has_all = self._steps[1:] == self._size[1:3]
        """Whether a block has all heads and rows of its part of the batch."""
        self._parts = [self.pieces(part) for part in inputs[:3]]
        self._rooms: dict[tuple[int, int, int], _Room] = {}
        self._runs: dict[int, bool] = {}

    def _plan(self, on_cpu: bool) -> tuple[int, int, int]:
        """How many of the batch, of heads and of rows make a block."""
        batch, heads, rows, columns = self._size
        room = _BLOCK * torch.get_num_threads() if on_cpu else _BLOCK_ELSEWHERE
        of_rows = _even(rows, max(room // columns, _FEWEST_ROWS))
        of_heads = _even(heads, room // (rows * columns)) if of_rows == rows else 1
        of_batch = _even(batch, room // (heads * rows * columns)) if of_heads == heads else 1
        return of_batch, of_heads, of_rows

    def blocks(self) -> Iterator[_Block]:
        batch, heads, rows, columns = self._size
        of_batch, of_heads, of_rows = self._steps
        query, key, value = self._parts
        every_row, every_column = slice(0, rows), slice(0, columns)
        for number, b in enumerate(_slices(batch, of_batch)):
            for h in _slices(heads, of_heads):
                whole = _Place(number, b, h, every_row, every_column)
                keys, values = (self.matrices(x, whole, all_rows=True) for x in (key, value))
                for r in _slices(rows, of_rows):
                    place, seen = whole, columns
                    if r != every_row or self.law.causal:
                        seen = min(r.stop, columns) if self.law.causal else columns
                        place = whole._replace(rows=r, columns=slice(0, seen))
                    queries = self.matrices(query, place)
                    room = self._room((queries.size(0), queries.size(1), seen))
                    part = (keys, values) if seen == columns else (keys[:, :seen], values[:, :seen])
                    yield _Block(place, room, queries, *part)

    def _room(self, sizes: tuple[int, int, int]) -> _Room:
        if sizes not in self._rooms:
            self._rooms[sizes] = _Room(sizes, self.inputs[0], self._wide)
        return self._rooms[sizes]

    def pieces(self, x: Tensor | None) -> Sequence[Tensor]:
        """x in the parts of the batch: cut once, since each cut takes as long as a small sum."""
        if x is None:
            return ()
        return x.unbind(0) if self._steps[0] == 1 else torch.split(x, self._steps[0])

    def matrices(self, x: Sequence[Tensor], place: _Place, all_rows: bool = False) -> Tensor:
        """What a block has of a tensor: (heads, rows, ...), in the type that is computed in."""
        part = self._part(x, place, all_rows)
        if part.dtype != self._wide:
            part = part.to(self._wide)
        part = part.flatten(0, 1) if part.dim() == 4 else part
        return part if part.stride(-1) == 1 else part.contiguous()

    def _part(self, x: Sequence[Tensor], place: _Place, all_rows: bool = False) -> Tensor:
        if self._has_all:
            return x[place.number]
        return x[place.number][place.heads, slice(None) if all_rows else place.rows]

    def put(self, whole: Sequence[Tensor], block: _Block, rows: Tensor) -> None:
        """Rows of a block, at their place in the whole."""
        part = self._part(whole, block.place)
        part.copy_(rows.view(part.shape))

    def add(self, whole: Sequence[Tensor], block: _Block, columns: Tensor) -> None:
        """What a block gives to keys, or to values: to that of other rows."""
        part = self._part(whole, block.place, all_rows=True)
        if self.law.causal:
            part = part[..., block.place.columns, :]
        columns = columns.view(part.shape)
        _ = part.copy_(columns) if self._steps[2] == self._size[2] else part.add_(columns)

    def slope_like(self, x: Tensor) -> Tensor:
        """Room for a gradient: at zero, if blocks add to it."""
        if x is not self.mask and self._steps[2] == self._size[2] and not self.law.causal:
            return torch.empty_like(x, dtype=self._wide)
        return torch.zeros_like(x, dtype=self._wide)

    def small_weights(self) -> Tensor | None:
        """Room for all weights, if they take less than the inputs, which are kept as well."""
        *_, rows, columns = self._size
        inputs = sum(part.numel() * part.element_size() for part in self.inputs[:3])
        small = math.prod(self._size) * self._wide.itemsize <= inputs
        if not small or self._steps[2] < rows or (self.law.causal and rows < columns):
            return None
        return torch.empty(self._size, dtype=self._wide, device=self.inputs[0].device)

    def weights(self, block: _Block, out: Tensor) -> Tensor:
        """The attention weights of a block, (heads, rows, columns), before dropout, into `out`."""
        scores = multiply(block.query, block.key.mT, out, self.law.scale)
        if self.law.causal:
            later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device)
            scores.masked_fill_(later.triu_(block.place.rows.start + 1), -torch.inf)
        elif self.mask is not None:
            whole, mask = self.four(block, scores), self.cut(self.mask, block)
            no_number = mask.dtype == torch.bool
            _ = whole.masked_fill_(~mask, -torch.inf) if no_number else whole.add_(mask)
        torch.softmax(scores, -1, out=scores)
        if self._dead is not None:
            self.four(block, scores).masked_fill_(self.cut(self._dead, block), 0.0)
        return scores

    @cached_property
    def _dead(self) -> Tensor | None:
        """Rows that may attend to nothing; None where it is known that there are none."""
        if self.mask is None:
            return None
        closed = ~self.mask if self.mask.dtype == torch.bool else self.mask == -torch.inf
        dead = closed.all(-1, keepdim=True)
        return None if dead.is_cpu and not bool(dead.any()) else dead

    def drop(self, block: _Block, weights: Tensor, out: Tensor) -> Tensor:
        """The weights of a block with dropout, into `out`."""
        _, b, h, r, _ = block.place
        batch, head, row, _ = self._strides
        base = self._base + b.start * batch + h.start * head + r.start * row
        key, rate = self.law.key, self.law.rate
        mask = Mask(key, rate, None, base)
        x, y = weights, out
        if not self._is_run(block):
            mask = mask._replace(strides=self._strides)
            x, y = self.four(block, weights), self.four(block, out)
        if traced(x):
            y.copy_(autograd.drawn(x, mask, self._affine))
        else:
            dispatch.dropout(x, mask, self._affine, out=y)
        return out

    def _is_run(self, block: _Block) -> bool:
        """Whether the weights of a block have consecutive mask indices."""
        found = self._runs.get(id(block.room))
        if found is None:
            sizes = self.four(block, block.room.weights).shape
            steps = zip(sizes, self._strides, mask_strides(sizes, frozenset()), strict=True)
            found = all(size == 1 or step == run for size, step, run in steps)
            self._runs[id(block.room)] = found
        return found

    def four(self, block: _Block, weights: Tensor) -> Tensor:
        """Weights of a block with an axis for the batch."""
        batch = block.place.batch
        return weights.view(batch.stop - batch.start, -1, *weights.shape[1:])

    def cut(self, x: Tensor, block: _Block) -> Tensor:
        """The part of a mask for a block; axes of size 1 stay."""
        of = zip(x.shape, block.place[1:], strict=True)
        return x[tuple(slice(None) if size == 1 else part for size, part in of)]


def _even(count: int, most: int) -> int:
    """A step of at most `most`, at least 1, that divides `count` into parts of about one size."""
    return math.ceil(count / math.ceil(count / max(most, 1)))


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
