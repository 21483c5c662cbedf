"""Monte Carlo dropout without Monte Carlo, where the outputs are affine in the masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkit import functional
from dropkit.errors import SamplingError, SettingError
from dropkit.posterior.choosing import Choice, Rates
from dropkit.posterior.entropies import wide
from dropkit.posterior.enumerating import Networks, Wanted
from dropkit.posterior.leaves import Form, check_real, form_of
from dropkit.posterior.telling import Bits, Pattern, named
from dropkit.posterior.trees import Flat, child, flatten

_MOST = 1 << 16
_PAIRS = 16
"""Sets of bits, each with its complement, of which the outputs are foretold."""
_ROUNDING = 32
"""Times sqrt(n + 1) roundings of the outputs' type: how far what was foretold of n bits may be off.
Of one to three linear maps behind 2 to 2,048 units it was seen to be off by 8 of these at most, and
with a ReLU or a tanh behind them by 2,000 and more. In half precision the two are not far apart.
"""


def affine(
    model: nn.Module,
    *inputs: Any,
    sites: Choice = None,
    rates: Rates = None,
    most: int = _MOST,
    batch_axis: int | None = 0,
    **kwargs: Any,
) -> Affine:
    r"""The mean and the variance of infinitely many draws, where dropout feeds a linear map.

    .. math:: f(x; d) = f_0 + \sum_i d_i \delta_i, \qquad
        E[f] = f_0 + \sum_i p_i \delta_i, \qquad Var[f] = \sum_i p_i (1 - p_i) \delta_i^2

    with d_i = 1 where element i is dropped, f_0 the outputs if nothing is, and delta_i what it does
    to drop element i alone. Of a linear layer behind inverted dropout, delta_i is
    -w_i x_i / (1 - p), and the variance is p / (1 - p) times the sum of (w_i x_i)^2.

    That the outputs are affine is not believed, but tried: the outputs of 33 networks, in which
    many elements are dropped at a time, have to be those that the formula foretells.

    Args:
        model: any module that `sample` takes.
        inputs, kwargs: what it is called with.
        sites, rates: which sites drop, and at what rates, as in `sample`.
        most: networks at most; one for each element that may be dropped in one row, and 34.
        batch_axis: the axis of the rows in the inputs, as in `exact`.

    Raises:
        SamplingError: the outputs are not affine in the masks; or as `exact` raises it.
        SettingError: more networks than `most`, or another option outside its range.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(3, 1)).eval()
    >>> x = torch.tensor([[1.0, 2.0, 3.0]])
    >>> known = dropkit.ensemble.affine(net, x)
    >>> by_hand = 0.2 / 0.8 * (net[1].weight * x).square().sum()
    >>> torch.allclose(known.var, by_hand.double())
    True

    Source: Wang & Manning 2013, "Fast dropout training", whose moments these are.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise SettingError(f"most: expected a number of networks, 1 or more; got {most!r}")
    wanted = Wanted(model, inputs, kwargs, sites, rates, batch_axis)
    networks = wanted.networks(lambda bits: _alone(bits, most))
    _check(networks)
    return Affine(networks)


