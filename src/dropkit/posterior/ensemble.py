"""All thinned networks of a small model: what Monte Carlo dropout and weight scaling stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.errors import SettingError
from dropkit.posterior.choosing import Choice, Rates
from dropkit.posterior.entropies import (
    Outputs,
    entropy,
    log_probabilities,
    mutual_information,
    wide,
)
from dropkit.posterior.enumerating import Networks, Wanted
from dropkit.posterior.leaves import Form, check_classes, check_probabilities, check_real, form_of
from dropkit.posterior.soundness import check_counts, check_outputs
from dropkit.posterior.telling import Bits, Pattern, binary, named
from dropkit.posterior.trees import child, flatten

_MOST = 1 << 16
_AT_ONCE = 1 << 22
"""Numbers looked at in one go: 32 MiB in float64."""
_BITS = 40
"""More networks than of so many bits would not end."""


def exact(
    model: nn.Module,
    *inputs: Any,
    sites: Choice = None,
    rates: Rates = None,
    most: int = _MOST,
    outputs: Outputs = "values",
    class_axis: int = -1,
    batch_axis: int | None = 0,
    **kwargs: Any,
) -> Exact:
    r"""Run all thinned networks of a small model, each with its probability.

    .. math:: E[f(x; m)] = \sum_{m \in \{0, 1\}^n} P(m) f(x; m), \qquad
        P(m) = \prod_i p_i^{1 - m_i} (1 - p_i)^{m_i}

    So it is known to rounding what Monte Carlo dropout converges to, and how far from it weight
    scaling is, the model in evaluation mode.

    Args:
        model: any module that `sample` takes; n, the number of elements that its sites may drop in
            one row, is small. A network is the same for all rows.
        inputs, kwargs: what it is called with.
        sites, rates: which sites drop, and at what rates, as in `sample`.
        most: networks at most; there are 2^n.
        outputs: what the model gives: "values", "logits" or "probabilities"; classes lie along
            `class_axis` of one network's outputs.
        batch_axis: the axis of the rows in the inputs. None: there are none, or each has masks of
            its own; n is then the number of all elements.

    Raises:
        SettingError: more networks than `most`, or another option outside its range.
        SamplingError: a site that draws its own masks, something else that is random, NaN, or
            outputs that are the same in all networks.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)).eval()
    >>> whole = dropkit.ensemble.exact(net, torch.ones(4, 3), outputs="logits")
    >>> whole.count, round(float(whole.log_probabilities.exp().sum()), 12)
    (8, 1.0)
    >>> torch.allclose(whole.geometric, whole.scaled.softmax(-1).double())
    True

    Source: Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature
    detectors"; Baldi & Sadowski 2013, "Understanding Dropout".
    """
    check_outputs(outputs)
    _check_most(most)
    wanted = Wanted(model, inputs, kwargs, sites, rates, batch_axis)
    return Exact(wanted.networks(lambda bits: _all(bits, most)), outputs, class_axis)


def _check_most(most: int) -> None:
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 1 << _BITS:
        raise SettingError(
            f"most: expected a number of networks, from 1 to 2**{_BITS}; got {most!r}"
        )


def _all(bits: Sequence[Bits], most: int) -> tuple[Pattern, int]:
    count = sum(one.count for one in bits)
    if count > _BITS or 1 << count > most:
        places = ", ".join(f"{named(one.site)} {one.count}" for one in bits[:8])
        more = f" and {len(bits) - 8} more" if len(bits) > 8 else ""
        larger = f", most=2**{count}" if count <= 24 else ""
        raise SettingError(
            f"most: expected at most {most:,} networks; the masks of one row have {count} bits, "
            f"which makes 2**{count}: {places}{more}. Try sites= with fewer of them{larger}, or "
            "dropkit.sample, which draws from all"
        )
    return binary, 1 << count


class Exact:
    """All thinned networks of a model: their outputs, and what these say together.

    A quantity has the structure of the outputs, as of `Draws`: of a tensor it is a tensor, in
    float64. It is exact: no draw is in it.
    """

    __slots__ = ("_class_axis", "_form", "_logs", "_networks", "_outputs")

    def __init__(self, networks: Networks, outputs: str, class_axis: int) -> None:
        """Of networks that have run; a user calls `exact`."""
        self._networks, self._outputs, self._class_axis = networks, outputs, class_axis
        self._logs: Tensor | None = None
        flat = flatten(networks.samples)
        check_counts(flat)
        for name, leaf in zip(flat.names, flat.leaves, strict=True):
            if isinstance(leaf, Tensor):
                check_probabilities(leaf, form_of(leaf, outputs, class_axis, name))

    # ---- which networks there are

    @property
    def bits(self) -> int:
        """How many elements are dropped or kept, n."""
        return sum(one.count for one in self.masks)

    @property
    def count(self) -> int:
        """How many networks there are, 2^n."""
        return 1 << self.bits

    @property
    def masks(self) -> tuple[Bits, ...]:
        """The masks of a network, in the order in which they act: site, rate and shape."""
        return self._networks.bits

    @property
    def samples(self) -> Any:
        """The outputs of each network, along the first axis; network 0 drops nothing."""
        return self._networks.samples

    @property
    def log_probabilities(self) -> Tensor:
        """The logarithm of the probability of each network, (count,)."""
        if self._logs is None:
            self._logs = _log_probabilities(self.masks, self.count)
        return self._logs

    def dropped(self, network: int) -> tuple[Tensor, ...]:
        """What a network drops: for each of `masks`, True where it does.

        Raises:
            SettingError: there is no such network.
        """
        if not 0 <= network < self.count:
            raise SettingError(f"network: expected a number below {self.count:,}; got {network}")
        number = torch.tensor([network])
        return tuple(one.dropped(number, binary)[0] for one in self.masks)

    def __getitem__(self, at: int | str) -> Exact:
        """All networks' outputs of one part, by its key, field or place."""
        parts = (child(tree, at) for tree in (self._networks.samples, self._networks.scaled))
        return Exact(Networks(self.masks, *parts), self._outputs, self._class_axis)

    def __repr__(self) -> str:
        return f"Exact({self.count} networks, of {self.bits} bits)"

    # ---- what they say together

    @property
    def mean(self) -> Any:
        """The expectation of the outputs: what the mean of draws converges to."""
        return self._each(self._mean)

    @property
    def var(self) -> Any:
        """The variance of the outputs."""
        return self._each(self._variance)

    @property
    def std(self) -> Any:
        """The square root of the variance."""
        return self._each(lambda leaf, form: self._variance(leaf, form).sqrt())

    @property
    def scaled(self) -> Any:
        """Weight scaling: what the model gives in evaluation mode, where nothing is dropped."""
        return self._networks.scaled

    @property
    def probabilities(self) -> Any:
        """The expectation of the probabilities: their arithmetic mean over networks."""
        return self._each(lambda leaf, form: _placed(self._log_mean(leaf, form).exp(), form))

    @property
    def geometric(self) -> Any:
        r"""The normalized geometric mean: :math:`\prod_m p(y|m)^{P(m)}`, made to sum to 1."""

        def estimate(leaf: Tensor, form: Form) -> Tensor:
            return _placed(self._average(leaf, _logs_of(form)).softmax(-1), form)

        return self._each(estimate)

    @property
    def scaled_probabilities(self) -> Any:
        """The probabilities that the model gives in evaluation mode."""
        flat = flatten(self._networks.scaled)
        forms = self._forms()
        return flat.refill(
            [
                _placed(_logs_of(form)(leaf[None])[0].exp(), form) if form is not None else leaf
                for leaf, form in zip(flat.leaves, forms, strict=True)
            ]
        )

    @property
    def entropy(self) -> Any:
        """The entropy of the mean probabilities, in nats."""
        return self._each(lambda leaf, form: entropy(self._log_mean(leaf, form)))

    @property
    def expected_entropy(self) -> Any:
        """The mean entropy of the networks, in nats."""
        return self._each(self._expected_entropy)

    @property
    def mutual_information(self) -> Any:
        """What the networks disagree on, in nats: the entropy less the expected one."""
        return self._each(
            lambda leaf, form: mutual_information(
                self._log_mean(leaf, form), self._expected_entropy(leaf, form)
            )
        )

    @property
    def variation_ratio(self) -> Any:
        """The probability of a network that does not say what most do."""

        def estimate(leaf: Tensor, form: Form) -> Tensor:
            votes = self._average(leaf, lambda part: _votes(_logs_of(form)(part)))
            return 1 - votes.amax(-1)

        return self._each(estimate)

    # ---- of one tensor

    def _mean(self, leaf: Tensor, form: Form) -> Tensor:
        check_real(form)
        return self._average(leaf, wide)

    def _variance(self, leaf: Tensor, form: Form) -> Tensor:
        mean = self._mean(leaf, form)
        return self._average(leaf, lambda part: (wide(part) - mean).square())

    def _log_mean(self, leaf: Tensor, form: Form) -> Tensor:
        return self._average(leaf, lambda part: _logs_of(form)(part).exp()).log()

    def _expected_entropy(self, leaf: Tensor, form: Form) -> Tensor:
        return self._average(leaf, lambda part: entropy(_logs_of(form)(part)))

    def _average(self, leaf: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """The expectation over networks, a part of them at a time."""
        many = max(1, _AT_ONCE // max(1, leaf[0].numel()))
        shares = self.log_probabilities.exp().to(wide(leaf[:1]).device)
        parts = zip(torch.split(shares, many), torch.split(leaf, many), strict=True)
        return torch.stack([torch.tensordot(share, of(part), 1) for share, part in parts]).sum(0)

    def _forms(self) -> list[Form | None]:
        flat = flatten(self._networks.samples)
        return [
            form_of(leaf, self._outputs, self._class_axis, name)
            if isinstance(leaf, Tensor)
            else None
            for name, leaf in zip(flat.names, flat.leaves, strict=True)
        ]

    def _each(self, ask: Callable[[Tensor, Form], Tensor]) -> Any:
        flat = flatten(self._networks.samples)
        pairs = zip(flat.leaves, self._forms(), strict=True)
        return flat.refill([leaf if form is None else ask(leaf, form) for leaf, form in pairs])


def _logs_of(form: Form) -> Callable[[Tensor], Tensor]:
    """Gives log-probabilities, the classes along the last axis."""
    check_classes(form)
    return lambda part: log_probabilities(part, form.outputs, form.axis)


def _placed(last: Tensor, form: Form) -> Tensor:
    """The classes where the outputs have them."""
    return last.movedim(-1, form.axis)


def _votes(logs: Tensor) -> Tensor:
    return torch.zeros_like(logs).scatter_(-1, logs.argmax(-1, keepdim=True), 1.0)


def _log_probabilities(masks: Sequence[Bits], count: int) -> Tensor:
    """Of each network: its dropped bits at their rates, and its kept ones at one less these."""
    networks = torch.arange(count)
    logs = torch.zeros(count, dtype=torch.float64)
    for one in masks:
        for bit in range(one.start, one.start + one.count):
            rate = torch.tensor([1 - one.rate, one.rate], dtype=torch.float64).log()
            logs += rate[networks >> bit & 1]
    return logs


__all__ = ["Bits", "Exact", "exact"]
