"""DropBlock: contiguous regions of a map are dropped, at a rate that is exact at every pixel."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from dropkit import kernel
from dropkit.errors import SettingError
from dropkit.functional.checks import check_dropped, check_number, check_rate
from dropkit.functional.sharding import is_sharded, keyed_shard
from dropkit.kernel import Key
from dropkit.records import Shard

_BISECTIONS = 50  # halve an interval of 1 to 2**-50, finer than the rates that masks realize


def drop_block(
    x: Tensor,
    p: float = 0.1,
    training: bool = True,
    *,
    block_size: int | Sequence[int] = 7,
    inside: bool = False,
    shared: Sequence[int] = (),
    spatial: int | None = None,
    key: Key | None = None,
    offset: int | Shard = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Drop blocks of neighbouring pixels, so that each pixel is dropped with probability p.

    .. math::
        y_i = x_i \, m_i / P(m_i = 1), \qquad m_i = \prod_{s \in B(i)} (1 - z_s), \qquad
        P(z_s = 1) = \gamma = 1 - (1 - p)^{1 / |B|}

    A seed :math:`z_s` drops a whole block. Blocks hang over every border, so each pixel lies in the
    same number :math:`|B|` of them; the rate and the scale are exact and alike everywhere.

    Args:
        x: (N, C, L), (N, C, H, W) or (N, C, D, H, W); channels have blocks of their own.
        p: the fraction dropped, a number from 0 to 1.
        block_size: pixels along each spatial axis, or along all; any, also beyond the map's.
        inside: only whole blocks, as in the paper. Borders are dropped less often than the middle,
            p is exactly the mean over pixels, and each has a scale that keeps its expectation.
        shared: (0,) for one mask for all samples, (1,) for one for all channels, (0, 1) for both.
        training, key, offset, generator: as in `dropout`. spatial: x's spatial axes, if checked.

    Raises:
        SettingError: p outside [0, 1] or a tensor; blocks below 1; x of other axes; with `inside`,
            a `Shard` of parts of maps.
        RuntimeError: integers in x.

    >>> import torch, dropkit.functional as F
    >>> F.drop_block(torch.ones(1, 1, 3, 9), 0.3, block_size=(2, 4), key=12)[0, 0] > 0
    tensor([[False, False, False, False,  True,  True,  True,  True,  True],
            [ True,  True,  True,  True,  True,  True,  True,  True,  True],
            [ True,  True,  True,  True,  True,  True,  True,  True,  True]])

    Source: Ghiasi, Lin & Le 2018, "DropBlock: A regularization method for convolutional networks".
    At 0.1, with blocks of 7 on maps of 14 x 14, their formula drops 9 % and timm 21 %. Both divide
    by the share that the batch kept, which couples its samples; here the scale is a constant.
    """
    check_number(p)
    check_rate(p)
    blocks = check_blocks(block_size, _check_maps(x, spatial))
    if not training or p == 0:
        return x
    check_dropped(x)
    if is_sharded(x):
        return keyed_shard(
            x, key, generator, lambda part, drawn, place: _drop_block(
                part, p, blocks, inside, shared, drawn, place
            )
        )  # fmt: skip
    key = kernel.resolve_key(key, generator, x)
    return _drop_block(x, p, blocks, inside, shared, key, offset)


def _drop_block(
    x: Tensor,
    p: float,
    blocks: tuple[int, ...],
    inside: bool,
    shared: Sequence[int],
    key: Key,
    offset: int | Shard,
) -> Tensor:
    maps = tuple(x.shape[2:])
    place = _place(x.shape, offset)
    if inside:
        blocks = tuple(min(pair) for pair in zip(blocks, maps, strict=True))
        if place is not None and place.shape[2:] != maps:
            raise SettingError(
                "offset: with inside=True, expected whole maps, since blocks lie within them; got "
                f"maps of {maps} in {place.shape}. Try inside=False"
            )
        solve = solved_rate if torch.compiler.is_compiling() else _remembered
        seed_rate = solve(p, tuple(int(size) for size in maps), tuple(int(b) for b in blocks))
    else:
        seed_rate = -math.expm1(math.log1p(-p) / math.prod(blocks)) if p < 1 else 1.0
    grow = [(1 - block if inside else block - 1) for block in blocks]

    def run(value: Tensor) -> Tensor:
        kept = kernel.keep(
            (*value.shape[:2], *_grown(maps, grow)), seed_rate, key=key, shared=shared,
            offset=0 if place is None else _grown_place(place, grow), device=value.device,
        )  # fmt: skip
        for axis, block in enumerate(blocks, 2):
            kept = _all_within(_bordered(kept, axis, block - 1) if inside else kept, axis, block)
        scale = _scale(value, p, seed_rate, maps, blocks if inside else None)
        return torch.where(kept, value * scale, 0).to(value.dtype)

    return kernel.diagonal(x, run)