class Affine:
    """The moments of outputs that are affine in the masks, as of infinitely many draws.

    A quantity has the structure of the outputs: of a tensor it is a tensor, in float64.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Networks) -> None:
        """Of networks that have run; a user calls `affine`."""
        self._networks = networks

    @property
    def masks(self) -> tuple[Bits, ...]:
        """The masks, in the order in which they act: site, rate and shape."""
        return self._networks.bits

    @property
    def bits(self) -> int:
        """How many elements are dropped or kept."""
        return sum(one.count for one in self.masks)

    @property
    def mean(self) -> Any:
        """The expectation of the outputs."""
        return self._each(
            lambda leaf: wide(leaf[0]) + torch.tensordot(self._rates(leaf), self._effects(leaf), 1)
        )

    @property
    def var(self) -> Any:
        """The variance of the outputs."""
        return self._each(self._variance)

    @property
    def std(self) -> Any:
        """The square root of the variance."""
        return self._each(lambda leaf: self._variance(leaf).sqrt())

    @property
    def scaled(self) -> Any:
        """What the model gives in evaluation mode: of inverted dropout, the mean up to rounding."""
        return self._networks.scaled

    def covariance(self) -> Any:
        """The covariance (..., C, C) of the outputs (..., C) along their last axis.

        >>> import torch, dropkit
        >>> net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)).eval()
        >>> dropkit.ensemble.affine(net, torch.ones(4, 3)).covariance().shape
        torch.Size([4, 2, 2])
        """

        def estimate(leaf: Tensor) -> Tensor:
            if leaf.dim() < 2:
                raise SettingError("covariance: expected outputs with an axis; got single numbers")
            effects, rates = self._effects(leaf), self._rates(leaf)
            return torch.einsum("i,i...c,i...d->...cd", rates * (1 - rates), effects, effects)

        return self._each(estimate)

    def __getitem__(self, at: int | str) -> Affine:
        """The moments of one part of the outputs, by its key, field or place."""
        parts = (child(tree, at) for tree in (self._networks.samples, self._networks.scaled))
        return Affine(Networks(self.masks, *parts))

    def __repr__(self) -> str:
        return f"Affine({self.bits} bits)"

    def _variance(self, leaf: Tensor) -> Tensor:
        rates = self._rates(leaf)
        var: Tensor = torch.tensordot(rates * (1 - rates), self._effects(leaf).square(), 1)
        return var

    def _rates(self, leaf: Tensor) -> Tensor:
        rates = [one.rate for one in self.masks for _ in range(one.count)]
        return torch.tensor(rates, dtype=torch.float64, device=wide(leaf[:1]).device)

    def _effects(self, leaf: Tensor) -> Tensor:
        """What it does to drop one element alone."""
        return _effects(leaf, self.bits)

    def _each(self, ask: Callable[[Tensor], Tensor]) -> Any:
        flat = flatten(self._networks.samples)
        forms = _forms(flat)
        for form in forms:
            if form is not None:
                check_real(form)
        pairs = zip(flat.leaves, forms, strict=True)
        return flat.refill([leaf if form is None else ask(leaf) for leaf, form in pairs])


def _effects(leaf: Tensor, bits: int) -> Tensor:
    effects: Tensor = wide(leaf[1 : 1 + bits]) - wide(leaf[0])
    return effects


def _forms(flat: Flat) -> list[Form | None]:
    pairs = zip(flat.names, flat.leaves, strict=True)
    return [form_of(x, "values", -1, name) if isinstance(x, Tensor) else None for name, x in pairs]


# ---- which networks, and what they have to give


def _alone(masks: Sequence[Bits], most: int) -> tuple[Pattern, int]:
    """Network 0 drops nothing, 1 to n one element each, and those behind them the `_sets`."""
    bits = sum(one.count for one in masks)
    sets = _sets(bits)
    count = 1 + bits + len(sets)
    if count > most:
        raise SettingError(
            f"most: expected at most {most:,} networks; the masks of one row have {bits:,} bits, "
            f"which takes {count:,}: {', '.join(named(one.site) for one in masks[:8])}. Try sites= "
            f"with fewer of them, or most={count}"
        )

    def pattern(networks: Tensor, own: Tensor) -> Tensor:
        there = sets.to(own.device)[(networks[:, 0] - 1 - bits).clamp_min(0)][:, own]
        return torch.where(networks > bits, there, own + 1 == networks)

    return pattern, count


def _sets(bits: int) -> Tensor:
    """All bits; and sets of half of them with their complements, where each pair is parted."""
    halves = functional.dropout(torch.ones(_PAIRS, bits), 0.5, key=0) > 0
    return torch.cat([torch.ones(1, bits, dtype=torch.bool), halves, ~halves])


def _check(networks: Networks) -> None:
    """What was foretold of the sets is what they gave.

    Raises:
        SamplingError: the outputs are not affine in the masks.
    """
    bits = sum(one.count for one in networks.bits)
    sets = _sets(bits).double()
    flat = flatten(networks.samples)
    for name, leaf in zip(flat.names, flat.leaves, strict=True):
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            continue
        if leaf.dtype not in (torch.float32, torch.float64):
            raise SettingError(
                f"outputs{name}: expected float32 or float64, in which it can be seen whether they "
                f"are affine in the masks; got {leaf.dtype}. Try model.float()"
            )
        effects = _effects(leaf, bits)
        foretold = wide(leaf[0]) + torch.tensordot(sets.to(effects.device), effects, 1)
        off = (wide(leaf[1 + bits :]) - foretold).abs()
        scale = wide(leaf[0]).abs() + effects.abs().sum(0)
        rounding = _ROUNDING * math.sqrt(bits + 1) * torch.finfo(leaf.dtype).eps
        if bool((off > rounding * scale.amax()).any()):
            share = float((off / scale.amax()).max())
            raise SamplingError(
                f"expected outputs{name} that are affine in the masks; those of networks in which "
                f"many elements are dropped are off by {share:.2g} of their size from what each "
                "element does alone: something nonlinear, or another site, follows. Try sites= "
                "with the last of them, dropkit.ensemble.exact, or dropkit.sample"
            )


__all__ = ["Affine", "affine"]
