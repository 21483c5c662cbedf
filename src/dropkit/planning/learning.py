"""Rates that are learned by gradient, with the weights, wherever a model drops."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dropkit.errors import SettingError
from dropkit.functional import concrete_dropout
from dropkit.intercept import Operation, attach, detach
from dropkit.intercept.within import module_of
from dropkit.planning.levers import Lever
from dropkit.planning.moving import part
from dropkit.planning.plan import Plan
from dropkit.planning.turning import Call, Given, attended, chosen, compile_anew

_TEMPERATURE = 0.1
_FIRST = 0.1
"""Of a site at 0 or 1, where no gradient would move it."""
_SITES = "sites: expected some whose calls can be seen, as those of functions and of attention"


class LearnedRates(nn.Module):
    r"""Concrete dropout in place of a model's own: its rates are parameters, by role.

    .. math::
        z_i = \sigma\left(\frac{\operatorname{logit} p + \operatorname{logit} u_i}{t}\right),
        \qquad penalty = -\lambda \sum_{sites} K \, H(p)

    The mask 1 - z is relaxed, so that the loss has a gradient in p; H is the entropy of a coin in
    nats and K the number of features. It draws rates to 1/2, and the data draw them to where the
    model predicts best; with few rows they stay higher. Add `penalty()` to the mean loss of a
    batch, and give the parameters to the optimizer, with no weight decay.

    Args:
        plan: of the model, `dropkit.rates(model, *inputs)`.
        names: roles or paths; by default all roles of sites whose calls can be seen. Each has one
            rate, which begins where its sites are in the mean.
        rows: N, training rows.
        regularizer: lambda; by default 1 / N for a cross entropy. 2 / (tau N) for a squared error
            of precision tau.

    Raises:
        SettingError: no such role or path; none of its sites can be seen at their calls. The model
            is as it was.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5),
    ...                           torch.nn.Linear(8, 2))
    >>> plan = dropkit.rates(net, torch.ones(2, 4))
    >>> learned = dropkit.LearnedRates(plan, rows=100)
    >>> (net(torch.ones(2, 4)).square().mean() + learned.penalty()).backward()
    >>> learned.rates, learned.logits["hidden"].grad is None
    ({'hidden': 0.5}, False)
    >>> learned.settle()
    >>> plan["hidden"]
    {'2.p': 0.5}

    Source: Gal, Hron & Kendall 2017, "Concrete Dropout". Their weight term is left to the weight
    decay of the optimizer.
    """

    def __init__(
        self,
        plan: Plan,
        names: Sequence[str] | None = None,
        *,
        rows: int,
        regularizer: float | None = None,
        temperature: float = _TEMPERATURE,
    ) -> None:
        super().__init__()
        if not isinstance(rows, int) or rows < 1:
            raise SettingError(f"rows: expected how many there are to train on; got {rows!r}")
        self.regularizer = 1 / rows if regularizer is None else regularizer
        self.temperature = temperature
        self.logits = nn.ParameterDict()
        self._levers: dict[str, list[Lever]] = {}
        self._plan = plan
        self._learns: dict[nn.Module, _Learn] = {}
        self._features: dict[str, int] = {}
        roles = [role for role, levers in plan.roles.items() if any(map(_seen, levers))]
        if not (names or roles):
            raise SettingError(f"{_SITES}; {type(plan.model).__name__} has none")
        try:
            for name in names or roles:
                self._learn(name, [lever for lever in plan.named(name) if _seen(lever)])
            self._check()
        except BaseException:
            self._end()
            raise
        compile_anew()

    def _check(self) -> None:
        """Each rate is one of a call that is seen as the model runs."""
        rows = zip(self._plan, self._plan.prove().rows, strict=True)
        seen = {lever for lever, row in rows if row.realized == 1}
        idle = [name for name in self._levers if not seen & self._own(name)]
        if idle:
            raise SettingError(
                f"{_SITES}; none of {', '.join(map(repr, idle))} is, since a later name has all of "
                "them, or they run in a gradient checkpoint or not at all. Try other names"
            )
        for learn in self._learns.values():
            learn.looks = False

    def _own(self, name: str) -> set[Lever]:
        """The sites of a name that no later one has."""
        logit = self.logits[_key(name)]
        model = self._plan.model
        return {
            lever
            for lever in self._levers[name]
            if self._learns[part(model, lever)].logits[lever.key[1:]] is logit
        }

    def _end(self) -> None:
        for module, learn in self._learns.items():
            detach(module, learn)
        self._learns.clear()

    def _learn(self, name: str, levers: Sequence[Lever]) -> None:
        if not levers:
            raise SettingError(f"{_SITES}; {name!r} has none")
        mean = sum(lever.wanted for lever in levers) / len(levers)
        p = mean if 0 < mean < 1 else _FIRST
        logit = nn.Parameter(torch.tensor(math.log(p) - math.log1p(-p)))
        self.logits[_key(name)], self._levers[name] = logit, list(levers)
        self._features[name] = sum(map(_features, levers))
        for lever in levers:
            module = part(self._plan.model, lever)
            if module not in self._learns:
                self._learns[module] = _Learn(module, self.temperature, self._calls(lever.path))
                attach(module, self._learns[module], parts=False)
            self._learns[module].logits[lever.key[1:]] = logit

    def _calls(self, path: str) -> dict[Call, Tensor | None]:
        """What a module calls: nothing of it is learned yet."""
        return {lever.key[1:]: None for lever in self._plan if lever.path == path and _seen(lever)}

    @property
    def rates(self) -> dict[str, float]:
        """The rates as they stand, by role or path."""
        return {
            name: round(float(self.logits[_key(name)].detach().sigmoid()), 6)
            for name in self._levers
        }

    def penalty(self) -> Tensor:
        """The term of the loss, a tensor with one number that has gradients."""
        terms = []
        for name in self._levers:
            logit = self.logits[_key(name)]
            gone, kept = logsigmoid(logit), logsigmoid(-logit)
            entropy = -(gone.exp() * gone + kept.exp() * kept)
            terms.append(-self.regularizer * self._features[name] * entropy)
        return torch.stack(terms).sum()

    def settle(self) -> None:
        """End learning: the plan asks for the rates as they stand, and the model drops at them."""
        self._end()
        for name, rate in self.rates.items():
            for lever in self._levers[name]:
                lever.asked = rate
        self._plan.apply(prove=False)


def _key(name: str) -> str:
    """What a parameter may be called: torch takes no dots."""
    key = name.replace(".", "/") or "/"
    return f"/{key}" if hasattr(nn.ParameterDict, key) else key


def _seen(lever: Lever) -> bool:
    return lever.at_call and lever.site.kind in ("dropout", "feature_dropout", "attention")


def _features(lever: Lever) -> int:
    """What is dropped of one row: features of the last axis, or channels."""
    shape, shared = lever.site.shape, lever.site.shared
    return shape[1] if shared and len(shape) > 2 else shape[-1] if shape else 1


@dataclass(eq=False)
class _Learn:
    """Lets what one module itself drops be dropped by a relaxed mask."""

    precedes: ClassVar[bool] = True
    module: nn.Module
    temperature: float
    logits: dict[Call, Tensor | None]
    """By the place of a call; None: it is left as it is."""
    looks: bool = True
    """Whether it drops all, so that it is seen where it does."""

    def __call__(self, call: Operation) -> Any:
        """Run it."""
        if torch.compiler.is_compiling():
            logits = list(self.logits.values())
            if any(one is not logits[0] for one in logits):
                raise RuntimeError("rates of calls in one module are learned uncompiled only")
            logit = logits[0]
        else:
            here = sys._getframe(1)
            logit = chosen(self.logits, here) if module_of(here) is self.module else None
        if logit is None or not (call.is_attention or call.arguments["training"]):
            return call.run()
        if self.looks:
            return call.run(**{"dropout_p" if call.is_attention else "p": Given(1)})
        if call.is_attention:
            return attended(call, logit, self._drop)
        axes = range(2, call.x.dim()) if call.name.removesuffix("_") != "dropout" else ()
        return self._drop(call.x, logit, axes)

    def _drop(self, x: Tensor, logit: Tensor, shared: Sequence[int] = ()) -> Tensor:
        return concrete_dropout(x, logit, temperature=self.temperature, shared=shared)