def _scale(
    x: Tensor, p: float, seed_rate: float, maps: Sequence[int], inside: Sequence[int] | None
) -> float | Tensor:
    """The inverse of the probability to be kept; where it differs, of each pixel."""
    if p == 1:
        return 0.0
    if inside is None:
        return 1.0 / (1.0 - p)
    exponents = torch.ones((), dtype=torch.float64, device=x.device)
    for size, block in zip(maps, inside, strict=True):
        at = torch.arange(size, device=x.device)
        count = at.clamp(max=size - block) - (at - block + 1).clamp(min=0) + 1
        exponents = exponents.unsqueeze(-1) * count
    wide = torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32
    return torch.exp(exponents * -math.log1p(-seed_rate)).to(wide)


def _all_within(kept: Tensor, axis: int, block: int) -> Tensor:
    """Whether all of `block` neighbours are True; by doubling, in about log2(block) passes."""
    size, width = kept.shape[axis] - block + 1, 1
    while 2 * width <= block:
        length = kept.shape[axis] - width
        kept = kept.narrow(axis, 0, length) & kept.narrow(axis, width, length)
        width *= 2
    if width == block:
        return kept
    return kept.narrow(axis, 0, size) & kept.narrow(axis, block - width, size)


def _bordered(kept: Tensor, axis: int, width: int) -> Tensor:
    """The map with places around it where no seed may lie."""
    sides = [0, 0] * (kept.dim() - 1 - axis) + [width, width]
    return torch.nn.functional.pad(kept, sides, value=True)


def solved_rate(p: float, maps: tuple[int, ...], blocks: tuple[int, ...]) -> float:
    """The rate of seeds within maps for which p is the mean rate over pixels; by bisection.

    A pixel that lies in c blocks is dropped at 1 - (1 - gamma)**c, which grows with gamma.

    >>> round(solved_rate(0.1, (14, 14), (7, 7)), 6)
    0.006764
    """
    if p == 1:
        return 1.0
    pixels = _coverage(maps, blocks)
    total, low, high = sum(pixels.values()), 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kept = sum(n * (1.0 - middle) ** count for count, n in pixels.items())
        low, high = (middle, high) if kept > (1.0 - p) * total else (low, middle)
    return (low + high) / 2


_remembered = cache(solved_rate)


def _coverage(maps: Sequence[int], blocks: Sequence[int]) -> Counter[int]:
    """How many pixels lie in how many blocks."""
    pixels = Counter({1: 1})
    for size, block in zip(maps, blocks, strict=True):
        line = Counter(min(at, size - block) - max(at - block + 1, 0) + 1 for at in range(size))
        longer: Counter[int] = Counter()
        for (a, many), (b, times) in itertools.product(pixels.items(), line.items()):
            longer[a * b] += many * times
        pixels = longer
    return pixels


def check_blocks(block_size: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """The size of a block along each of `rank` spatial axes."""
    blocks = (block_size,) * rank if isinstance(block_size, int) else tuple(block_size)
    if len(blocks) != rank or min(blocks) < 1:
        raise SettingError(
            f"block_size: expected a size for each of {rank} spatial axes, or one for all, from 1; "
            f"got {block_size}"
        )
    return blocks


def _check_maps(x: Tensor, spatial: int | None) -> int:
    """The number of x's spatial axes."""
    rank = x.dim() - 2
    if spatial not in (None, rank) or not 1 <= rank <= 3:
        shapes = ("(N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)")
        expected = " or ".join(shapes) if spatial is None else shapes[spatial - 1]
        raise SettingError(f"x: expected maps of shape {expected}; got {tuple(x.shape)}")
    return rank


def _place(sizes: Sequence[int], offset: int | Shard) -> Shard | None:
    """Where x lies in the whole, in samples if it is given in elements."""
    if isinstance(offset, Shard):
        return offset
    row = math.prod(sizes[1:])
    if offset == 0 or row == 0:
        return None
    if offset % row:
        raise SettingError(
            f"offset: expected a multiple of the {row} elements of a sample; got {offset}. For a "
            "cut along another axis, try offset=Shard(shape of the whole, start of this part)"
        )
    first = offset // row
    return Shard((first + sizes[0], *sizes[1:]), (first, *[0] * (len(sizes) - 1)))


def _grown(maps: Sequence[int], grow: Sequence[int]) -> tuple[int, ...]:
    return tuple(size + more for size, more in zip(maps, grow, strict=True))


def _grown_place(place: Shard, grow: Sequence[int]) -> Shard:
    """The same place on the map of the seeds."""
    return Shard((*place.shape[:2], *_grown(place.shape[2:], grow)), place.start)
