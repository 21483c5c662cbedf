"""Follows what was drawn until it meets a value of the model: masks that somebody wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import erf, prod, sqrt
from typing import Any

import torch
from torch import Tensor

from dropkit.intercept.trace import INPUT, NOISE, Application, Chance, Draw, Node, shape_of

_COUNTED = 1 << 22
"""Elements of a mask that are counted; a rate is then known to .1 %."""
_NORMALS = ("randn", "randn_like", "normal", "normal_")
_UNIFORM = ("rand", "rand_like", "uniform", "uniform_")
_MULTIPLIES = ("mul", "mul_", "multiply", "multiply_")
_FILLS = ("masked_fill", "masked_fill_", "index_put", "index_put_", "_index_put_impl_")
_COMPARES = {"lt": True, "le": True, "gt": False, "ge": False}
"""Comparisons with a number, and whether they hold below it."""
_TURNS = ("logical_not", "logical_not_", "bitwise_not", "bitwise_not_", "rsub")
_COPIES = ("_to_copy", "clone", "contiguous", "copy_", "detach", "expand_copy", "lift_fresh_copy")
_FILLED = ("full", "full_like", "new_full", "fill_", "fill")


def origin(inputs: Iterable[Node]) -> int:
    """What a value hangs on that was made of others; NOISE: on draws, and else on constants."""
    found, drawn = 0, False
    for node in inputs:
        found |= 0 if node.is_noise else node.origin
        drawn |= node.is_noise
    return found or (NOISE if drawn else 0)


def drawn(node: Node, draw: Draw) -> None:
    """An operator gave what it drew, and nothing else."""
    node.origin, node.draws = NOISE, (draw,)
    node.chance = _of_draw(node)


def _of_draw(node: Node) -> Chance:
    """The law of what an operator draws."""
    if node.name in _UNIFORM:
        low, high = (*node.scalars, 0.0, 1.0)[:2] if len(node.scalars) == 2 else (0.0, 1.0)
        return Chance("uniform", shift=low) if high - low == 1 else Chance("other")
    if node.name in _NORMALS and node.scalars in ((), (0.0, 1.0)):
        return Chance("other" if node.name == "normal" and not node.scalars else "normal")
    if node.name in ("bernoulli", "bernoulli_"):
        return Chance("binary", nonzero=_probability(node))
    return Chance("other")


def _probability(node: Node) -> float | None:
    for filled in node.inputs[:1]:
        if filled.name in _FILLED and filled.scalars:
            return filled.scalars[-1]  # exact, whatever it was filled in
    return node.scalars[0] if node.scalars else None


def probability(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float | None:
    """Of ones, as `bernoulli` or `bernoulli_` was called; None: several, or none that is known."""
    in_place = name == "bernoulli_"
    p = args[1] if len(args) > 1 else kwargs.get("p", 0.5 if in_place else args[0])
    if not isinstance(p, Tensor):
        return float(p)
    plain = type(p) in (Tensor, torch.nn.Parameter) and p.dtype.is_floating_point
    if p.is_meta or not p.numel() or not plain:
        return None
    written = args[0] if in_place else kwargs.get("out")
    if written is not None and written.untyped_storage()._cdata == p.untyped_storage()._cdata:
        return None  # the draws stand there by now
    with torch.no_grad():
        first = p.flatten()[0]
        return _shortest(first) if bool((p == first).all()) else None


def _shortest(value: Tensor) -> float:
    """The number of the fewest digits that its type has the same for: 0.7 in any."""
    exact = float(value)
    told = (float(f"{exact:.{digits}g}") for digits in range(1, 17))
    return next((one for one in told if float(value.new_tensor(one)) == exact), exact)


def noticed(node: Node) -> None:
    """An operator has drawn values among its inputs: if all else is constant, it gives such."""
    if node.origin != NOISE:
        return
    found = {id(draw): draw for source in node.inputs for draw in source.draws}
    node.draws = tuple(found.values())
    sources = [source for source in node.inputs if source.is_noise]
    if node.name.removesuffix("_") in ("mul", "div") and len(sources) == 2:  # a mask, and its mean
        sources = [source for source in sources if prod(source.shape) > 1] or sources
    before = sources[0].chance or Chance("other")
    node.chance = _after(node, before) if len(sources) == 1 else Chance("other")


def _after(node: Node, before: Chance) -> Chance:
    """The law of what an operator makes of a drawn value."""
    name, number = node.name.removesuffix("_"), node.scalars[0] if node.scalars else None
    if node.name in _COPIES:
        return before
    if node.name == "keep" and number is not None:  # dropkit's: the key is drawn, and then the mask
        return Chance("binary", nonzero=1 - number)
    if name in _COMPARES and before.kind == "normal" and number is not None:
        below = (1 + erf(number / sqrt(2))) / 2
        return Chance("binary", nonzero=below if _COMPARES[name] else 1 - below)
    if name in _COMPARES and before.kind in ("normal", "other"):
        return Chance("binary")
    if before.kind == "uniform" and number is not None:
        if name == "add":
            return Chance("uniform", shift=before.shift + number)
        if name in _COMPARES:
            below = min(max(number - before.shift, 0.0), 1.0)
            return Chance("binary", nonzero=below if _COMPARES[name] else 1 - below)
    if before.kind == "uniform" and name == "floor":
        return Chance("binary", nonzero=min(max(before.shift, 0.0), 1.0))
    if before.kind == "binary" and before.nonzero is not None:
        if node.name in _TURNS:
            return Chance("binary", nonzero=1 - before.nonzero)
        if name in ("mul", "div"):
            return Chance("binary", nonzero=before.nonzero)
    return Chance(before.kind) if before.kind == "binary" else Chance("other")


def is_application(node: Node) -> bool:
    """Whether what was drawn meets what was not."""
    return node.origin != NOISE and any(source.is_noise for source in node.inputs)


def application(
    node: Node, pairs: Sequence[tuple[Node, Tensor]], *, count: bool
) -> Application | None:
    """How it meets it; None where nothing is masked, and nothing added.

    Args:
        node: the operation.
        pairs: what it was given, in order.
        count: whether to count what is in the mask.
    """
    noise = next((pair for pair in pairs if pair[0].is_noise), None)
    others = [pair for pair in pairs if not pair[0].is_noise and pair[0].origin]
    others.sort(key=lambda pair: not pair[0].origin & INPUT)  # a mask token is no value
    value = others[0] if others else None
    if noise is None or value is None:
        return None
    first = pairs[0][0]
    keeps = True
    if node.name in _FILLS:
        keeps = False
    elif node.name == "where":
        keeps = len(pairs) < 2 or pairs[1][0] is value[0]
    if (node.name in _FILLS) != (first is value[0]) and node.name in (*_FILLS, "where"):
        return None  # a mask that was not drawn, over drawn values
    return Application(
        node=node,
        noise=noise[0],
        value=value[0],
        masks=node.name in (*_MULTIPLIES, *_FILLS) or _is_masked(node, pairs),
        keeps=keeps,
        shape=shape_of(value[1]),
        noise_shape=shape_of(noise[1]),
        counts=_counts(noise[1]) if count else None,
    )


def _is_masked(node: Node, pairs: Sequence[tuple[Node, Tensor]]) -> bool:
    """Whether a choice leaves out a value; one between two of them, as in zoneout, leaves none."""
    between = [source for source, _ in pairs[1:] if source.origin & INPUT]
    return node.name == "where" and len(between) < 2


def filling(others: Sequence[Tensor]) -> float | None:
    """The number in what was given beside noise and value, where that is one number."""
    single = [x for x in others if x.numel() == 1 and not x.is_meta and type(x) is Tensor]
    if len(others) != 1 or not single or single[0].is_complex():
        return None
    return float(single[0])


def _counts(noise: Tensor) -> tuple[int, int, float, float] | None:
    """Elements, zeros, sum and sum of squares."""
    if noise.is_meta or type(noise) not in (Tensor, torch.nn.Parameter) or noise.is_complex():
        return None
    with torch.no_grad():
        values = noise.flatten()[:_COUNTED].double()
        kept = int(torch.count_nonzero(values))
        size = min(prod(noise.shape), _COUNTED)
        return size, size - kept, float(values.sum()), float(values.square().sum())
