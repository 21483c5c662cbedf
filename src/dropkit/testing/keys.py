"""A key names a mask: nothing but the key and an element's place decides what is dropped."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from dropkit.bounds import FALSE_ALARM
from dropkit.kernel import derive
from dropkit.records import Shard
from dropkit.testing.bench import Bench, dependence
from dropkit.testing.circumstances import layouts
from dropkit.testing.gradients import recomputed
from dropkit.testing.independence import echo
from dropkit.testing.report import concerns, require
from dropkit.testing.subject import Apply
from dropkit.testing.transforms import as_one_graph

_P = 0.3
_OTHER_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_KEYS = 16
_LARGE = 1 << 18  # elements that any library would share among threads


def key_repeats(bench: Bench) -> str:
    """One key gives one mask, whatever the global random state, which is left alone."""
    x, apply = bench.input(), _keyed(bench)
    bench.reseed(8)
    first, moved = bench.moved(partial(apply, x))
    require(not moved, "the global random state moved")
    bench.reseed(9)
    require(torch.equal(first, apply(x)), "one key, two outputs")
    return "one key, one mask"


def key_independent(bench: Bench) -> str:
    """Other keys give other masks, also when the keys are neighbours; and no mask shifted."""
    key = derive(bench.seed)
    x = bench.plenty()
    first, *others = (
        _bits(bench, _keyed(bench, k), x)
        for k in (key, key ^ 1, key + 1, key ^ 1 << 40, key ^ 1 << 63)
    )
    chance = min(dependence(first, other) for other in others)
    require(chance >= FALSE_ALARM / 8, f"neighbouring keys depend: chance {chance:.1e}")
    found = echo(torch.stack([_bits(bench, _keyed(bench, key + n), x) for n in range(_KEYS)]))
    require(found.chance >= FALSE_ALARM / 2, f"keys in turn, {found.said}: {found.chance:.1e}")
    return f"{len(others)} neighbouring keys, {_KEYS} in turn"


def key_strides(bench: Bench) -> str:
    """A key's mask does not see how a tensor lies in memory."""
    x, apply = bench.input(), _keyed(bench)
    expected = apply(x)
    ways = layouts(x.ndim)
    for name, laid_out in ways.items():
        view = laid_out(x)
        same = torch.equal(apply(view), expected)
        require(same, f"another output when {name}, strides {view.stride()}")
    return ", ".join(ways)


def key_dtypes(bench: Bench) -> str:
    """A key's mask does not see the dtype."""
    concerns("half" in bench.subject.claims, "not claimed")
    apply = _keyed(bench)
    concerns(bench.subject.drops, "no mask")
    masks = [_mask(bench, apply, bench.input(dtype=dtype)) for dtype in _OTHER_DTYPES]
    for dtype, mask in zip(_OTHER_DTYPES, masks, strict=True):
        require(torch.equal(mask, masks[0]), f"{dtype} has another mask than {_OTHER_DTYPES[0]}")
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in _OTHER_DTYPES)


def key_threads(bench: Bench) -> str:
    """A key's mask does not see how many threads there are."""
    apply = _keyed(bench)
    shape = list(bench.subject.shape)
    if bench.rows is not None:
        shape[bench.rows] *= max(1, _LARGE // math.prod(shape))
    x = bench.input(tuple(shape))
    outputs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)  # put back when the check ends
        outputs.append(apply(x))
    same = all(torch.equal(outputs[0], other) for other in outputs)
    require(same, "another output with another number of threads")
    return f"1, 2 and 3 threads, {x.numel()} elements"


def key_batch_cut(bench: Bench) -> str:
    """The parts of a batch, each with its offset, are dropped as the whole is."""
    concerns("offset" in bench.subject.claims, "not claimed")
    concerns(bench.rows == 0, "its batch cannot be cut")
    shapes = {bench.subject.shape}
    if bench.subject.sizes == "any":  # rows of an odd length begin in the midst of any block
        shapes.add((bench.subject.shape[0], *(size | 1 for size in bench.subject.shape[1:])))
    for shape in sorted(shapes):
        x = bench.input(shape)
        expected = _keyed(bench)(x)
        row = math.prod(shape[1:])
        for cut in {1, len(x) // 2, len(x) - 1} - {0}:
            parts = [_keyed(bench)(x[:cut]), _keyed(bench, offset=cut * row)(x[cut:])]
            same = torch.equal(torch.cat(parts), expected)
            require(same, f"another output of {shape} when cut at row {cut}")
    return "cut at the first, middle and last row"


def key_shards(bench: Bench) -> str:
    """The shards of a tensor, along any axis, are dropped as the whole is."""
    concerns("shard" in bench.subject.claims, "not claimed")
    concerns(bench.subject.sizes == "any", "takes no other shape")
    x = bench.input()
    expected = _keyed(bench)(x)
    axes = [a for a in range(x.ndim) if x.shape[a] > 1 and a not in bench.subject.law.tied]
    for axis in axes:
        cut = (x.shape[axis] + 1) // 2
        parts = []
        for start in (0, cut):
            part = x.narrow(axis, start, min(cut, x.shape[axis] - start))
            where = tuple(start if a == axis else 0 for a in range(x.ndim))
            parts.append(_keyed(bench, offset=Shard(tuple(x.shape), where))(part))
        same = torch.equal(torch.cat(parts, axis), expected)
        require(same, f"another output when cut along axis {axis}")
    return f"along axes {axes}"


def key_checkpoint(bench: Bench) -> str:
    """With a key a checkpoint needs no stash of the random state."""
    x, apply = bench.input().requires_grad_(), _keyed(bench)
    _, gradient = recomputed(apply, x, preserve=False)
    (expected,) = torch.autograd.grad(apply(x).sum(), x)
    error = max(1e-4, 16 * torch.finfo(x.dtype).eps)
    near = (gradient - expected).abs() <= error * expected.abs().clamp_min(1)
    require(bool(near.all()), "another mask when computed again")
    return "preserve_rng_state=False"


def key_compiled(bench: Bench) -> str:
    """Compiled, a key's mask is the same."""
    concerns("compile" in bench.subject.claims, "not claimed")
    x, apply = bench.input(), _keyed(bench)
    require(torch.equal(as_one_graph(apply, "aot_eager")(x), apply(x)), "another output")
    return "aot_eager"


def key_devices(bench: Bench) -> str:
    """A key's mask is the same on the CPU and on an accelerator."""
    apply = _keyed(bench)
    concerns(torch.cuda.is_available(), "no accelerator here")
    x = bench.input()
    masks = [_mask(bench, apply, x.to(device)).cpu() for device in ("cpu", "cuda")]
    require(torch.equal(*masks), f"{int((masks[0] != masks[1]).sum())} of {x.numel()} differ")
    return "cpu and cuda"


def _keyed(bench: Bench, key: int | None = None, **place: int | Shard) -> Apply:
    """The subject with a key, as a function of a tensor."""
    concerns(bench.subject.keyed is not None, "takes no key")
    assert bench.subject.keyed is not None
    function = bench.subject.keyed(_P)
    name = derive(bench.seed, 10) >> 1 if key is None else key & (1 << 64) - 1
    return lambda x: function(x, key=name, **place)


def _mask(bench: Bench, apply: Apply, x: Tensor) -> Tensor:
    return bench.mask(_P, x, apply(x))


def _bits(bench: Bench, apply: Apply, x: Tensor) -> Tensor:
    return bench.untied(bench.arranged(_mask(bench, apply, x)))
